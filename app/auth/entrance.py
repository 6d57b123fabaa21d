"""How members come in: a password before the code or instead of it, a device that is remembered, a registration."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from app.audit.log import Client
from app.auth.asking import Issued, Realm, Wish, read_identifier
from app.auth.challenges import Challenges
from app.auth.credentials import MfaToken, SessionKind
from app.auth.devices import KnownDevice, read_device_token
from app.auth.limits import Admission
from app.auth.passwords import Passwords, check_new
from app.auth.sessions import Sessions
from app.auth.signing_in import Outcome
from app.auth.standing import seconds_until
from app.errors import CodeExpired, FieldError, InvalidCredentials, InvalidRequest, RateLimited
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.tenants.rules import check_name, normalise_email, normalise_phone

_TRY: Final = "SELECT * FROM fn.try_password($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
_FAIL: Final = "SELECT fn.fail_password($1, $2, $3, $4, $5, $6, $7, $8)"
_WITHOUT_CODE: Final = f"SELECT * FROM fn.sign_in_without_code({', '.join(f'${n}' for n in range(1, 20))})"
_PROVEN: Final = f"SELECT * FROM fn.register_proven({', '.join(f'${n}' for n in range(1, 16))})"

_DOCUMENT_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What somebody tells of themself who wants to become a member; as it was typed."""

    name: str
    email: str | None = field(default=None, repr=False)
    phone_number: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    document: str | None = None
    document_version: str | None = None
    agrees: bool = True


@dataclass(frozen=True, slots=True)
class _RightPassword:
    tenant_id: UUID
    hash: str = field(repr=False)


class Entrance:
    """Signs members in and takes newcomers on, for every face."""

    def __init__(
        self,
        db: Database,
        ring: KeyRing,
        settings: Settings,
        challenges: Challenges,
        sessions: Sessions,
        passwords: Passwords,
        clock: Callable[[], datetime],
    ) -> None:
        self._db = db
        self._ring = ring
        self._settings = settings
        self._challenges = challenges
        self._sessions = sessions
        self._passwords = passwords
        self._clock = clock

    async def ask(
        self,
        realm: Realm,
        client: Client,
        *,
        identifier: str | None = None,
        channel: str | None = None,
        password: str | None = None,
        purpose: Literal["sign_in", "reset"] = "sign_in",
        locale: str = "en",
        disclose: bool = False,
        device_token: str | None = None,
        kind: SessionKind = "api",
    ) -> Issued | Outcome:
        """Sends a code, as `Challenges.request` does, or begins a session where policy or an admin lets it.

        One round trip for a code. A password costs two more at most: it is counted and committed before anything is
        compared. Raises what `Challenges.request` does, and `InvalidCredentials`: for a wrong password, for a member
        without one, and for nobody, after the same work.
        """
        email, phone = read_identifier(identifier)
        device = read_device_token(self._ring, realm.slug, device_token, self._clock())
        if password is not None and identifier is None:
            raise InvalidRequest(FieldError("/identifier", "A password needs the email address or phone number."))
        if password is not None and purpose == "reset":
            raise InvalidRequest(FieldError("/password", "Whoever has forgotten the password leaves it out."))
        admission = await self._challenges.admit(client, device)
        right = None
        if password is not None:
            right = await self._check_password(realm, email, phone, password, client, device, admission)
            admission = Admission(admission.full)  # settled
        wish = Wish(
            email,
            phone,
            channel,
            locale,
            disclose,
            purpose,
            proven=right.hash if right else None,
            or_none=purpose == "sign_in" and (right is not None or device is not None),
        )
        issued = await self._challenges.issue(realm, wish, client, device, admission)
        if issued is not None:
            return issued
        tenant_id = right.tenant_id if right else device.tenant_id if device else None
        assert tenant_id is not None  # noqa: S101 - without either a code is needed
        proof = (
            realm.slug,
            self._challenges.stand_in(realm),
            email,
            phone,
            self._challenges.door_key(realm, email or phone or ""),
            device.device_id if device else None,
            wish.proven,
        )
        outcome = await self._sessions.begin_otherwise(_WITHOUT_CODE, self._clock(), proof, tenant_id, kind, client)
        if outcome is None:
            # What let them in without a code a moment ago does so no more.
            raise InvalidCredentials
        return outcome

    async def register(
        self,
        realm: Realm,
        newcomer: Newcomer,
        client: Client,
        *,
        token: str | None = None,
        locale: str = "en",
        disclose: bool = False,
        kind: SessionKind = "api",
    ) -> Issued | Outcome:
        """Sends the code that makes a member of a newcomer; with the `token` of a proven address there is no more to
        prove, and a session begins.

        An address that somebody here has already gets the same answer, and its owner is told. Raises `InvalidRequest`,
        also where everybody signs in with a password and none is given, and `RateLimited`; with `disclose` also
        `Forbidden` where nobody may register, and `AlreadyExists`; `CodeExpired` for a token that is over.
        """
        claim = _check(newcomer, proven=token is not None)
        email, phone = claim["email"], claim["phone_number"]
        chosen = claim.pop("password")
        await self._challenges.admit(client)
        # Whether anybody may register here or not: whoever asks learns nothing from the time it takes.
        claim["password_hash"] = await self._passwords.hash(chosen) if chosen is not None else None
        if token is not None:
            presented = MfaToken.parse(token)
            proof = (realm.slug, presented.hash(), claim)
            outcome = await self._sessions.begin_otherwise(
                _PROVEN, self._clock(), proof, presented.tenant_id, kind, client
            )
            if outcome is None:
                raise CodeExpired("This registration has expired, or somebody else has the address. Start again.")
            return outcome
        wish = Wish(email, None if email else phone, locale=locale, disclose=disclose, purpose="register", claim=claim)
        issued = await self._challenges.issue(realm, wish, client)
        assert issued is not None  # noqa: S101 - a registration always needs its code
        return issued

    async def _check_password(
        self,
        realm: Realm,
        email: str | None,
        phone: str | None,
        password: str,
        client: Client,
        device: KnownDevice | None,
        admission: Admission,
    ) -> _RightPassword:
        now = self._clock()
        door = self._challenges.door_key(realm, email or phone or "")
        # First, so that nobody's tries are spent on a password that isn't compared.
        with self._passwords.place():
            row = await self._db.row(
                _TRY,
                now,
                realm.slug,
                self._challenges.stand_in(realm),
                email,
                phone,
                self._challenges.recipient_key(realm, email or phone or ""),
                device.device_id if device else None,
                self._settings.otp_max_attempts,
                self._settings.otp_hourly_limit,
                door,
                admission.known_only,
            )
            assert row is not None  # noqa: S101 - the function always returns one row
            await admission.settle(known=row["device_known"])
            if row["outcome"] == "limited":
                raise RateLimited(
                    seconds_until(row["retry_at"], now), detail="Too many passwords were tried. Wait and try again."
                )
            stored = row["hash"]
            if await self._passwords.matches(password, stored) and stored is not None:
                return _RightPassword(row["tenant"], stored)
        await self._db.run(
            _FAIL,
            now,
            row["tenant"],
            row["subject_kind"],
            row["subject"],
            row["quota_key"],
            door,
            row["quota_lane"],
            client.as_json(),
        )
        raise InvalidCredentials


