"""POSTs with an `Idempotency-Key` are done once; whoever asks again gets the answer of the first time.

A repetition passes every guard of its route as it stands now: role, scope, session, and how young the sign-in is. An
answer that shows a secret is not kept, so a repetition can't show it: 409 `secret-shown-once`.
"""

from typing import Any, Final, cast

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from admin_portal.api.documents import OnceShown
from admin_portal.api.guards import caller
from admin_portal.desk import desk
from app.auth.idempotency import Attempt, Idempotency
from app.errors import FieldError, InvalidRequest, ShownOnce, Unavailable
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

    @property
    def location(self) -> str | None:
        """The address of what was made."""
        return next((value.decode() for name, value in self.headers if name.lower() == b"location"), None)


class DoneOnce(ASGIMiddleware):
    """Around the guard and the handler: it sees every answer, refusals too, and keeps those that say it was done."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes on whatever isn't a POST with a key. Raises what the guards and `Idempotency.begin` raise."""
        request: StrictRequest = StrictRequest(scope, receive, send)
        keys = request.headers.getall(_HEADER, [])
        if request.method != "POST" or not keys:
            await next_app(scope, receive, send)
            return
        if len(keys) > 1:
            raise InvalidRequest(FieldError("", "There is more than one Idempotency-Key."))
        handler = cast("HTTPRouteHandler", scope["route_handler"])
        # Whoever may not do it now is not told how it went then.
        await handler.authorize_connection(connection=request)
        idempotency = desk(request).idempotency
        attempt = await idempotency.begin(
            caller(request).id,
            keys[0],
            request.method.encode(),
            scope["path"].encode(),
            scope["query_string"],
            request.headers.get("content-type", "").encode(),
            await request.body(),
        )
        shows_secret = handler.operation_class is OnceShown
        if attempt.answer is not None:
            answer = msgspec.msgpack.decode(attempt.answer, type=_Answer)
            if shows_secret:
                raise ShownOnce(answer.location)
            await _send(answer, send, extra=[_REPLAYED])
            return
        answer = await _answer_of(idempotency, attempt, next_app, scope, receive, shows_secret=shows_secret)
        await _send(answer, send)


async def _answer_of(
    idempotency: Idempotency, attempt: Attempt, app: ASGIApp, scope: Scope, receive: Receive, *, shows_secret: bool
) -> _Answer:
    """Does it, and keeps the answer before anybody sees it; of one that shows a secret, only where what was made is."""
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
                kept = msgspec.structs.replace(answer, body=b"") if shows_secret else answer
                await idempotency.done(attempt, msgspec.msgpack.encode(kept))
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
