"""Who calls: from where, in which language, and how much they may be told."""

import re
from dataclasses import dataclass, replace
from typing import Final, cast

from app.audit.log import Client
from app.auth.api_keys import ApiKey, Scope
from app.auth.rooms import BAD_KEYS
from app.auth.sessions import LiveSession
from app.errors import FieldError, InvalidRequest, InvalidToken
from app.web.addresses import parse_address
from app.web.services import AnyRequest, services
from app.web.texts import choose_language

_USER_AGENT_LENGTH: Final = 200
_API_KEY: Final = "ghk_"
_KEY_STATE: Final = "api-key"
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
    keyed = presents_api_key(request)
    client = client_of(request)
    if keyed:
        await require_api_key(request, "sign-in")
        address = forwarded_end_user(request)
        client = client_of(request, address) if address else replace(client, for_many=True)
    disclosed = keyed or core.settings.otp_disclose_errors
    return Caller(
        client,
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
    (await api_key(request)).require(scope)


def presents_api_key(request: AnyRequest) -> bool:
    """Whether the call has an API key, or something in the shape of one."""
    return (bearer_token(request) or "").startswith(_API_KEY)


async def api_key(request: AnyRequest) -> ApiKey:
    """The API key in force that the caller presents: looked up once a request. Raises `InvalidToken`.

    Raises `RateLimited` where the key, or an address with keys that are none, has called too often.
    """
    state = request.scope["state"]
    if _KEY_STATE not in state:
        core, token, now = services(request), bearer_token(request), services(request).clock()
        key = await core.api_keys.authenticate(token) if token is not None else None
        if key is None:
            peer = request.scope["client"]
            if peer and token is not None:
                await core.rooms.enter(BAD_KEYS, now, peer[0])
            raise InvalidToken("The API key is not valid.")
        await core.rooms.enter_with_key(now, key.id)
        state[_KEY_STATE] = key
    return cast("ApiKey", state[_KEY_STATE])


async def require_session(request: AnyRequest, *, unproven: bool = False) -> LiveSession:
    """The session behind the access token. At most one round trip.

    Raises `InvalidToken`; also where a second factor is due, unless the route is a way to it or out (`unproven`).
    """
    token = bearer_token(request)
    if token is None:
        raise InvalidToken
    return await services(request).sessions.authenticate(token, unproven=unproven)


def forwarded_end_user(request: AnyRequest) -> str | None:
    """The end user's address, as a server-side front end tells it. Raises `InvalidRequest` for what is no address."""
    told = request.headers.get("x-client-ip")
    if told is None:
        return None
    address = parse_address(told)
    if address is None:
        raise InvalidRequest(FieldError("", "X-Client-IP is not an IP address."))
    return address