def _check(newcomer: Newcomer, *, proven: bool) -> dict[str, str | None]:
    """What they tell, in the form in which it is stored, the password in the form in which it is hashed.

    Raises `InvalidRequest` with all that is wrong. Whose address is `proven` need not tell one.
    """
    faults: list[FieldError] = []

    def checked(check: Callable[..., str | None], *args: object) -> str | None:
        try:
            return check(*args)
        except InvalidRequest as refusal:
            faults.extend(refusal.errors)
            return None

    name = checked(check_name, newcomer.name)
    email = checked(normalise_email, newcomer.email) if newcomer.email else None
    phone = checked(normalise_phone, newcomer.phone_number) if newcomer.phone_number else None
    if not (proven or newcomer.email or newcomer.phone_number):
        faults.append(FieldError("/email", "Tell an email address or a phone number."))
    password = checked(check_new, newcomer.password, name, email, phone) if newcomer.password is not None else None
    if not newcomer.agrees:
        faults.append(FieldError("/consent", "Tick this box to register."))
    elif newcomer.document is None or newcomer.document_version is None:
        faults.append(FieldError("/consent", "Say which document, in which version, is agreed to."))
    document = checked(_check_word, newcomer.document, "/consent/document")
    version = checked(_check_word, newcomer.document_version, "/consent/version")
    if faults:
        raise InvalidRequest(*faults)
    return {
        "name": name,
        "email": email,
        "phone_number": phone,
        "password": password,
        "document": document,
        "version": version,
    }


def _check_word(value: str | None, pointer: str) -> str | None:
    """A document's name or version: one short line."""
    if value is None:
        return None
    if not value.strip() or len(value) > _DOCUMENT_LENGTH or not value.isprintable():
        raise InvalidRequest(FieldError(pointer, f"This is one line of 1 to {_DOCUMENT_LENGTH} characters."))
    return value.strip()
