"""Browsers: who is signed in, which forms are ours, and how a page is answered. Shared by both portals.

A handler reads a form with `Face.form`, the only way there is, so none can forget the CSRF check; it answers with
`Face.page`, which puts the token for the next form into the page.

A browser has a session cookie, or before sign-in a random pre-session cookie, which sign-in replaces. A form's token is
bound to whichever it is. A session cookie that opens nothing counts for nothing, so nobody can choose one for somebody.
"""

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, cast

import jinja2
from litestar import MediaType, Response
from litestar.datastructures import Cookie

from app.audit.log import Client
from app.auth.sessions import LiveSession
from app.auth.signing_in import SignIn
from app.errors import CodeExpired, Forbidden
from app.keys import base64url
from app.web import csrf
from app.web.caller import client_of
from app.web.cookies import Jar, SameSite
from app.web.forms import Form, read_form
from app.web.services import AnyRequest, services

Answer: TypeAlias = Response[Any]

_PRE_SESSION: Final = "pre"
_DUE: Final = "factor-due"
_PRE_SESSION_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits


@dataclass(frozen=True, slots=True)
class Face:
    """One of the two portals as browsers see it. Neither accepts the other's sessions or forms."""

    name: str
    cookie: str
    same_site: SameSite
    subjects: frozenset[str]

    async def session(self, request: AnyRequest) -> LiveSession | None:
        """The session of the browser, or None. At most one round trip a request.

        One for which a second factor is due is none: signing in again asks for it, and takes its place.
        """
        session = await self.unproven_session(request)
        if session is None or session.due is None:
            return session
        request.scope["state"][_DUE] = True
        return None

    async def unproven_session(self, request: AnyRequest) -> LiveSession | None:
        """The same with those: to sign out, and to say why somebody is asked to sign in."""
        state: dict[str, Any] = request.scope["state"]
        key = f"{self.name}-session"
        if key not in state:
            state[key] = await self._look_up(request)
        return cast("LiveSession | None", state[key])

    async def form(
        self, request: AnyRequest, *allowed: str, repeatable: Collection[str] = (), file: str | None = None
    ) -> Form:
        """The fields of a form of ours: only `allowed` ones, any number of the `repeatable`, and a `file`.

        Raises `Forbidden` unless it was sent from a page that this browser got from us, `InvalidRequest` for any other
        field and for whatever isn't a form. Nothing was changed then.
        """
        core = services(request)
        if not csrf.same_origin(request.headers, core.settings.public_url):
            raise Forbidden("This form was not sent from our own page.")
        form = await read_form(request, repeatable, file)
        field = form.pop(csrf.FIELD, "")
        holder = await self._holder(request)
        presented = request.headers.get(csrf.HEADER) or field
        if holder is None or not csrf.holds(core.ring, self.name, holder, presented):
            raise Forbidden("The page had been open for too long. Load it again and repeat what you did.")
        form.only({*allowed, *repeatable, *([file] if file else [])})
        return form

    async def page(
        self,
        request: AnyRequest,
        template: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        cookies: Sequence[Cookie] = (),
        block: str | None = None,
        **context: object,
    ) -> Answer:
        """A page, or only one `block` of its template. The Edge adds `no-store` and the security headers."""
        jar = jar_of(request)
        holder = await self._holder(request)
        fresh: list[Cookie] = []
        if holder is None:
            holder = base64url(secrets.token_bytes(32))
            fresh.append(jar.make(_PRE_SESSION, holder))
        if jar.sent(request, self.cookie) and await self.unproven_session(request) is None:
            fresh.append(jar.drop(self.cookie, same_site=self.same_site))
        token = csrf.token(services(request).ring.current, self.name, holder)
        body = _render(request, template, block, {"lang": "en", "csrf_token": token, **context})
        return Response(
            body.encode(),
            status_code=status,
            media_type=MediaType.HTML,
            headers=dict(headers or {}),
            cookies=[*fresh, *cookies],
        )

    async def enter(self, request: AnyRequest, signed_in: SignIn, to: str, cookies: Sequence[Cookie] = ()) -> Answer:
        """Gives the browser its new session and sends it on.

        The session it had ends, as re-authentication must end the old one (ASVS 7.2.4). Raises `CodeExpired` for
        somebody who belongs to the other portal.
        """
        if signed_in.subject.kind not in self.subjects or signed_in.cookie is None:
            raise CodeExpired("This link has expired or was used already.")
        previous = await self.unproven_session(request)
        if previous is not None:
            await services(request).sessions.logout(previous, visitor(request))
        jar = jar_of(request)
        session = jar.make(
            self.cookie, signed_in.cookie, seconds=signed_in.refresh_expires_in, same_site=self.same_site
        )
        return leave(request, to, [session, jar.drop(_PRE_SESSION), *cookies])

    async def exit(self, request: AnyRequest, to: str) -> Answer:
        """Ends the browser's session, if it has one, and sends it on."""
        session = await self.unproven_session(request)
        if session is not None:
            await services(request).sessions.logout(session, visitor(request))
        return leave(request, to, [jar_of(request).drop(self.cookie, same_site=self.same_site)])

    async def _look_up(self, request: AnyRequest) -> LiveSession | None:
        cookie = jar_of(request).read(request, self.cookie)
        session = await services(request).sessions.authenticate_cookie(cookie, unproven=True) if cookie else None
        return session if session is not None and session.subject.kind in self.subjects else None

    async def _holder(self, request: AnyRequest) -> str | None:
        """The cookie that this browser's forms are bound to."""
        jar = jar_of(request)
        if await self.unproven_session(request) is not None:
            return jar.read(request, self.cookie)
        before = jar.read(request, _PRE_SESSION)
        return before if before and _PRE_SESSION_VALUE.fullmatch(before) else None


TENANT: Final = Face("tenant", "session", "lax", frozenset({"tenant", "member"}))
ADMIN: Final = Face("admin", "admin", "strict", frozenset({"admin"}))


def redirect(to: str, cookies: Sequence[Cookie] = ()) -> Answer:
    """303. htmx follows it by itself and takes what it came for from the page that it finds."""
    return Response(None, status_code=303, headers={"Location": to}, cookies=list(cookies))


def leave(request: AnyRequest, to: str, cookies: Sequence[Cookie] = ()) -> Answer:
    """To another page as a whole, also for htmx: after a sign-in or sign-out no part of the old one is right."""
    if not is_htmx(request):
        return redirect(to, cookies)
    return Response(None, status_code=204, headers={"HX-Redirect": to}, cookies=list(cookies))


def is_htmx(request: AnyRequest) -> bool:
    """Whether htmx asks, for a part of a page."""
    return request.headers.get("hx-request") == "true"


def lacks_factor(request: AnyRequest) -> bool:
    """Whether this browser would be signed in if it had proven the second factor that is due by now."""
    return bool(request.scope["state"].get(_DUE))


def visitor(request: AnyRequest) -> Client:
    """Where the call comes from, for the audit log: a page."""
    return replace(client_of(request), source="page")


def jar_of(request: AnyRequest) -> Jar:
    """The cookies of this installation."""
    return Jar(services(request).settings)


def _render(request: AnyRequest, template: str, block: str | None, context: dict[str, object]) -> str:
    pages: jinja2.Environment = request.app.state.pages
    found = pages.get_template(template)
    if block is None:
        return found.render(context)
    return "".join(found.blocks[block](found.new_context(context)))
