"""Who may call what in the admin API. Every route names its least role, or the application doesn't start.

A program presents an API key, which has a role. A page of ours may call with the session cookie of the admin who looks
at it: then, as for any form, it has to come from our origin with the token of that session.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

from litestar import Router
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.types import Middleware

from app.audit.log import Actor
from app.auth.admin_sessions import is_fresh
from app.auth.sessions import LiveSession
from app.errors import ConfigurationError, Forbidden, InvalidToken
from app.tenants.model import Tenant
from app.web import csrf
from app.web.browser import ADMIN, jar_of
from app.web.caller import api_key
from app.web.services import AnyRequest, services

# The least role of a route, as its `opt`. Whoever may more may less.
VIEWER: Final = {"least_role": "viewer"}
MANAGER: Final = {"least_role": "manager"}
OWNER: Final = {"least_role": "owner"}
# As part of the `opt` of a route that decides who gets in, or exports contacts: a person's sign-in has to be young for
# it (ASVS 7.5.3). A guard asks for it, so that it holds for repetitions too. See `require_fresh`.
YOUNG: Final[dict[str, Any]] = {"young": lambda _: True}
YOUNG_UNLESS_DRY_RUN: Final[dict[str, Any]] = {"young": lambda request: request.query_params.get("dry_run") != "true"}

# How a call is authenticated, for the documentation.
SECURITY: Final[list[dict[str, list[str]]]] = [{"apiKey": []}, {"adminSession": []}]

_PREFIX: Final = "/api/v1/admin"
_LEVELS: Final = {"viewer": 1, "manager": 2, "owner": 3}
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_STATE: Final = "admin-api-caller"


@dataclass(frozen=True, slots=True)
class AdminCaller:
    """Somebody with a role: an API key, or an admin by session."""

    actor: Actor
    id: UUID
    role: str
    session: LiveSession | None = None

    @property
    def sees_contacts(self) -> bool:
        """Managers and owners look after tenants; viewers read, with contacts masked."""
        return self.level >= _LEVELS["manager"]

    @property
    def level(self) -> int:
        """Higher may more."""
        return _LEVELS.get(self.role, 0)

    def shown(self, tenant: Tenant) -> Tenant:
        """A tenant as this caller may see it."""
        return tenant if self.sees_contacts else tenant.masked()


async def admit(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """The guard of every route: raises `InvalidToken` for a stranger, `Forbidden` for too low a role."""
    request = cast("AnyRequest", connection)
    if request.method == "OPTIONS":
        return
    state = request.scope["state"]
    if _STATE not in state:
        state[_STATE] = await _identify(request)
    # Litestar's own answer to OPTIONS declares nothing; only an owner need know of it.
    least = handler.opt.get("least_role", "owner")
    if caller(request).level < _LEVELS[least]:
        raise Forbidden(f"This needs the role {least}.")
    if handler.opt.get("young", _never)(request):
        require_fresh(request)


def _never(_: AnyRequest) -> bool:
    return False


def caller(request: AnyRequest) -> AdminCaller:
    """Who calls. There is somebody: the guard has let them in."""
    return cast("AdminCaller", request.scope["state"][_STATE])


def require_fresh(request: AnyRequest) -> None:
    """Raises `Forbidden` for a person whose sign-in is too old for what decides who gets in: contacts and members,
    policies, admins, keys, sign-in links; and for exports of contacts. What stops an attack or helps at once asks for
    none. Handlers call it where the body decides; a POST is done once, so there it is for the guard.
    """
    session = caller(request).session
    if session is not None and not is_fresh(session, services(request).clock()):
        raise Forbidden("Your last sign-in is more than an hour ago. Sign in again for this.")


def guarded(handlers: Iterable[HTTPRouteHandler], middleware: Sequence[Middleware], **options: Any) -> Router:
    """The routes of the admin API. Raises `ConfigurationError` for one that doesn't say who may call it."""
    routes = list(handlers)
    open_doors = [str(handler) for handler in routes if handler.opt.get("least_role") not in _LEVELS]
    if open_doors:
        raise ConfigurationError([f"{name} declares no least role." for name in open_doors])
    return Router(_PREFIX, route_handlers=routes, guards=[admit], middleware=middleware, security=SECURITY, **options)


async def _identify(request: AnyRequest) -> AdminCaller:
    if request.headers.get("authorization") is not None:
        key = await api_key(request)
        key.require("admin")
        return AdminCaller(Actor("api-key", key.id), key.id, key.role)
    session = await ADMIN.session(request)
    if session is None:
        raise InvalidToken("Present an API key, or sign in, with your second factor where one is asked for.")
    if request.method not in _SAFE:
        _check_origin(request)
    return AdminCaller(Actor("admin", session.subject.id), session.subject.id, session.role or "", session)


def _check_origin(request: AnyRequest) -> None:
    """Raises `Forbidden` unless a page of ours sent this, with the token of the session."""
    core = services(request)
    cookie = jar_of(request).read(request, ADMIN.cookie) or ""
    token = request.headers.get(csrf.HEADER, "")
    if not csrf.same_origin(request.headers, core.settings.public_url) or not csrf.holds(
        core.ring, ADMIN.name, cookie, token
    ):
        raise Forbidden("With a session this needs X-CSRF-Token, and a page of ours that sends it.")
