"""POSTs with an `Idempotency-Key` are done once; whoever asks again gets the answer of the first time."""

from typing import Any, Final

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from admin_portal.api.guards import admit, caller
from admin_portal.desk import desk
from app.auth.idempotency import Attempt, Idempotency
from app.errors import Unavailable
from app.web.reading import StrictRequest

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_HEADER: Final = "idempotency-key"
_REPLAYED: Final = (b"idempotency-replayed", b"true")
# What belongs to one answer alone, not to its repetition.
_OWN: Final = frozenset({b"x-request-id", b"date"})


class _Answer(msgspec.Struct, array_like=True):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class DoneOnce(ASGIMiddleware):
    """Around the guard and the handler: it sees every answer, refusals too, and keeps those that say it was done."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes on whatever isn't a POST with a key. Raises what `admit` and `Idempotency.begin` raise."""
        request: StrictRequest = StrictRequest(scope, receive, send)
        key = request.headers.get(_HEADER)
        if request.method != "POST" or key is None:
            await next_app(scope, receive, send)
            return
        # Who calls is part of the key, so that comes first.
        await admit(request, scope["route_handler"])
        idempotency = desk(request).idempotency
        attempt = await idempotency.begin(
            caller(request).id,
            key,
            request.method.encode(),
            scope["path"].encode(),
            scope["query_string"],
            request.headers.get("content-type", "").encode(),
            await request.body(),
        )
        if attempt.answer is not None:
            await _send(msgspec.msgpack.decode(attempt.answer, type=_Answer), send, extra=[_REPLAYED])
            return
        answer = await _answer_of(idempotency, attempt, next_app, scope, receive)
        await _send(answer, send)


async def _answer_of(
    idempotency: Idempotency, attempt: Attempt, app: ASGIApp, scope: Scope, receive: Receive
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
        await app(scope, receive, collect)
    finally:
        try:
            if 200 <= answer.status < 300:  # noqa: PLR2004 - RFC 9110, section 15.3: it was done
                await idempotency.done(attempt, msgspec.msgpack.encode(answer))
            else:
                await idempotency.undone(attempt)
        except Unavailable:
            # The caller gets the answer all the same; only a repetition would find the key taken for a while.
            log.warning("Idempotent answer not kept")
    return answer


async def _send(answer: _Answer, send: Send, *, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    headers: Any = [*answer.headers, *(extra or [])]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
