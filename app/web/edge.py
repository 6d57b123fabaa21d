"""The outermost layer: what holds for every answer, whatever happened inside.

Plain ASGI around the whole of Litestar, because its middleware doesn't run for unknown paths and its own failures.
"""

import os
import re
import time
from http import HTTPStatus
from typing import Final, TypeAlias

import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, HTTPResponseStartEvent, HTTPScope, Message, Receive, Scope, Send

from app.auth.door import DoorLog
from app.errors import InvalidRequest
from app.settings import Settings
from app.web.addresses import Hosts, Proxies, parse_address
from app.web.etags import is_known
from app.web.forwarded import Forwarded
from app.web.limits import note, policy_header, room_of
from app.web.metrics import Metrics
from app.web.problems import PROBLEM_JSON, Refusal, allow, refuse, report

log: structlog.stdlib.BoundLogger = structlog.get_logger()

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

_SECURITY: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": (
        "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), "
        "microphone=(), midi=(), payment=(), usb=()"
    ),
    # Files and keys say otherwise; forgetting it must be the safe side.
    "cache-control": "no-store",
}
_PRODUCTION_ONLY: Final = {"strict-transport-security": "max-age=63072000; includeSubDomains"}

# No digits, so that nobody who scans a log for codes stumbles over an id, and no vowels, so that it spells nothing.
_LETTERS: Final = b"bcdfghjklmnpqrst" * 16
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_ALLOW: Final = b"allow"
_OF_CONTENT: Final = frozenset({b"content-type", b"content-length", b"content-encoding", b"content-disposition"})
_PROBED: Final = "/health"
# Asked every few seconds by machines.
_QUIET: Final = frozenset({"/health", "/health/live", "/health/ready", "/metrics", "/static/{name:path}"})


def _is_known(scope: HTTPScope, start: HTTPResponseStartEvent) -> bool:
    """Whether the client has this answer already, as its If-None-Match says."""
    if start["status"] != HTTPStatus.OK:
        return False
    tag = next((value.decode("latin-1") for name, value in start["headers"] if name == b"etag"), None)
    asked = ", ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"if-none-match")
    return tag is not None and is_known(tag, asked)


def _allowed(scope: HTTPScope) -> RawHeaders:
    """The methods of the route that was found; Litestar itself tells those of the handler that was registered first."""
    found = [
        method
        for route in scope["litestar_app"].routes
        if isinstance(route, HTTPRoute) and route.path_format == scope.get("path_template")
        for method in route.methods
    ]
    return [(_ALLOW, allow(found).encode())] if found else []


def new_request_id() -> str:
    """80 random bits as 20 letters."""
    return os.urandom(20).translate(_LETTERS).decode()


class Edge:
    """Gives every request an id and the client's true address, every answer its headers, a log line and a count."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, forwarded: Forwarded, door: DoorLog) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._forwarded = forwarded
        self._door = door
        self._proxies = Proxies(settings.trusted_proxies)
        self._hosts = Hosts(settings.allowed_hosts)
        security = _SECURITY | (_PRODUCTION_ONLY if settings.production else {})
        self._headers = [(name.encode(), value.encode()) for name, value in security.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; everything else is passed through."""
        if scope["type"] == ScopeType.HTTP:
            await self._answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        method = scope["method"]
        # A copy: the server decides by its own scope how an answer to HEAD is sent.
        inner: HTTPScope = {**scope, "method": HttpMethod.GET} if method == "HEAD" else scope
        request_id = self._identify(inner)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        id_header = (b"x-request-id", request_id.encode())
        status = 0
        silent = method == "HEAD"

        async def answer(message: Message) -> None:
            nonlocal status, silent
            if message["type"] == "http.response.start":
                if inner["method"] == HttpMethod.GET and _is_known(inner, message):
                    silent, message["status"] = True, HTTPStatus.NOT_MODIFIED
                    message["headers"] = [header for header in message["headers"] if header[0] not in _OF_CONTENT]
                status = int(message["status"])
                headers = [*message["headers"], id_header]
                if method == "OPTIONS":
                    headers = [*_allowed(inner), *(header for header in headers if header[0] != _ALLOW)]
                room = room_of(inner)
                present = {name for name, _ in headers}
                if room is not None and b"ratelimit-policy" not in {name.lower() for name in present}:
                    policy = policy_header(self._settings, room.name)
                    headers += [(name.lower().encode(), value.encode()) for name, value in policy.items()]
                note(inner, self._settings, self._door, status, headers)
                headers += [header for header in self._headers if header[0] not in present]
                message["headers"] = headers
            elif silent and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        try:
            if inner["path"].startswith(_PROBED) or self._hosts.answers(inner["headers"]):
                await self._app(inner, receive, answer)
            else:
                await self._send(InvalidRequest(detail="This Host is not answered here."), request_id, answer)
        except Exception as error:  # the last place where an answer can still be given
            if status:
                report(error)
                raise
            await self._send(error, request_id, answer)
        finally:
            self._record(inner, method, status, time.perf_counter() - began)

    def _identify(self, scope: HTTPScope) -> str:
        """Puts the client's true address and the request's id into the scope; answers with the id."""
        peer = parse_address(scope["client"][0]) if scope["client"] else None
        incoming = None
        address = peer
        if self._proxies.trusted(peer):
            address = self._proxies.client(peer, scope["headers"])
            incoming = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        else:
            self._forwarded.notice(peer, scope["headers"])
        scope["client"] = (address, scope["client"][1]) if address and scope["client"] else None
        sane = incoming is not None and _REQUEST_ID.fullmatch(incoming)
        request_id = sane[0].decode() if sane else new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        return request_id

    async def _send(self, error: Exception, request_id: str, answer: Send) -> None:
        refusal = refuse(error, self._settings)
        if refusal.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            report(error)
        headers, body = self._encode(refusal, request_id)
        await answer({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await answer({"type": "http.response.body", "body": body, "more_body": False})

    def refuse_unparsed(self, error: Exception) -> tuple[int, RawHeaders, bytes]:
        """Status, all headers and the body for what was not even an HTTP request."""
        request_id = new_request_id()
        refusal = refuse(error, self._settings)
        headers, body = self._encode(refusal, request_id)
        return refusal.status, [*headers, (b"x-request-id", request_id.encode()), *self._headers], body

    def _encode(self, refusal: Refusal, request_id: str) -> tuple[RawHeaders, bytes]:
        body = refusal.document(self._settings.public_url, request_id)
        headers = {"content-type": PROBLEM_JSON, "content-length": str(len(body)), **refusal.headers}
        return [(name.lower().encode(), value.encode()) for name, value in headers.items()], body

    def _record(self, scope: HTTPScope, method: str, status: int, seconds: float) -> None:
        # Only the template: a path holds slugs and ids.
        route = scope.get("path_template") or "none"
        self._metrics.observe(method, route, status, seconds)
        if route not in _QUIET:
            log.info("Request", method=method, route=route, status=status, duration_ms=round(seconds * 1000, 1))
