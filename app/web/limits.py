"""Limits by address: which route is in which room, and what a caller learns about limits.

RateLimit-Policy and RateLimit: draft-ietf-httpapi-ratelimit-headers-10. `tests/attacks/test_rooms.py` walks the routes:
one that anybody may call has a rule here, a room or the reason why it needs none.
"""

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, TypeAlias, cast

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import HTTPScope as Scope

from app.auth.devices import read_device_token
from app.auth.door import DoorLog
from app.auth.factors.second_steps import GUESSES_A_DAY
from app.auth.limits import ADDRESS
from app.auth.rooms import CALLBACKS, CHECKS, LOGOS, PAGES, REFRESH, ROOMS, STATUS, WINDOW_SECONDS, Room
from app.auth.sessions import REFRESH_BURST, REFRESHES
from app.errors import RateLimited
from app.settings import Settings
from app.web.caller import api_key, forwarded_end_user, presents_api_key
from app.web.cookies import DEVICE, Jar, per_tenant
from app.web.services import AnyRequest, services

_HOUR: Final = 3600
_DAY: Final = 24 * _HOUR

Rule: TypeAlias = Room | str

# Asks for a code: the address spends of OTP_IP_HOURLY_LIMIT, in the core.
ASKING: Final = "spends of OTP_IP_HOURLY_LIMIT"
SESSION: Final = "needs a session; a token or cookie of nobody's is refused by its form or signature, or by its key"
_MACHINES: Final = "asked by machines, costs less than counting"

# By method and beginning of the path as Litestar names it; the first that fits counts.
RULES: Final[tuple[tuple[str, str, Rule], ...]] = (
    ("POST", "/api/v1/tenants/{slug}/otp/verify", CHECKS),
    ("POST", "/api/v1/tenants/{slug}/otp/status", STATUS),
    ("POST", "/api/v1/tenants/{slug}", ASKING),
    ("POST", "/api/v1/auth/refresh", REFRESH),
    ("POST", "/api/v1/auth/mfa", CHECKS),
    # Also with the token of half a sign-in.
    ("POST", "/api/v1/auth/totp", CHECKS),
    ("POST", "/api/v1/auth/introspect", "needs an API key, which has a limit of its own; so has an address without"),
    ("", "/api/v1/auth", SESSION),
    ("", "/api/v1/admin", "needs a session or an API key; an address without a good one has a limit"),
    ("GET", "/t/{slug}/logo", LOGOS),
    ("GET", "/t/{slug}/verify/status", STATUS),
    ("POST", "/t/{slug}/verify", CHECKS),
    ("POST", "/t/{slug}/link", CHECKS),
    ("POST", "/t/{slug}/second-factor", CHECKS),
    ("POST", "/t/{slug}/login", ASKING),
    ("POST", "/t/{slug}/resend", ASKING),
    ("POST", "/t/{slug}/register", ASKING),
    ("POST", "/t/{slug}/logout", CHECKS),
    ("GET", "/t/{slug}/login", PAGES),
    ("GET", "/t/{slug}/verify", PAGES),
    ("GET", "/t/{slug}/link", PAGES),
    ("GET", "/t/{slug}/second-factor", PAGES),
    ("GET", "/t/{slug}/register", PAGES),
    ("", "/t/{slug}", SESSION),
    ("POST", "/login", ASKING),
    ("POST", "/not-me", CHECKS),
    ("POST", "/admin/sign-in/code", CHECKS),
    ("POST", "/admin/sign-in/second-factor", CHECKS),
    ("POST", "/admin/sign-in", ASKING),
    ("POST", "/admin/link", CHECKS),
    ("POST", "/admin/sign-out", CHECKS),
    ("GET", "/admin/sign-in", PAGES),
    ("GET", "/admin/link", PAGES),
    ("", "/admin", SESSION),
    ("", "/callbacks", CALLBACKS),
    ("GET", "/.well-known/jwks.json", _MACHINES),
    ("GET", "/health", _MACHINES),
    ("GET", "/metrics", "for whoever has METRICS_TOKEN, or is on this machine"),
    ("GET", "/static", "files from memory, which browsers keep"),
    ("GET", "/docs/openapi.json", "a file from memory"),
    ("GET", "/login", PAGES),
    ("GET", "/not-me", PAGES),
    ("GET", "/problems", PAGES),
    ("GET", "/docs", PAGES),
)
_FRONT: Final = "/"
_LOGIN: Final = "/login"
_ROOM_STATE: Final = "room"
# Where the state of a request says why it was refused, if not by a limit.
REFUSED: Final = "refused"


