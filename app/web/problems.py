"""The one place where a refusal becomes HTTP: `application/problem+json` (RFC 9457), or a page for a browser."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import jinja2
import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import (
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    ValidationException,
)

from app import errors
from app.errors import FieldError, GatehouseError, InvalidRequest
from app.settings import Settings
from app.storage import trouble
from app.web import limits
from app.web.texts import in_words

log: structlog.stdlib.BoundLogger = structlog.get_logger()

AnyRequest: TypeAlias = Request[Any, Any, Any]
PROBLEM_JSON: Final = "application/problem+json"
_ENCODER: Final = msgspec.json.Encoder()
_JSON_WORDS: Final = {"`str": "`string", "`bool": "`boolean", "`int": "`integer", "`float": "`number"}
_PYTHON_WORDS: Final = re.compile(r"`(?:str|bool|int|float)\b")
_PATCHED_OR_POSTED: Final = frozenset({"PATCH", "POST"})
_CLIENT_GONE: Final = "client disconnected prematurely"  # how Litestar's Request says it


class MethodNotAllowed(InvalidRequest):
    """There is something here, but not for this method."""

    code = "method-not-allowed"
    default_detail = "This method is not allowed here; the Allow header names those that are."


class HeadTooLarge(InvalidRequest):
    """The request line and the headers together are longer than is read here (RFC 6585, section 5)."""

    code = "head-too-large"
    default_detail = "The head of the request is too large."


class UnsupportedMediaType(InvalidRequest):
    """The body is of a type that isn't read here; `accepted` are those that are."""

    code = "unsupported-media-type"
    default_detail = "Send the body as application/json."

    def __init__(self, *accepted: str, detail: str | None = None) -> None:
        self.accepted = accepted or ("application/json",)
        super().__init__(detail=detail or f"Send the body as {' or '.join(self.accepted)}.")


STATUS: Final[Mapping[type[GatehouseError], int]] = {
    errors.InvalidRequest: 400,
    MethodNotAllowed: 405,
    UnsupportedMediaType: 415,
    HeadTooLarge: 431,
    errors.InvalidCode: 401,
    errors.TooManyAttempts: 429,
    errors.CodeExpired: 410,
    errors.InvalidCredentials: 401,
    errors.InvalidToken: 401,
    errors.Forbidden: 403,
    errors.StalePage: 403,
    errors.RateLimited: 429,
    errors.TenantNotFound: 404,
    errors.TenantSuspended: 403,
    errors.ContactMissing: 422,
    errors.ChannelUnavailable: 422,
    errors.DeliveryFailed: 502,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.KeyReused: 422,
    errors.KeyInUse: 409,
    errors.ShownOnce: 409,
    errors.EditConflict: 412,
    errors.PayloadTooLarge: 413,
    errors.Unavailable: 503,
}
# Every code that can leave the server; each has a page.
CODES: Final = frozenset({kind.code for kind in STATUS} | {GatehouseError.code})
# What a kind of refusal says by itself. A page has its own words for the kind.
_GENERAL: Final = frozenset(
    {kind.default_detail for kind in STATUS if "code" in vars(kind)} | {GatehouseError.default_detail}
)


class Fault(msgspec.Struct, frozen=True):
    """One fault in the input; `pointer` is a JSON Pointer (RFC 6901) into the body."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True):
    """Why the call was refused (RFC 9457). `code` is stable; `detail` is fit to show."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[Fault] | msgspec.UnsetType = msgspec.UNSET
    attempts_left: int | msgspec.UnsetType = msgspec.UNSET
    location: str | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that says no, ready to be encoded."""

    status: int
    code: str
    detail: str
    headers: dict[str, str]
    members: dict[str, object]
    retry_after: int | None = None

    @property
    def sentence(self) -> str:
        """The detail; for a limit with the wait, the same that `Retry-After` has."""
        if self.code != errors.RateLimited.code or self.retry_after is None:
            return self.detail
        return f"{self.detail} You can try again in {in_words(self.retry_after)}."

    def document(self, public_url: str, request_id: str) -> bytes:
        """The problem document."""
        problem = Problem(
            type=f"{public_url}/problems/{self.code}",
            title=title(self.code),
            status=self.status,
            detail=self.sentence,
            code=self.code,
            request_id=request_id,
        )
        return _ENCODER.encode({**msgspec.to_builtins(problem), **self.members})


def title(code: str) -> str:
    """A problem type's name: the same for each of its occurrences."""
    return code.replace("-", " ").capitalize() if code != GatehouseError.code else "Internal error"


