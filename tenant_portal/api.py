"""Signing in: ask for a code, send it back, get tokens. Handlers decode, make one call to the core, and encode."""

from typing import Final

from litestar import Response, Router, post
from litestar.openapi.spec import Tag
from litestar.params import JSONBody

from app.auth.asking import Issued, Realm
from app.errors import (
    ChannelUnavailable,
    CodeExpired,
    ContactMissing,
    DeliveryFailed,
    InvalidCode,
    InvalidCredentials,
    InvalidRequest,
    InvalidToken,
    RateLimited,
    TenantNotFound,
    TenantSuspended,
    TooManyAttempts,
    Unavailable,
)
from app.web.caller import identify
from app.web.docs import SentOnce, refusals
from app.web.repeats import CallsOnce
from app.web.services import AnyRequest, services
from app.web.texts import UNDETERMINED
from tenant_portal import account_api, factors_api, members_api
from tenant_portal.answers import Slug, answer
from tenant_portal.payloads import (
    ChallengeStatus,
    CodeRequest,
    CodeSent,
    Entered,
    ResendRequest,
    StatusRequest,
    VerifyRequest,
    check_device_name,
    entered,
)

TAGS: Final = (
    Tag(name="Sign-in", description="Anonymous. Strangers learn nothing about who exists."),
    Tag(name="Signed in", description="With an access token."),
    Tag(name="For services", description="With an API key, or public."),
)

_OK: Final = 200


@post(
    "/{slug:str}/otp/request",
    status_code=202,
    summary="Ask for a code",
    operation_class=SentOnce,
    responses=refusals(
        InvalidRequest,
        InvalidToken,
        TenantSuspended,
        TenantNotFound,
        ContactMissing,
        ChannelUnavailable,
        RateLimited,
        DeliveryFailed,
        InvalidCredentials,
        Unavailable,
    ),
)
async def request_code(
    request: AnyRequest, slug: Slug, data: JSONBody[CodeRequest]
) -> Response[CodeSent] | Response[Entered]:
    """Sends a code to the tenant's contact, or to whoever `identifier` names.

    200 with tokens where policy or an admin lets somebody in without a code: on a remembered device, or by the password
    alone.

    With `X-Device-Token`, the `device_token` of an earlier sign-in, the device has an hourly quota of its own.
    A disclosed caller (an API key, or OTP_DISCLOSE_ERRORS) also learns why no code was sent, and may wait for the
    outcome with `Prefer: wait=10`: 200 with `state`, or 502.
    """
    caller = await identify(request)
    realm = Realm.of(slug)
    issued = await services(request).entrance.ask(
        realm,
        caller.client,
        identifier=data.identifier,
        channel=data.channel,
        password=data.password,
        purpose=data.purpose or "sign_in",
        locale=caller.language or UNDETERMINED,
        disclose=caller.disclosed,
        device_token=request.headers.get("x-device-token"),
    )
    if not isinstance(issued, Issued):
        return Response(entered(issued), status_code=_OK)
    return await answer(request, realm, issued, caller)


@post(
    "/{slug:str}/otp/resend",
    status_code=202,
    summary="Send a new code",
    operation_class=SentOnce,
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
        realm,
        data.challenge_id,
        caller.client,
        channel=data.channel,
        disclose=caller.disclosed,
        device_token=request.headers.get("x-device-token"),
    )
    return await answer(request, realm, issued, caller)


@post(
    "/{slug:str}/otp/verify",
    status_code=200,
    summary="Sign in with the code",
    operation_class=SentOnce,
    responses=refusals(
        InvalidRequest,
        InvalidCode,
        InvalidToken,
        CodeExpired,
        RateLimited,
        TooManyAttempts,
        Unavailable,
    ),
)
async def verify_code(request: AnyRequest, slug: Slug, data: JSONBody[VerifyRequest]) -> Entered:
    """Each wrong code counts. A code of the wrong form is refused with 400 and doesn't.

    Where a second factor is to follow, the answer has `next` and an `mfa_token` instead of tokens; where nobody has the
    address and registration is open, `"next": "register"` and a `registration_token`.
    """
    caller = await identify(request)
    outcome = await services(request).challenges.verify(
        Realm.of(slug),
        data.challenge_id,
        data.code,
        caller.client,
        device_name=check_device_name(data.device_name),
        remember=data.remember_device,
    )
    return entered(outcome)


@post(
    "/{slug:str}/otp/status",
    status_code=200,
    summary="Where a challenge stands",
    responses=refusals(InvalidRequest, InvalidToken, CodeExpired, RateLimited, Unavailable),
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
        middleware=[CallsOnce()],
        tags=["Sign-in"],
    ),
    *members_api.ROUTES,
    *account_api.ROUTES,
    *factors_api.ROUTES,
)
