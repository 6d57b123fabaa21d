"""What is sent twice is done once: forms of both portals, and an API client's POSTs with an `Idempotency-Key`.

A form that is pressed twice, or sent again because its answer was lost, is told by the number of its page (in the CSRF
token), the cookie that the page was given to, and all that was sent. The first one is done; whoever comes while it is
under way waits; everybody gets its answer, cookies included. See `app.auth.repeats` for what is kept of it.

Whoever has planted a cookie in a browser, or knows a challenge's id, or has another browser, gets nothing of this: the
number of the page is 128 random bits that only the page has.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.auth.repeats import Once, Repeats, Turn
from app.errors import FieldError, InvalidRequest, KeyInUse, KeyReused, Unavailable
from app.web.reading import StrictRequest
from app.web.services import AnyRequest, services

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_REPLAYED: Final = (b"idempotency-replayed", b"true")
# What belongs to one answer alone, not to its repetition.
_OWN: Final = frozenset({b"x-request-id", b"date"})
_POLL_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 20
_KEY: Final = "idempotency-key"
_SHORTEST_KEY: Final = 16
_LONGEST_KEY: Final = 255
# Refusals that have counted something: a wrong code, a try over a limit.
_COUNTED_ON_PAGES: Final = frozenset({401, 429})
# An API client comes back after `Retry-After` with the same key.
_COUNTED_IN_API: Final = frozenset({401})
# Also for a session that has ended meanwhile, whose page shows nothing any more.
_REDIRECTS: Final = frozenset({204, 303})


class _Answer(msgspec.Struct, array_like=True):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Proven:
    """A form of ours: its token, the cookie that its page was given to, and whether forms of that cookie are taken."""

    token: str
    cookie: str
    alive: bool


class FormsOnce(ASGIMiddleware):
    """Around the handlers of a portal. `prove` tells whose form a request is; one that is nobody's is the handler's
    to refuse.
    """

    scopes = (ScopeType.HTTP,)

    def __init__(self, face: str, prove: Callable[[AnyRequest], Awaitable[Proven | None]]) -> None:
        self._face = face
        self._prove = prove

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Raises `KeyInUse` where the first one takes too long, and `Unavailable`."""
        request: StrictRequest = StrictRequest(scope, receive, send)
        form = await self._prove(request) if request.method == "POST" else None
        if form is None:
            await next_app(scope, receive, send)
            return
        once = Once(
            (
                b"form",
                self._face.encode(),
                form.cookie.encode(),
                form.token.encode(),
                scope["path"].encode(),
                scope["query_string"],
                request.headers.get("hx-request", "").encode(),
                await _what(request),
            )
        )
        answer, again = await _once(request, once, next_app, _COUNTED_ON_PAGES)
        if again and not form.alive and answer.status not in _REDIRECTS:
            await next_app(scope, receive, send)
        else:
            await _send(answer, send)


class CallsOnce(ASGIMiddleware):
    """Around the API's handlers for clients who sign in or are signed in. Without the header nothing is different."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Raises `InvalidRequest` for what is no key, `KeyReused` for one of another call, and `Unavailable`."""
        request: StrictRequest = StrictRequest(scope, receive, send)
        key = request.headers.get(_KEY)
        if request.method not in {"POST", "PUT", "DELETE"} or key is None:
            await next_app(scope, receive, send)
            return
        if not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise InvalidRequest(
                FieldError(
                    "",
                    f"An Idempotency-Key has {_SHORTEST_KEY} to {_LONGEST_KEY} printable ASCII characters that nobody "
                    "guesses, such as a random UUID.",
                )
            )
        once = Once(
            (
                b"call",
                request.method.encode(),
                scope["path"].encode(),
                key.encode(),
                request.headers.get("authorization", "").encode(),
            ),
            (scope["query_string"], request.headers.get("x-device-token", "").encode(), await _what(request)),
        )
        answer, _ = await _once(request, once, next_app, _COUNTED_IN_API)
        await _send(answer, send)


async def _once(request: StrictRequest, once: Once, app: ASGIApp, counted: frozenset[int]) -> tuple[_Answer, bool]:
    """The answer, and whether it is that of an earlier call."""
    core = services(request)
    repeats = Repeats(core.db, core.ring, core.clock)
    for _ in range(round(_LONGEST_WAIT_SECONDS / _POLL_SECONDS)):
        begun = await repeats.begin(once)
        if isinstance(begun, Turn):
            return await _answer_of(repeats, begun, request, app, counted), False
        if isinstance(begun, bytes):
            answer = msgspec.msgpack.decode(begun, type=_Answer)
            answer.headers.append(_REPLAYED)
            return answer, True
        if begun == "mismatch":
            raise KeyReused
        await core.sleep(_POLL_SECONDS)
    raise KeyInUse("What you sent is still under way. Look in a moment whether it is done.")


async def _answer_of(
    repeats: Repeats, turn: Turn, request: StrictRequest, app: ASGIApp, counted: frozenset[int]
) -> _Answer:
    """Does it, and keeps the answer before anybody sees it."""
    answer = _Answer(0, [], b"")

    async def collect(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = int(message["status"])
            answer.headers = [(name, value) for name, value in message["headers"] if name.lower() not in _OWN]
        elif message["type"] == "http.response.body":
            answer.body += message["body"]

    try:
        await app(request.scope, request.receive, collect)
    finally:
        try:
            if 200 <= answer.status < 400 or answer.status in counted:  # noqa: PLR2004 - RFC 9110: it was done
                await repeats.done(turn, msgspec.msgpack.encode(answer))
            else:
                await repeats.undone(turn)
        except Unavailable:
            # The sender gets the answer all the same; only a repetition would not.
            log.warning("Answer not kept for a repetition")
    return answer


async def _what(request: StrictRequest) -> bytes:
    """All that was sent, as a hash. Browsers draw a new boundary each time they send the same file."""
    body, (kind, options) = await request.body(), request.content_type
    boundary = options.get("boundary", "").encode()
    digest = hashlib.sha256(kind.encode() + b"\0" + (body.replace(boundary, b"") if boundary else body))
    return digest.digest()


async def _send(answer: _Answer, send: Send) -> None:
    headers: Any = answer.headers
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
