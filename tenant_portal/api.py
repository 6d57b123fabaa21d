"""Signing in: ask for a code, send it back, get tokens. Handlers decode, make one call to the core, and encode."""

from typing import Annotated, Final, TypeAlias

from litestar import Response, Router, post
from litestar.openapi.spec import Tag
from litestar.params import JSONBody, PathParameter

from app.auth.challenges import Issued, Realm, Status
from app.auth.sessions import HalfSignIn
from app.errors import (
    ChannelUnavailable,
    CodeExpired,
    ContactMissing,
    DeliveryFailed,
    FieldError,
    InvalidCode,
    InvalidRequest,
    InvalidToken,
    RateLimited,
    TenantNotFound,
    TenantSuspended,
    TooManyAttempts,
    Unavailable,
)
from app.web import limits
from app.web.caller import Caller, identify
from app.web.docs import refusals
from app.web.services import AnyRequest, services
from app.web.texts import DEFAULT_LANGUAGE, UNDETERMINED, code_sent
from tenant_portal import account_api, factors_api
from tenant_portal.payloads import (
    ChallengeStatus,
    CodeRequest,
    CodeSent,
    HalfDone,
    ResendRequest,
    StatusRequest,
    Tokens,
    VerifyRequest,
    check_device_name,
)

TAGS: Final = (
    Tag(name="Sign-in", description="Anonymous. Strangers learn nothing about who exists."),
    Tag(name="Signed in", description="With an access token."),
    Tag(name="For services", description="With an API key, or public."),
)
Slug: TypeAlias = Annotated[str, PathParameter(description="The tenant's slug.")]

_OK: Final = 200
_ACCEPTED: Final = 202
_POLL_SECONDS: Final = 0.1


@post(
    "/{slug:str}/otp/request",
    status_code=202,
    summary="Ask for a code",
    responses=refusals(
        InvalidRequest,
        InvalidToken,
        TenantSuspended,
        TenantNotFound,
        ContactMissing,
        ChannelUnavailable,
        RateLimited,
        DeliveryFailed,
        Unavailable,
    ),
)
async def request_code(request: AnyRequest, slug: Slug, data: JSONBody[CodeRequest]) -> Response[CodeSent]:
    """Sends a code to the tenant's contact, or to whoever `identifier` names.

    With `X-Device-Token`, the `device_token` of an earlier sign-in, the device has an hourly quota of its own.
    A disclosed caller (an API key, or OTP_DISCLOSE_ERRORS) also learns why no code was sent, and may wait for the
    outcome with `Prefer: wait=10`: 200 with `state`, or 502.
    """
    caller = await identify(request)
    if data.password is not None:
        raise InvalidRequest(FieldError("/password", "This organisation doesn't use passwords."))
    realm = Realm.of(slug)
    issued = await services(request).challenges.request(
        realm,
        caller.client,
        identifier=data.identifier,
        channel=data.channel,
        locale=caller.language or UNDETERMINED,
        disclose=caller.disclosed,
        device_token=request.headers.get("x-device-token"),
    )
    return await _answer(request, realm, issued, caller)


@post(
    "/{slug:str}/otp/resend",
    status_code=202,
    summary="Send a new code",
    responses=refusals(
        InvalidRequest,
        InvalidToken,
        TenantSuspended,
        TenantNotFound,
        CodeExpired,
        ContactMissing,
        ChannelUnavailable,
        RateLimited,
        TooManyAttempts,
        DeliveryFailed,
        Unavailable,
    ),
)
async def resend_code(request: AnyRequest, slug: Slug, data: JSONBody[ResendRequest]) -> Response[CodeSent]:
    """Same challenge, new code; the old one is void. Attempts are kept; the hourly quota is spent."""
    caller = await identify(request)
    realm = Realm.of(slug)
    issued = await services(request).challenges.resend(
        realm, data.challenge_id, caller.client, channel=data.channel, disclose=caller.disclosed
    )
    return await _answer(request, realm, issued, caller)


@post(
    "/{slug:str}/otp/verify",
    status_code=200,
    summary="Sign in with the code",
    responses=refusals(InvalidRequest, InvalidCode, InvalidToken, CodeExpired, TooManyAttempts, Unavailable),
)
async def verify_code(request: AnyRequest, slug: Slug, data: JSONBody[VerifyRequest]) -> Tokens | HalfDone:
    """Each wrong code counts. A code of the wrong form is refused with 400 and doesn't.

    Where a second factor is to follow, the answer has `next` and an `mfa_token` instead of tokens.
    """
    caller = await identify(request)
    outcome = await services(request).challenges.verify(
        Realm.of(slug), data.challenge_id, data.code, caller.client, device_name=check_device_name(data.device_name)
    )
    return HalfDone.of(outcome) if isinstance(outcome, HalfSignIn) else Tokens.of(outcome)


@post(
    "/{slug:str}/otp/status",
    status_code=200,
    summary="Where a challenge stands",
    responses=refusals(InvalidRequest, InvalidToken, CodeExpired, Unavailable),
)
async def challenge_status(request: AnyRequest, slug: Slug, data: JSONBody[StatusRequest]) -> ChallengeStatus:
    """For strangers a function of the challenge's own life; disclosed callers learn what became of the delivery."""
    caller = await identify(request)
    status = await services(request).challenges.status(
        Realm.of(slug),
        data.challenge_id,
        disclose=caller.disclosed,
        device_token=request.headers.get("x-device-token"),
    )
    return ChallengeStatus(status.state, status.channel, status.expires_in, status.attempts_left)


ROUTES: Final = (
    Router(
        "/api/v1/tenants",
        route_handlers=[request_code, resend_code, verify_code, challenge_status],
        tags=["Sign-in"],
    ),
    *account_api.ROUTES,
    *factors_api.ROUTES,
)


async def _answer(request: AnyRequest, realm: Realm, issued: Issued, caller: Caller) -> Response[CodeSent]:
    language = caller.language or DEFAULT_LANGUAGE
    headers = limits.policy_header(services(request).settings) | {"Content-Language": language}
    sent = CodeSent(issued.challenge_id, code_sent(language), issued.code_length, issued.expires_in, issued.resend_in)
    if not caller.wait:
        return Response(sent, status_code=_ACCEPTED, headers=headers)
    status = await _outcome(request, realm, issued, caller.wait)
    if status.state == "failed":
        raise DeliveryFailed(status.error)
    known = status.state != "queued"
    return Response(
        CodeSent(*_members(sent), status.state),
        status_code=_OK if known else _ACCEPTED,
        headers=headers | {"Preference-Applied": f"wait={caller.wait}"},
    )


def _members(sent: CodeSent) -> tuple[str, str, int, int, int]:
    return sent.challenge_id, sent.message, sent.code_length, sent.expires_in, sent.resend_in


async def _outcome(request: AnyRequest, realm: Realm, issued: Issued, wait: int) -> Status:
    """The state of the delivery, as soon as there is one, or after `wait` seconds."""
    core = services(request)
    for _ in range(round(wait / _POLL_SECONDS)):
        status = await core.challenges.status(realm, issued.challenge_id, disclose=True)
        if status.state != "queued":
            return status
        await core.sleep(_POLL_SECONDS)
    return await core.challenges.status(realm, issued.challenge_id, disclose=True)
