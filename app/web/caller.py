"""Who calls: from where, in which language, and how much they may be told."""

import re
from dataclasses import dataclass
from typing import Final

from app.audit.log import Client
from app.auth.api_keys import Scope
from app.auth.sessions import LiveSession
from app.errors import FieldError, InvalidRequest, InvalidToken
from app.web.addresses import parse_address
from app.web.services import AnyRequest, services
from app.web.texts import choose_language

_USER_AGENT_LENGTH: Final = 200
_API_KEY: Final = "ghk_"
# RFC 7240: preferences are separated by commas, each may have parameters.
_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=[,;]|$)", re.IGNORECASE)
LONGEST_WAIT: Final = 10


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody without a session. `wait` is how many seconds they want to wait for the delivery's outcome."""

    client: Client
    # None: the caller named none that we speak, and the tenant's own is for messages.
    language: str | None
    disclosed: bool
    wait: int = 0


def client_of(request: AnyRequest, address: str | None = None) -> Client:
    """Where the call comes from, as the audit log keeps it."""
    peer = request.scope["client"]
    agent = request.headers.get("user-agent")
    if agent is not None:
        agent = agent[:_USER_AGENT_LENGTH]
        if not agent.isprintable():
            agent = "".join(c if c.isprintable() else "?" for c in agent)
    return Client("api", address or (peer[0] if peer else None), agent, request.scope["state"]["request_id"])


def bearer_token(request: AnyRequest) -> str | None:
    """What stands behind `Authorization: Bearer`, or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def identify(request: AnyRequest) -> Caller:
    """The caller of an anonymous route; an API key makes it a disclosed one.

    Raises `InvalidToken` for an API key that isn't one, so that its owner learns of it. Other tokens don't matter here:
    a front end may well send its old access token along.
    """
    core = services(request)
    token = bearer_token(request)
    keyed = token is not None and token.startswith(_API_KEY)
    address = None
    if keyed:
        await require_api_key(request, "sign-in")
        address = _forwarded_end_user(request)
    disclosed = keyed or core.settings.otp_disclose_errors
    return Caller(
        client_of(request, address),
        choose_language(request.headers.get("accept-language")),
        disclosed,
        preferred_wait(request) if disclosed else 0,
    )


def preferred_wait(request: AnyRequest) -> int:
    """How many seconds the caller wants to wait for an outcome (RFC 7240, section 4.3), 10 at most."""
    wait = _WAIT.search(request.headers.get("prefer", ""))
    return min(int(wait[1]), LONGEST_WAIT) if wait else 0


async def require_api_key(request: AnyRequest, scope: Scope) -> None:
    """Raises `InvalidToken` unless the caller presents an API key in force, `Forbidden` for one of another scope."""
    token = bearer_token(request)
    key = await services(request).api_keys.authenticate(token) if token is not None else None
    if key is None:
        raise InvalidToken("The API key is not valid.")
    key.require(scope)


async def require_session(request: AnyRequest, *, unproven: bool = False) -> LiveSession:
    """The session behind the access token. At most one round trip.

    Raises `InvalidToken`; also where a second factor is due, unless the route is a way to it or out (`unproven`).
    """
    token = bearer_token(request)
    if token is None:
        raise InvalidToken
    return await services(request).sessions.authenticate(token, unproven=unproven)


def _forwarded_end_user(request: AnyRequest) -> str | None:
    """The end user's address, as a server-side front end tells it."""
    told = request.headers.get("x-client-ip")
    if told is None:
        return None
    address = parse_address(told)
    if address is None:
        raise InvalidRequest(FieldError("", "X-Client-IP is not an IP address."))
    return address