@lru_cache(1024)
def rule_for(method: str, template: str) -> Rule | None:
    """What holds for a route; None where nobody has said."""
    if template == _FRONT:
        return PAGES
    for of, beginning, rule in RULES:
        if of in {"", method} and (template == beginning or template.startswith(beginning + "/")):
            return rule
    return None


async def admit(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The guard of every route: the caller's address, or what stands for it, spends one call of the route's room.

    A good API key pays by itself, and for the end user whose address it tells. Raises `RateLimited`, and `InvalidToken`
    for a key that isn't one. Nothing was looked up of whatever the call is about.
    """
    request = cast("AnyRequest", connection)
    rule = rule_for(request.method, request.scope["path_template"])
    keyed = presents_api_key(request) and (rule == ASKING or (isinstance(rule, Room) and rule is not CALLBACKS))
    if keyed:
        await api_key(request)
    if not isinstance(rule, Room):
        return
    core = services(request)
    request.scope["state"][_ROOM_STATE] = rule
    peer = request.scope["client"]
    address = forwarded_end_user(request) if keyed else peer[0] if peer else None
    if address is not None:
        await core.rooms.enter(rule, core.clock(), address, device_of(request))


def device_of(request: AnyRequest) -> Any:
    """The device that this tenant knows the caller by, as far as its token tells; None for a stranger."""
    slug = request.path_params.get("slug")
    if slug is None:
        return None
    core = services(request)
    token = request.headers.get("x-device-token") or Jar(core.settings).read(request, per_tenant(DEVICE, slug))
    device = read_device_token(core.ring, slug, token, core.clock())
    return device.device_id if device else None


def room_of(scope: Scope) -> Room | None:
    """The room that a call was let into, or not."""
    return cast("Room | None", scope["state"].get(_ROOM_STATE))


def note(scope: Scope, settings: Settings, door: DoorLog, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Counts what was refused before anybody was known, from the answer alone: so it is the same for every face. And
    each name at which a code was asked for, whoever has it.
    """
    address = scope["client"][0] if scope["client"] else None
    slug = scope.get("path_params", {}).get("slug")
    template = scope.get("path_template", "")
    asking = rule_for(scope["method"], template) == ASKING
    if slug is None and template == _LOGIN and asking:
        slug = settings.default_tenant
    reason = scope["state"].get(REFUSED) or _limit_of(status, headers)
    if reason:
        door.refused(reason, address, slug)
    elif asking and slug is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        door.named(address, slug)


def _limit_of(status: int, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The limit at the door that was hit, by the name of its policy; None for those of a person's own."""
    if status != HTTPStatus.TOO_MANY_REQUESTS:
        return None
    hit = next((value for name, value in headers if name.lower() == b"ratelimit"), b"")
    policy = hit.partition(b";")[0].strip(b'"').decode("ascii")
    return policy if policy in ROOMS or policy == ADDRESS else None


def policy_header(settings: Settings, policy: str = "hourly") -> dict[str, str]:
    """The limit in force for everybody: so many (q) in so many seconds (w). A tenant's own may be stricter."""
    if policy in ROOMS:
        quota, window = ROOMS[policy].limit(settings.otp_ip_hourly_limit), WINDOW_SECONDS
    else:
        quota, window = {
            "hourly": (settings.otp_hourly_limit, _HOUR),
            ADDRESS: (settings.otp_ip_hourly_limit, _HOUR),
            "cooldown": (1, settings.otp_resend_cooldown_seconds),
            "factor": (GUESSES_A_DAY, _DAY),
            "session-refresh": (REFRESHES, int(REFRESH_BURST.total_seconds())),
        }.get(policy, (settings.otp_hourly_limit, _HOUR))
    return {"RateLimit-Policy": f'"{policy}";q={quota};w={window}'}


def refusal_headers(settings: Settings, refusal: RateLimited) -> dict[str, str]:
    """The limit that was hit: nothing remains (r), and it opens in so many seconds (t)."""
    hit = f'"{refusal.policy}";r=0;t={refusal.retry_after}'
    return policy_header(settings, refusal.policy) | {"RateLimit": hit}
