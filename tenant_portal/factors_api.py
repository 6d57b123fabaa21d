"""Second factors: the second step of a sign-in, and setting one up, changing it, taking it away."""

from typing import Annotated, Final, Literal

from litestar import Router, delete, post
from litestar.params import JSONBody
from msgspec import Meta, Struct

from app.auth.factors.service import Enrolment, Holder
from app.errors import (
    CodeExpired,
    FieldError,
    Forbidden,
    InvalidCode,
    InvalidRequest,
    InvalidToken,
    NotFound,
    RateLimited,
    TooManyAttempts,
    Unavailable,
)
from app.web.browser import TENANT
from app.web.caller import client_of, require_session
from app.web.docs import SentOnce, refusals
from app.web.repeats import CallsOnce
from app.web.services import AnyRequest, services
from tenant_portal.payloads import SecondFactor, Tokens

_SIGNED_IN: Final[list[dict[str, list[str]]]] = [{"accessToken": []}]
_EITHER: Final[list[dict[str, list[str]]]] = [{"accessToken": []}, {}]

MfaTokenText = Annotated[str, Meta(description="From the answer to `otp/verify`.")]


class MfaRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """One of the two codes."""

    mfa_token: MfaTokenText
    totp: Annotated[str | None, Meta(description="The 6 digits of the app.", examples=["123456"])] = None
    backup_code: Annotated[str | None, Meta(description="A code of the sheet.", examples=[None])] = None


class EnrolRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """Empty for somebody signed in; `mfa_token` for somebody who can't sign in without a second factor."""

    mfa_token: Annotated[MfaTokenText | None, Meta(examples=[None])] = None


class ConfirmRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The first code of the app."""

    code: Annotated[str, Meta(description="The 6 digits of the app.", examples=["123456"])]
    mfa_token: Annotated[MfaTokenText | None, Meta(examples=[None])] = None


class NewApp(Struct, frozen=True):
    """For an authenticator app: scan the QR code, follow the link, or type the secret."""

    secret: Annotated[str, Meta(description="Base32.", examples=["JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"])]
    uri: Annotated[str, Meta(examples=["otpauth://totp/Demo:demo?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Demo"])]
    qr_svg: Annotated[str, Meta(description="The link as a QR code, an SVG document.")]

    @classmethod
    def of(cls, enrolment: Enrolment) -> "NewApp":
        """An app that is being set up."""
        return cls(enrolment.secret, enrolment.uri, enrolment.qr_svg)


class BackupCodes(Struct, frozen=True):
    """Shown this once."""

    codes: Annotated[list[str], Meta(examples=[["4kq9z-0m7rt"]])]


@post(
    "/mfa",
    status_code=200,
    summary="Second step of a sign-in",
    tags=["Sign-in"],
    operation_class=SentOnce,
    middleware=[CallsOnce()],
    responses=refusals(InvalidRequest, InvalidCode, CodeExpired, TooManyAttempts, RateLimited, Unavailable),
)
async def second_step(request: AnyRequest, data: JSONBody[MfaRequest]) -> Tokens:
    """Each wrong code counts; five end the sign-in. A code works once, also one of the app."""
    using: Literal["totp", "backup_code"] = "totp" if data.totp is not None else "backup_code"
    code = data.totp if data.totp is not None else data.backup_code
    if code is None or (data.totp is not None and data.backup_code is not None):
        raise InvalidRequest(FieldError("", "Send either totp or backup_code."))
    signed_in = await services(request).second_steps.finish(
        data.mfa_token, code, client_of(request), using=using, kind="api", subjects=TENANT.subjects
    )
    return Tokens.of(signed_in)


@post(
    "/totp",
    status_code=200,
    summary="Set up an authenticator app",
    security=_EITHER,
    responses=refusals(InvalidRequest, InvalidToken, Forbidden, CodeExpired, RateLimited, Unavailable),
)
async def enrol(request: AnyRequest, data: JSONBody[EnrolRequest | None] = None) -> NewApp:
    """Nothing is different until `totp/confirm`. Needs a sign-in of the last 10 minutes; a new app takes the old one's
    place. Where a second factor is required and there is none, the `mfa_token` of `"next": "enrol"` does.
    """
    factors = services(request).factors
    if data is not None and data.mfa_token is not None:
        holder = await factors.holder(data.mfa_token)
    else:
        holder = Holder.of(await require_session(request, unproven=True))
    return NewApp.of(await factors.enrol(holder))


@post(
    "/totp/confirm",
    status_code=200,
    summary="Confirm the app with its first code",
    security=_EITHER,
    operation_class=SentOnce,
    middleware=[CallsOnce()],
    responses=refusals(
        InvalidRequest,
        InvalidToken,
        InvalidCode,
        Forbidden,
        CodeExpired,
        RateLimited,
        TooManyAttempts,
        Unavailable,
    ),
)
async def confirm(request: AnyRequest, data: JSONBody[ConfirmRequest]) -> Tokens | SecondFactor:
    """From now on every sign-in asks for a code of the app. All other sessions end. With an `mfa_token` the answer is
    the tokens of the sign-in.
    """
    core, client = services(request), client_of(request)
    if data.mfa_token is not None:
        return Tokens.of(
            await core.second_steps.enrol_and_finish(
                data.mfa_token, data.code, client, kind="api", subjects=TENANT.subjects
            )
        )
    session = await require_session(request, unproven=True)
    await core.factors.confirm(session, data.code, client)
    return SecondFactor(totp=True, backup_codes=session.backup_codes)


@delete(
    "/totp",
    summary="Remove the app and the backup codes",
    security=_SIGNED_IN,
    responses=refusals(InvalidToken, Forbidden, NotFound, Unavailable),
)
async def remove(request: AnyRequest) -> None:
    """Needs a sign-in of the last 10 minutes, with the app. All other sessions end."""
    session = await require_session(request)
    await services(request).factors.remove(session, client_of(request))


@post(
    "/backup-codes",
    status_code=200,
    summary="New backup codes",
    security=_SIGNED_IN,
    responses=refusals(InvalidToken, Forbidden, NotFound, Unavailable),
)
async def backup_codes(request: AnyRequest) -> BackupCodes:
    """Ten codes, each good once instead of the app's; the ones before are void. Needs a sign-in of the last 10 minutes,
    with the app.
    """
    session = await require_session(request)
    return BackupCodes(list(await services(request).factors.new_backup_codes(session, client_of(request))))


ROUTES: Final = (
    Router("/api/v1/auth", route_handlers=[second_step]),
    Router(
        "/api/v1/auth",
        route_handlers=[enrol, confirm, remove, backup_codes],
        tags=["Signed in"],
    ),
)
