"""Browsers: who is signed in, which forms are ours, and how a page is answered. Shared by both portals.

A handler reads a form with `Face.form`, the only way there is, so none can forget the CSRF check; it answers with
`Face.page`, which puts the token for the next form into the page.

A browser has a session cookie for each tenant, or before sign-in a random pre-session cookie, which sign-in replaces. A
form's token is bound to whichever it is. A session cookie that opens nothing counts for nothing, so nobody can choose
one for somebody. What is bound to the cookie from before a sign-in is done no more there: it only leads where the first
one led.
"""

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, TypeAlias, cast

import jinja2
from litestar import MediaType, Response
from litestar.datastructures import Cookie

from app.audit.log import Client
from app.auth.admin_sessions import AdminSessions
from app.auth.sessions import LiveSession
from app.auth.signing_in import SignIn
from app.errors import CodeExpired, Forbidden, StalePage
from app.keys import base64url
from app.web import csrf
from app.web.caller import client_of
from app.web.cookies import Jar, SameSite, per_tenant
from app.web.forms import Form, read_form
from app.web.repeats import Proven
from app.web.services import AnyRequest, services

Answer: TypeAlias = Response[Any]

_PRE_SESSION: Final = "pre"
# What forms were bound to before the last sign-in: that, or the session that it ended.
_PAST: Final = "past"
_PAST_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{43}|[A-Za-z0-9_-]{86}")
# As long as the longest code.
_KEPT_AFTER_SIGN_IN: Final = timedelta(minutes=15)
# More cookies than these grow into what servers refuse to read.
_MOST_SESSIONS: Final = 8
_TOKEN: Final = re.compile(rb'\bcsrf_token(?:=|"\r\n\r\n)([A-Za-z0-9_-]{1,200})')
_DUE: Final = "factor-due"
_PRE_SESSION_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits


