"""Who may do what in the admin portal. Every route names its least role, or the application doesn't start."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlencode, urlsplit

from litestar import Router
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.response import Response

from app.audit.log import Actor
from app.auth.admin_sessions import is_fresh
from app.auth.sessions import LiveSession
from app.errors import ConfigurationError, Forbidden, GatehouseError, InvalidToken, StalePage
from app.web.browser import ADMIN, Answer, is_htmx, lacks_factor, leave, redirect
from app.web.problems import refuse
from app.web.repeats import FormsOnce
from app.web.services import AnyRequest, services

# The least role of a route, as its `opt`. Whoever may more may less.
ANYONE: Final = {"least_role": "anyone"}
VIEWER: Final = {"least_role": "viewer"}
MANAGER: Final = {"least_role": "manager"}
OWNER: Final = {"least_role": "owner"}

HOME: Final = "/admin"
SIGN_IN: Final = "/admin/sign-in"
_SIGN_OUT: Final = "/admin/sign-out"

_LEVELS: Final = {"anyone": 0, "viewer": 1, "manager": 2, "owner": 3}
_LONGEST_PATH: Final = 400
# Whose forms lead inside.
_ENTRIES: Final = (SIGN_IN, "/admin/link/")
_AGAIN: Final = "again"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The admin who calls."""

    session: LiveSession

    @property
    def actor(self) -> Actor:
        """As the audit log names them."""
        return Actor("admin", self.session.subject.id)

    @property
    def may_edit(self) -> bool:
        """Managers and owners look after tenants; viewers read, with contacts masked."""
        return self.level >= _LEVELS["manager"]

    @property
    def may_erase(self) -> bool:
        """What can't be undone is for owners."""
        return self.level >= _LEVELS["owner"]

    @property
    def level(self) -> int:
        """Higher may more."""
        return _LEVELS.get(self.session.role or "", 0)


async def admit(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """The guard of every route: raises `InvalidToken` for whoever isn't signed in, `Forbidden` for too low a role."""
    # Litestar's own answer to OPTIONS declares nothing, and tells nothing.
    least = _LEVELS[handler.opt.get("least_role", "anyone")]
    if least == 0:
        return
    request = cast("AnyRequest", connection)
    session = await ADMIN.session(request)
    if session is None:
        connection.scope["state"]["ended"] = await ADMIN.end_reason(request)
        raise InvalidToken
    if SignedIn(session).level < least:
        raise Forbidden("Your role doesn't include this. Ask an owner.")
    connection.scope["state"]["admin"] = SignedIn(session)


def signed_in(request: AnyRequest) -> SignedIn:
    """Who calls; only in routes that need a role."""
    return cast("SignedIn", request.scope["state"]["admin"])


def fresh(request: AnyRequest) -> bool:
    """Whether the sign-in is young enough for what decides who gets in: as `require_fresh` of the API says."""
    return is_fresh(signed_in(request).session, services(request).clock())


def guarded(handlers: Iterable[HTTPRouteHandler]) -> Router:
    """The portal's routes. Raises `ConfigurationError` for one that doesn't say who may use it."""
    routes = list(handlers)
    open_doors = [str(handler) for handler in routes if handler.opt.get("least_role") not in _LEVELS]
    if open_doors:
        raise ConfigurationError([f"{name} declares no least role." for name in open_doors])
    return Router(
        "/admin",
        route_handlers=routes,
        guards=[admit],
        exception_handlers={InvalidToken: _ask_to_sign_in, StalePage: _lead_on, GatehouseError: _problem},
        middleware=[FormsOnce(ADMIN.name, ADMIN.prove)],
        include_in_schema=False,
    )


def sign_in_address(back: str, why: str | None = None) -> str:
    """The sign-in page that leads back to `back`."""
    query = {"next": back} if back != HOME else {}
    if why is not None:
        query["why"] = why
    return f"{SIGN_IN}?{urlencode(query)}" if query else SIGN_IN


def own_path(wanted: str | None) -> str:
    """A path of this portal to go on to, or the home page (CWE-601)."""
    if not wanted or len(wanted) > _LONGEST_PATH or not wanted.isascii() or not wanted.isprintable() or "\\" in wanted:
        return HOME
    path = urlsplit(wanted).path
    inside = wanted.startswith((HOME + "/", HOME + "?", HOME + "#")) or wanted == HOME
    return wanted if inside and ".." not in path and not path.startswith((SIGN_IN, _SIGN_OUT)) else HOME


def where_from(request: AnyRequest) -> str:
    """The page to come back to: this one, or the one that a form or htmx was on."""
    if request.method == "GET" and not is_htmx(request):
        query = request.scope["query_string"].decode("latin-1")
        return own_path(request.scope["path"] + (f"?{query}" if query else ""))
    page = urlsplit(request.headers.get("hx-current-url") or request.headers.get("referer") or "")
    return own_path(page.path + (f"?{page.query}" if page.query else ""))


def _ask_to_sign_in(request: AnyRequest, _: InvalidToken) -> Answer:
    """To the sign-in page and back.

    A link in a chat is followed across sites, so the browser keeps a Strict cookie from us, signed in or not: a page
    that leads to itself makes it our own navigation. Once, or a browser that sees it otherwise would go round.
    """
    here = where_from(request)
    if request.headers.get("sec-fetch-site") == "cross-site" and _AGAIN not in request.query_params:
        there = f"{here}{'&' if '?' in here else '?'}{_AGAIN}=1"
        page = request.app.state.pages.get_template("admin/again.html").render(there=there)
        return Response(page.encode(), media_type="text/html")
    if lacks_factor(request):
        return redirect(sign_in_address(here, "due"))
    ended = request.scope["state"].get("ended")
    if request.method == "POST":
        return redirect(sign_in_address(here, "idle-unsaved" if ended == "idle" else "unsaved"))
    why = {None: None, "idle": "idle"}.get(ended, "ended")
    return redirect(sign_in_address(here, why))


def _lead_on(request: AnyRequest, error: StalePage) -> Answer:
    """Whoever sends the form of a sign-in again that is complete is in already; any other page is loaded again."""
    signed_in_meanwhile = request.scope["state"].get("admin-session") is not None
    if error.ours and signed_in_meanwhile and request.scope["path"].startswith(_ENTRIES):
        return leave(request, HOME)
    if not signed_in_meanwhile and request.scope["path"] == _SIGN_OUT:
        return leave(request, f"{SIGN_IN}?why=out")
    return _problem(request, error)


def _problem(request: AnyRequest, error: GatehouseError) -> Answer:
    """Any other refusal, as a page with a way on."""
    refusal = refuse(error, services(request).settings)
    page = request.app.state.pages.get_template("tenant/problem.html").render(
        code=refusal.code,
        detail=refusal.detail,
        retry_after=refusal.retry_after,
        request_id=request.scope["state"]["request_id"],
        csrf_token="",
        back=_way_back(request, error),
    )
    return Response(page.encode(), status_code=refusal.status, headers=refusal.headers, media_type="text/html")


def _way_back(request: AnyRequest, error: GatehouseError) -> dict[str, str]:
    """The page that the form was on, or the start page."""
    if isinstance(error, StalePage):
        return {"href": where_from(request), "label": "Load the page again"}
    return {"href": HOME, "label": "To the start page"}