def refuse(error: Exception, settings: Settings) -> Refusal:
    """How any exception looks from outside. Whatever isn't a refusal of ours is a 500 that tells nothing."""
    refusal = error if isinstance(error, GatehouseError) else _translate(error)
    status = STATUS.get(type(refusal))
    if status is None:
        return Refusal(500, GatehouseError.code, GatehouseError.default_detail, {}, {})
    headers: dict[str, str] = {}
    members = dict(refusal.extra)
    if isinstance(refusal, InvalidRequest) and refusal.errors:
        members["errors"] = refusal.errors
    elif "pointer" in members:
        members["errors"] = [FieldError(str(members["pointer"]), refusal.detail)]
    if isinstance(error, MethodNotAllowedException):
        headers["Allow"] = _allow(error)
    if isinstance(refusal, UnsupportedMediaType):
        headers["Accept"] = ", ".join(refusal.accepted)  # RFC 9110, section 15.5.16
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"  # required by RFC 9110, section 15.5.2
    retry_after: int | None = getattr(refusal, "retry_after", None)
    if retry_after is not None:
        retry_after = max(1, retry_after)
        headers["Retry-After"] = str(retry_after)
    if isinstance(refusal, errors.RateLimited):
        headers |= limits.refusal_headers(settings, refusal)
    return Refusal(status, refusal.code, refusal.detail, headers, members, retry_after)


def _translate(error: Exception) -> GatehouseError:
    """What the framework refuses by itself, in our words."""
    match error:
        case ValidationException():
            return InvalidRequest(*_faults(error.extra))
        case NotFoundException():
            return errors.NotFound()
        case MethodNotAllowedException():
            return MethodNotAllowed()
        case NotAuthorizedException():
            return errors.InvalidToken()
        case PermissionDeniedException():
            return errors.Forbidden()
        case HTTPException(status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            return errors.PayloadTooLarge()
        case InternalServerException(detail=detail) if detail == _CLIENT_GONE:
            return InvalidRequest(detail="The body ended early.")  # nobody listens, but the count shall be right
        case _ if trouble.is_outage(error) and not isinstance(error, OSError | TimeoutError):
            return errors.Unavailable()  # from a statement that went past app.storage.db
        case HTTPException(status_code=status) if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return InvalidRequest()
        case _:
            return GatehouseError()


def _faults(extra: object) -> Iterable[FieldError]:
    for fault in extra if isinstance(extra, list) else ():
        name = str(fault.get("key", ""))
        if name == "data":  # the handler's name for a body that isn't there
            yield FieldError("", "A JSON body is required.")
        else:
            yield FieldError(f"/{name}" if name else "", in_json_words(str(fault.get("message", "This is malformed"))))


def in_json_words(sentence: str) -> str:
    """What msgspec says, in the words of those who write JSON."""
    return _PYTHON_WORDS.sub(lambda match: _JSON_WORDS[match[0]], sentence) + "."


def _allow(error: MethodNotAllowedException) -> str:
    return allow(method.strip() for method in (error.headers or {}).get("allow", "").split(","))


def allow(methods: Iterable[str]) -> str:
    """The Allow header for a route's methods: whatever answers GET answers HEAD."""
    allowed = set(methods)
    return ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))


class Problems:
    """Litestar's exception handler."""

    def __init__(self, settings: Settings, pages: jinja2.Environment) -> None:
        self._settings = settings
        self._pages = pages

    def handle(self, request: AnyRequest, error: Exception) -> Response[bytes]:
        """The answer to whatever was raised while answering."""
        refusal = refuse(error, self._settings)
        if refusal.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            report(error)
        if request.method in _PATCHED_OR_POSTED and "Accept" in refusal.headers:
            # RFC 5789, section 3.1, and the W3C's Linked Data Platform, section 7.1.
            refusal.headers[f"Accept-{request.method.title()}"] = refusal.headers["Accept"]
        if isinstance(error, errors.Unavailable) and error.reason:
            request.scope["state"][limits.REFUSED] = error.reason
        request_id: str = request.scope["state"]["request_id"]
        if wants_page(request):
            page = self._pages.get_template("tenant/problem.html").render(
                code=refusal.code,
                detail=None if refusal.detail in _GENERAL else refusal.detail,
                retry_after=refusal.retry_after,
                request_id=request_id,
                csrf_token="",
            )
            return Response(
                page.encode(), status_code=refusal.status, headers=refusal.headers, media_type=MediaType.HTML
            )
        return Response(
            refusal.document(self._settings.public_url, request_id),
            status_code=refusal.status,
            headers=refusal.headers,
            media_type=PROBLEM_JSON,
        )


def report(error: Exception) -> None:
    """Writes down what must never happen. The log masks what the traceback holds."""
    log.error("Unhandled error", error_class=type(error).__name__, exc_info=error)


def wants_page(request: AnyRequest) -> bool:
    """Whether a person looks at the answer: a browser's navigation or htmx, which accepts anything, outside the API."""
    if request.scope["path"].startswith("/api/"):
        return False
    return "text/html" in request.headers.get("accept", "") or request.headers.get("hx-request") == "true"