@dataclass(frozen=True, slots=True)
class Face:
    """One of the two portals as browsers see it. Neither accepts the other's sessions or forms.

    With `by_tenant` a browser has a session for each tenant, and the address says whose page it is.
    """

    name: str
    cookie: str
    same_site: SameSite
    subjects: frozenset[str]
    by_tenant: bool = False

    async def session(self, request: AnyRequest) -> LiveSession | None:
        """The session of the browser, or None; with `by_tenant` that of the page's tenant. At most one round trip.

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
            state[key] = await self._look_up(request, self._slug(request))
        return cast("LiveSession | None", state[key])

    async def session_anew(self, request: AnyRequest) -> LiveSession | None:
        """The same, past what this process still believes of it."""
        session = await self.session(request)
        if session is None:
            return None
        services(request).sessions.forget(session)
        del request.scope["state"][f"{self.name}-session"]
        return await self.session(request)

    async def end_reason(self, request: AnyRequest) -> str | None:
        """Why the session ended that the browser still has a cookie of; None where it has none."""
        cookie = self._own_cookie(request, self._slug(request))
        return await services(request).sessions.end_reason(cookie) if cookie else None

    async def form(
        self, request: AnyRequest, *allowed: str, repeatable: Collection[str] = (), file: str | None = None
    ) -> Form:
        """The fields of a form of ours: only `allowed` ones, any number of the `repeatable`, and a `file`.

        Raises `Forbidden` unless it was sent from a page of ours, `StalePage` unless this browser got that page from
        us and may still use it, `InvalidRequest` for any other field and for whatever isn't a form. Nothing was changed
        then. A form that was sent before doesn't come here: see `app.web.repeats`.
        """
        core = services(request)
        if not csrf.same_origin(request.headers, core.settings.public_url):
            elsewhere = csrf.opened_elsewhere(request.headers, core.settings.public_url)
            raise Forbidden(elsewhere or "This form was not sent from our own page.")
        form = await read_form(request, repeatable, file)
        field = form.pop(csrf.FIELD, "")
        proven = await self._proven(request, request.headers.get(csrf.HEADER) or field)
        if proven is None or not proven.alive:
            elsewhere = csrf.opened_elsewhere(request.headers, core.settings.public_url)
            raise Forbidden(elsewhere) if elsewhere else StalePage(ours=proven is not None)
        form.only({*allowed, *repeatable, *([file] if file else [])})
        return form

    async def prove(self, request: AnyRequest) -> Proven | None:
        """Whose form a request is, for `FormsOnce`; None for one that is nobody's."""
        if not csrf.same_origin(request.headers, services(request).settings.public_url):
            return None
        presented = request.headers.get(csrf.HEADER)
        if not presented:
            # Wherever it stands, in either encoding; what it is worth is looked at next.
            found = _TOKEN.search(await request.body())
            presented = found[1].decode() if found else ""
        return await self._proven(request, presented)

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
        if await self.unproven_session(request) is None:
            fresh += self._dropped(request, self._slug(request))
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
        slug, before = signed_in.tenant_slug, await self._holder(request)
        previous = await self._look_up(request, slug)
        if previous is not None:
            await services(request).sessions.logout(previous, visitor(request))
        jar = jar_of(request)
        name = self._cookie_name(slug)
        session = jar.make(name, signed_in.cookie, seconds=signed_in.refresh_expires_in, same_site=self.same_site)
        changed = [session, *await self._crowded_out(request, name), *cookies]
        if before is not None:
            # Its forms may still be sent again, or be open in another tab for another tenant.
            changed.append(jar.make(_PAST, before, seconds=int(_KEPT_AFTER_SIGN_IN.total_seconds())))
            if before == jar.read(request, _PRE_SESSION):
                changed.append(jar.drop(_PRE_SESSION))
        return leave(request, to, changed)

    async def exit(self, request: AnyRequest, to: str) -> Answer:
        """Ends the browser's session, if it has one, and sends it on."""
        session = await self.unproven_session(request)
        if session is not None:
            await services(request).sessions.logout(session, visitor(request))
        return leave(request, to, self._dropped(request, self._slug(request)))

    def _slug(self, request: AnyRequest) -> str | None:
        """The tenant whose page it is."""
        slug: str | None = request.path_params.get("slug") if self.by_tenant else None
        return slug

    def _cookie_name(self, slug: str | None) -> str:
        """A page of no tenant has the name that no session has."""
        return per_tenant(self.cookie, slug) if self.by_tenant and slug is not None else self.cookie

    def _own_cookie(self, request: AnyRequest, slug: str | None) -> str | None:
        return jar_of(request).read(request, self._cookie_name(slug))

    def _dropped(self, request: AnyRequest, slug: str | None) -> list[Cookie]:
        """Takes away what the browser has of a session."""
        jar, name = jar_of(request), self._cookie_name(slug)
        return [jar.drop(name, same_site=self.same_site)] if jar.sent(request, name) else []

    async def _crowded_out(self, request: AnyRequest, name: str) -> list[Cookie]:
        """A browser has a bounded number of sessions: beyond it those that are over go, then the oldest ones end."""
        jar, sessions = jar_of(request), services(request).sessions
        others = [other for other in jar.all_sent(request, f"{self.cookie}_") if other != name]
        if len(others) < _MOST_SESSIONS:
            return []
        found = [
            (other, await sessions.authenticate_cookie(jar.read(request, other) or "", unproven=True))
            for other in others
        ]
        living = sorted(
            ((other, session) for other, session in found if session is not None),
            key=lambda pair: pair[1].authenticated_at,
        )
        too_many = living[: max(0, len(living) - _MOST_SESSIONS + 1)]
        for _, session in too_many:
            await sessions.logout(session, visitor(request))
        gone = [other for other, session in found if session is None] + [other for other, _ in too_many]
        return [jar.drop(other, same_site=self.same_site) for other in gone]

    async def _look_up(self, request: AnyRequest, slug: str | None) -> LiveSession | None:
        cookie = self._own_cookie(request, slug)
        core = services(request)
        session = await core.sessions.authenticate_cookie(cookie, unproven=True) if cookie else None
        if session is None or session.subject.kind not in self.subjects:
            return None
        if self.by_tenant:
            return session if session.tenant_slug == slug else None
        if not await AdminSessions(core.db, core.clock).goes_on(session, visitor(request)):
            # Or this process would believe in it for some seconds more, and send the browser round in circles.
            core.sessions.forget(session)
            return None
        return session

    async def _holder(self, request: AnyRequest) -> str | None:
        """The cookie that this browser's next forms are bound to."""
        if await self.unproven_session(request) is not None:
            return self._own_cookie(request, self._slug(request))
        return _read(request, _PRE_SESSION, _PRE_SESSION_VALUE)

    async def _proven(self, request: AnyRequest, token: str) -> Proven | None:
        """Which of the browser's cookies a form is bound to. Signed in, one from before counts no more."""
        own = self._own_cookie(request, self._slug(request))
        signed_in = await self.unproven_session(request) is not None
        before = (_read(request, _PRE_SESSION, _PRE_SESSION_VALUE), _read(request, _PAST, _PAST_VALUE))
        for cookie, alive in ((own, signed_in), *((each, not signed_in) for each in before)):
            if cookie and csrf.holds(services(request).ring, self.name, cookie, token):
                return Proven(token, cookie, alive)
        return None


TENANT: Final = Face("tenant", "session", "lax", frozenset({"tenant", "member"}), by_tenant=True)
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


def _read(request: AnyRequest, cookie: str, shape: re.Pattern[str]) -> str | None:
    value = jar_of(request).read(request, cookie)
    return value if value and shape.fullmatch(value) else None


def _render(request: AnyRequest, template: str, block: str | None, context: dict[str, object]) -> str:
    pages: jinja2.Environment = request.app.state.pages
    found = pages.get_template(template)
    if block is None:
        return found.render(context)
    return "".join(found.blocks[block](found.new_context(context)))
