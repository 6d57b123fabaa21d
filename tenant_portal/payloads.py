"""What goes over the wire of the sign-in API, to the letter of the contract. Unknown fields are refused."""

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from app.auth.signing_in import HalfSignIn, Outcome, SignIn
from app.errors import FieldError, InvalidRequest

Channel: TypeAlias = Literal["email", "sms", "whatsapp", "push"]

_DEVICE_NAME_LENGTH: Final = 80

ChallengeId = Annotated[str, Meta(description="From the answer to `otp/request`.", examples=["Zb3xQ0m1T5y8uK2rVw9a_g"])]
Seconds = Annotated[int, Meta(description="Whole seconds.", ge=0)]


class CodeRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """Without `identifier` the code goes to the tenant's own contact."""

    identifier: (
        Annotated[
            str,
            Meta(
                description="Email, or phone with its country code.",
                examples=[None, "ana@example.com", "+447700900123"],
            ),
        ]
        | None
    ) = None
    channel: Annotated[Channel | None, Meta(description="How the code should come.", examples=[None, "email"])] = None
    password: Annotated[str, Meta(description="Where the tenant asks for one first.", examples=[None])] | None = None
    purpose: (
        Annotated[
            Literal["reset"],
            Meta(
                description="For a member who forgot the password: sign in with the code, then set one.",
                examples=[None],
            ),
        ]
        | None
    ) = None


class ResendRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A new code for the same challenge."""

    challenge_id: ChallengeId
    channel: Annotated[Channel | None, Meta(description="Another way than before.", examples=["sms"])] = None


class VerifyRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The code, as it was typed."""

    challenge_id: ChallengeId
    code: Annotated[str, Meta(description="Spaces and dashes are ignored.", examples=["123456"])]
    device_name: (
        Annotated[str, Meta(description="How the person will recognise this session.", examples=["Ana's phone"])] | None
    ) = None
    remember_device: Annotated[bool, Meta(description="Whether this device should be known from now on.")] = False


class StatusRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """Which challenge."""

    challenge_id: ChallengeId


class RefreshRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The refresh token of the latest answer."""

    refresh_token: Annotated[str, Meta(examples=["ghr_…"])]


class IntrospectRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """RFC 7662, section 2.1; also as a form. A sensitive operation may demand more than a token in force."""

    token: Annotated[str, Meta(description="An access token.")]
    token_type_hint: str | None = None
    max_age: (
        Annotated[
            int, Meta(description="How many seconds ago the person may have signed in at most.", ge=0, examples=[300])
        ]
        | None
    ) = None
    factor: Annotated[
        str | None, Meta(description="A value that `amr` must have: `mfa` for any second factor.", examples=["mfa"])
    ] = None


class CodeSent(Struct, frozen=True):
    """A code is on its way, or looks as if it were. `code_length` of the latest answer is binding."""

    challenge_id: ChallengeId
    message: Annotated[str, Meta(description="Fit to show, in the language of Accept-Language.")]
    code_length: Annotated[int, Meta(description="6 or 8.", examples=[6])]
    expires_in: Annotated[Seconds, Meta(examples=[600])]
    resend_in: Annotated[Seconds, Meta(examples=[60])]
    state: Annotated[str | UnsetType, Meta(description="With `Prefer: wait`.", examples=["sent"])] = UNSET


class ChallengeStatus(Struct, frozen=True):
    """Where a challenge stands."""

    state: Literal["queued", "sent", "delivered", "failed", "expired", "used"]
    channel: Annotated[str | None, Meta(examples=["email"])]
    expires_in: Seconds
    attempts_left: Annotated[int, Meta(examples=[5])]


class TenantName(Struct, frozen=True):
    """The organisation."""

    slug: Annotated[str, Meta(examples=["demo"])]
    name: Annotated[str, Meta(examples=["Demo"])]


class SubjectName(Struct, frozen=True):
    """Who is signed in."""

    kind: Annotated[str, Meta(description="tenant or member.", examples=["tenant"])]
    id: UUID
    name: str


class Tokens(Struct, frozen=True, kw_only=True):
    """A sign-in. The access token is a JWT whose key is at `/.well-known/jwks.json`."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[Seconds, Meta(examples=[900])]
    refresh_token: str
    refresh_expires_in: Annotated[Seconds, Meta(examples=[604800])]
    device_token: (
        Annotated[str, Meta(description="Sent as X-Device-Token it gives this device a quota of its own.")] | UnsetType
    ) = UNSET
    tenant: TenantName
    subject: SubjectName

    @classmethod
    def of(cls, signed_in: SignIn) -> "Tokens":
        """The tokens of an API sign-in."""
        assert signed_in.access_token is not None  # noqa: S101 - an API session always has both
        assert signed_in.refresh_token is not None  # noqa: S101
        return cls(
            access_token=signed_in.access_token,
            token_type="Bearer",  # noqa: S106 - the name of a scheme
            expires_in=signed_in.expires_in,
            refresh_token=signed_in.refresh_token,
            refresh_expires_in=signed_in.refresh_expires_in,
            device_token=signed_in.device_token or UNSET,
            tenant=TenantName(signed_in.tenant_slug, signed_in.tenant_name),
            subject=SubjectName(signed_in.subject.kind, signed_in.subject.id, signed_in.subject.name),
        )


