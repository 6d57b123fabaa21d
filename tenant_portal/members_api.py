"""Members: becoming one, and one's own contacts, password and consents."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from litestar import Response, Router, delete, get, post, put
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from app.auth.asking import Issued, Realm
from app.auth.entrance import Newcomer
from app.errors import (
    AlreadyExists,
    ChannelUnavailable,
    CodeExpired,
    Forbidden,
    InvalidCode,
    InvalidRequest,
    InvalidToken,
    NotFound,
    RateLimited,
    TenantNotFound,
    TenantSuspended,
    TooManyAttempts,
    Unavailable,
)
from app.masking import mask_email, mask_phone
from app.web.caller import Caller, client_of, identify, require_session
from app.web.docs import SentOnce, refusals
from app.web.repeats import CallsOnce
from app.web.services import AnyRequest, services
from app.web.texts import UNDETERMINED, choose_language
from tenant_portal.answers import Slug, answer
from tenant_portal.payloads import ChallengeId, CodeSent, Contacts, Entered, entered

_SIGNED_IN: Final[list[dict[str, list[str]]]] = [{"accessToken": []}]
_OK: Final = 200


class ConsentGiven(Struct, forbid_unknown_fields=True, frozen=True):
    """Which text, in which version, was agreed to."""

    document: Annotated[str, Meta(examples=["terms"])]
    version: Annotated[str, Meta(examples=["2026-01"])]


class RegistrationRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A newcomer: with an email address or a phone number, or both. The code goes to the email address if there is one.

    With a `registration_token` the address is proven already. What is agreed to is recorded with the member.
    """

    name: Annotated[str, Meta(examples=["Ana Silva"])]
    consent: ConsentGiven
    email: Annotated[str, Meta(examples=["ana@example.com"])] | None = None
    phone_number: Annotated[str, Meta(examples=["+447700900123"])] | None = None
    password: Annotated[str, Meta(description="8 to 128 characters.", examples=[None])] | None = None
    registration_token: (
        Annotated[str, Meta(description='Of the answer `"next": "register"`.', examples=[None])] | None
    ) = None


class ContactRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The address to have from now on: one of the two."""

    email: Annotated[str, Meta(examples=["ana@example.com"])] | None = None
    phone_number: Annotated[str, Meta(examples=[None])] | None = None


class ContactConfirmRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The code that came to the new address."""

    challenge_id: ChallengeId
    code: Annotated[str, Meta(examples=["123456"])]


class PasswordRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The password from now on."""

    password: Annotated[str, Meta(description="8 to 128 characters.", examples=["correct horse battery staple"])]


class ConsentItem(Struct, frozen=True):
    """A text that was agreed to."""

    id: UUID
    document: str
    version: str
    given_at: datetime
    withdrawn_at: datetime | None


class ConsentList(Struct, frozen=True):
    """Oldest first."""

    consents: list[ConsentItem]


@post(
    "/{slug:str}/members",
    status_code=202,
    summary="Register",
    operation_class=SentOnce,
    responses=refusals(
        InvalidRequest,
        InvalidToken,
        Forbidden,
        TenantSuspended,
        TenantNotFound,
        AlreadyExists,
        CodeExpired,
        ChannelUnavailable,
        RateLimited,
        Unavailable,
    ),
)
async def register(
    request: AnyRequest, slug: Slug, data: JSONBody[RegistrationRequest]
) -> Response[CodeSent] | Response[Entered]:
    """Sends a code; `otp/verify` with it makes the member and signs them in.

    An address that somebody has already gets the same answer; its owner is told. With a `registration_token` there is
    nothing left to prove: 200 with tokens.
    """
    caller = await identify(request)
    realm = Realm.of(slug)
    newcomer = Newcomer(
        data.name,
        data.email,
        data.phone_number,
        data.password,
        data.consent.document,
        data.consent.version,
    )
    outcome = await services(request).entrance.register(
        realm,
        newcomer,
        caller.client,
        token=data.registration_token,
        locale=caller.language or UNDETERMINED,
        disclose=caller.disclosed,
    )
    if isinstance(outcome, Issued):
        return await answer(request, realm, outcome, caller)
    return Response(entered(outcome), status_code=_OK)


@put(
    "/contacts",
    status_code=202,
    summary="Change or add an own contact",
    security=_SIGNED_IN,
    responses=refusals(InvalidRequest, InvalidToken, Forbidden, RateLimited, Unavailable),
)
async def change_contact(request: AnyRequest, data: JSONBody[ContactRequest]) -> Response[CodeSent]:
    """Sends a code to the new address. Needs a sign-in of the last 10 minutes; nothing is different until it is
    confirmed.
    """
    session = await require_session(request)
    client, language = client_of(request), choose_language(request.headers.get("accept-language"))
    issued = await services(request).own_account.claim_contact(
        session, client, email=data.email, phone_number=data.phone_number, locale=language or UNDETERMINED
    )
    return await answer(request, Realm.of(session.tenant_slug), issued, Caller(client, language, disclosed=False))


@post(
    "/contacts/confirm",
    status_code=200,
    summary="Prove the new contact",
    security=_SIGNED_IN,
    responses=refusals(
        InvalidRequest, InvalidToken, InvalidCode, Forbidden, AlreadyExists, CodeExpired, TooManyAttempts, Unavailable
    ),
)
async def confirm_contact(request: AnyRequest, data: JSONBody[ContactConfirmRequest]) -> Contacts:
    """From now on codes go there. Other codes are void, and the old and the new address are told."""
    session = await require_session(request)
    member = await services(request).own_account.confirm_contact(
        session, data.challenge_id, data.code, client_of(request)
    )
    return Contacts(
        mask_email(member.email) if member.email else None,
        mask_phone(member.phone_number) if member.phone_number else None,
    )


@put(
    "/password",
    status_code=204,
    summary="Set or change the password",
    security=_SIGNED_IN,
    responses=refusals(InvalidRequest, InvalidToken, Forbidden, Unavailable),
)
async def change_password(request: AnyRequest, data: JSONBody[PasswordRequest]) -> None:
    """Needs a sign-in of the last 10 minutes, such as one with `"purpose": "reset"`. All other sessions end."""
    session = await require_session(request)
    await services(request).own_account.set_password(session, data.password, client_of(request))


@get("/consents", summary="Own consents", security=_SIGNED_IN, responses=refusals(InvalidToken, Forbidden, Unavailable))
async def consents(request: AnyRequest) -> ConsentList:
    """What was agreed to, and when."""
    session = await require_session(request)
    rows = await services(request).own_account.consents(session)
    return ConsentList([ConsentItem(**row) for row in rows])


@delete(
    "/consents/{consent_id:str}",
    summary="Withdraw a consent",
    security=_SIGNED_IN,
    responses=refusals(InvalidRequest, InvalidToken, Forbidden, NotFound, Unavailable),
)
async def withdraw_consent(request: AnyRequest, consent_id: FromPath[UUID]) -> None:
    """As easy as giving it; when it was given stays known."""
    session = await require_session(request)
    await services(request).own_account.withdraw_consent(session, consent_id, client_of(request))


ROUTES: Final = (
    Router("/api/v1/tenants", route_handlers=[register], middleware=[CallsOnce()], tags=["Sign-in"]),
    Router(
        "/api/v1/auth",
        route_handlers=[change_contact, confirm_contact, change_password, consents, withdraw_consent],
        tags=["Signed in"],
    ),
)