class HalfDone(Struct, frozen=True):
    """The first factor is proven; a second one is to follow. `mfa_token` opens nothing else.

    `totp`: `POST /api/v1/auth/mfa` with one of `options`. `enrol`: a second factor is required here and there is none
    yet, so `POST /api/v1/auth/totp` and `…/totp/confirm` come first; the latter answers with the tokens.
    """

    next: Literal["totp", "enrol"]
    mfa_token: str
    expires_in: Annotated[Seconds, Meta(examples=[600])]
    options: Annotated[list[Literal["totp", "backup_code"]], Meta(examples=[["totp", "backup_code"]])]

    @classmethod
    def of(cls, half: HalfSignIn) -> "HalfDone":
        """A half sign-in of the API."""
        if half.next == "totp":
            return cls("totp", half.mfa_token, half.expires_in, ["totp", "backup_code"])
        return cls("enrol", half.mfa_token, half.expires_in, [])


class Unregistered(Struct, frozen=True):
    """The address is proven, and nobody here has it. With the token `POST …/members` makes a member of its owner."""

    next: Literal["register"]
    registration_token: str
    expires_in: Annotated[Seconds, Meta(examples=[900])]


Entered: TypeAlias = Tokens | HalfDone | Unregistered


def entered(outcome: Outcome) -> Entered:
    """What a sign-in by the API has come to."""
    if isinstance(outcome, SignIn):
        return Tokens.of(outcome)
    if outcome.next == "register":
        return Unregistered("register", outcome.mfa_token, outcome.expires_in)
    return HalfDone.of(outcome)


class Contacts(Struct, frozen=True):
    """Masked."""

    email: Annotated[str | None, Meta(examples=["a***@example.com"])]
    phone_number: Annotated[str | None, Meta(examples=["+44*****1234"])]


class CurrentSession(Struct, frozen=True):
    """The session of the call itself."""

    id: UUID
    device_name: str | None
    authenticated_at: datetime
    created_at: datetime
    expires_at: datetime


class SecondFactor(Struct, frozen=True):
    """What the person has enrolled: an authenticator app, and how many backup codes are left."""

    totp: bool
    backup_codes: int


class Me(Struct, frozen=True):
    """The signed-in person. `factors` are those that signed this session in."""

    tenant: TenantName
    subject: SubjectName
    contacts: Contacts
    factors: Annotated[list[str], Meta(examples=[["otp:email", "totp"]])]
    second_factor: SecondFactor
    session: CurrentSession


class SessionItem(Struct, frozen=True):
    """One of the person's sessions."""

    id: UUID
    kind: Annotated[str, Meta(description="api or browser.", examples=["api"])]
    device_name: str | None
    ip: str | None
    user_agent: str | None
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    current: bool


class SessionList(Struct, frozen=True):
    """Newest first."""

    sessions: list[SessionItem]


class EventItem(Struct, frozen=True):
    """One line of the person's own history."""

    at: datetime
    action: Annotated[str, Meta(examples=["session.started"])]
    source: Annotated[str, Meta(examples=["api"])]
    ip: str | None
    user_agent: str | None
    data: dict[str, Any]


class EventPage(Struct, frozen=True):
    """Newest first. `next` is the `cursor` of the page after this one, or null on the last."""

    events: list[EventItem]
    next: str | None


class Introspection(Struct, frozen=True, omit_defaults=True):
    """RFC 7662, section 2.2. Of a token that is not in force nothing but that is told.

    Of one that is, but doesn't meet a demand, `reason` tells which: the person has to sign in again.
    """

    active: bool
    reason: Annotated[Literal["max_age", "factor"] | None, Meta(description="The demand that isn't met.")] = None
    token_type: str | None = None
    iss: str | None = None
    aud: str | None = None
    sub: str | None = None
    tid: str | None = None
    slug: str | None = None
    sid: str | None = None
    iat: int | None = None
    nbf: int | None = None
    exp: int | None = None
    jti: str | None = None
    auth_time: Annotated[int | None, Meta(description="When the person signed in.")] = None
    amr: Annotated[list[str] | None, Meta(description="How (RFC 8176).", examples=[["otp:email", "totp", "mfa"]])] = (
        None
    )


class KeySet(Struct, frozen=True):
    """RFC 7517."""

    keys: list[dict[str, str]]


def check_device_name(value: str | None) -> str | None:
    """The name, or None. Raises `InvalidRequest`: it is shown in lists and mails, so it is one short line."""
    if value is None:
        return None
    if len(value) > _DEVICE_NAME_LENGTH or any(unicodedata.category(c)[0] in "CZ" and c != " " for c in value):
        raise InvalidRequest(
            FieldError("/device_name", f"A device name is one line of at most {_DEVICE_NAME_LENGTH} characters.")
        )
    return value.strip() or None
