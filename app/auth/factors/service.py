"""Second factors of tenants, members and admins: setting one up, changing it, taking it away. See `sql/factors.sql`.

Whether one is demanded is decided where sessions begin (`fn.begin_session`), below every face; signing in with one is
`second_steps`' business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from app.audit.log import Actor, Client
from app.auth.credentials import MfaToken, sign_in_over
from app.auth.encryption import decrypt, encrypt
from app.auth.factors import backup_codes, totp
from app.auth.sessions import LiveSession, Sessions
from app.errors import FieldError, Forbidden, InvalidRequest, NotFound
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database

# Changing factors takes a sign-in younger than this.
RECENT: Final = timedelta(minutes=10)

_WHAT: Final = "SELECT * FROM fn.subject_factors($1, $2, $3, $4, $5, $6, $7)"
_HAS: Final = "SELECT fn.has_factor($1, $2, $3)"
_HALF: Final = "SELECT * FROM fn.half_sign_in($1, $2, $3, $4)"
_BEGIN: Final = "SELECT fn.begin_enrolment($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) AS outcome"
_PENDING: Final = "SELECT * FROM fn.pending_enrolment($1, $2, $3, $4)"
_CONFIRM: Final = "SELECT fn.confirm_enrolment($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) AS outcome"
_REMOVE: Final = "SELECT fn.remove_factor($1, $2, $3, $4, $5, $6, $7, $8, $9) AS outcome"
_RESET: Final = "SELECT fn.reset_factors($1, $2, $3, $4, $5, $6, $7, $8) AS done"
_REPLACE: Final = "SELECT fn.replace_backup_codes($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS outcome"

_REFUSALS: Final = {
    "stale": "Sign in again: second factors can be changed within 10 minutes of a sign-in that used the present one, "
    "and not from a remembered device alone.",
    "over": "Setting the app up took too long, or was begun somewhere else. Begin again.",
    "off": "This organisation has switched second factors off.",
    "required": "A second factor is required here. To change phones, set up the new app: it takes the old one's place.",
    "none": "There is no second factor. Set up an authenticator app first.",
}

_NOT_SHOWN: Final = "This is not what the app shows now. Check the phone's clock, type the next code."


@dataclass(frozen=True, slots=True)
class Holder:
    """Who sets a factor up: somebody signed in, or (`half`) somebody who can't sign in without one."""

    tenant_id: UUID
    by: UUID
    subject_kind: str
    subject_id: UUID
    issuer: str
    account: str
    half: MfaToken | None = None

    @classmethod
    def of(cls, session: LiveSession) -> "Holder":
        """Somebody who is signed in."""
        account = _account(session.subject.kind, session.tenant_slug, session.email)
        kind, subject_id = session.subject.kind, session.subject.id
        return cls(session.tenant_id, session.session_id, kind, subject_id, session.tenant_name, account)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An app that is being set up. Shown to its owner until a first code confirms it."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)
    qr_svg: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What somebody has. `required` and `off` are the policy; `may_change`: the sign-in is recent enough."""

    totp_since: datetime | None
    totp_used_at: datetime | None
    backup_codes: int
    required: bool
    off: bool
    may_change: bool


class Factors:
    """Everything about second factors. Every call raises `Unavailable` when the database is away."""

    def __init__(
        self,
        db: Database,
        ring: KeyRing,
        settings: Settings,
        sessions: Sessions,
        clock: Callable[[], datetime],
        wake_worker: Callable[[], None],
    ) -> None:
        self._db = db
        self._ring = ring
        self._ttl = settings.jwt_refresh_ttl_seconds
        self._channels = list(settings.providers)
        self._sessions = sessions
        self._clock = clock
        self._wake_worker = wake_worker

    async def of(self, session: LiveSession) -> Enrolled:
        """What the person of a session has. One round trip."""
        row = await self._db.one(
            _WHAT,
            self._clock(),
            session.tenant_id,
            session.session_id,
            session.subject.kind,
            session.subject.id,
            RECENT,
            self._sessions.admins_must,
        )
        return Enrolled(**row)

    async def has_app(self, tenant_id: UUID, subject_kind: str, subject_id: UUID) -> bool:
        """Whether somebody has an app in force, for those who look after them."""
        async with self._db.tenant(tenant_id) as connection:
            found: bool = await connection.fetchval(_HAS, tenant_id, subject_kind, subject_id)
        return found

    async def holder(self, mfa_token: str) -> Holder:
        """Who holds the token of a half sign-in. Raises `CodeExpired` for one that is over or not ours."""
        token = MfaToken.parse(mfa_token)
        row = await self._db.row(_HALF, self._clock(), token.tenant_id, token.half_id, token.hash())
        if row is None:
            raise sign_in_over()
        account = _account(row["subject_kind"], row["slug"], row["email"])
        return Holder(token.tenant_id, token.half_id, row["subject_kind"], row["subject"], row["name"], account, token)

    async def enrol(self, holder: Holder) -> Enrolment:
        """Begins to set an app up. Nothing is different before its first code has confirmed it.

        Raises `Forbidden` when the sign-in is too old or second factors are switched off, and `CodeExpired` when the
        half sign-in is over or isn't about setting one up.
        """
        secret, factor_id = totp.new_secret(), uuid4()
        key_id, stored = encrypt(self._ring, totp_context(holder.tenant_id, holder.subject_id, factor_id), secret)
        row = await self._db.one(
            _BEGIN,
            self._clock(),
            holder.tenant_id,
            holder.by,
            holder.half.hash() if holder.half else None,
            holder.subject_kind,
            holder.subject_id,
            RECENT,
            factor_id,
            stored,
            key_id,
        )
        if holder.half and row["outcome"] != "begun":
            raise sign_in_over()
        _check(row["outcome"])
        return _shown(holder, secret)

    async def pending(self, holder: Holder) -> Enrolment | None:
        """The app that this holder is setting up, to be shown again."""
        found = await self._pending(holder)
        return _shown(holder, found[1]) if found else None

    async def confirm(self, session: LiveSession, code: str, client: Client) -> None:
        """Puts the app in force that this session is setting up, in place of the one before.

        All other sessions end, known devices are strangers again, the person is told. Raises `InvalidRequest`, also
        for a wrong code: the secret is the holder's own, so there is nothing to guess. And `Forbidden`.
        """
        typed = totp.read_code(code, "/code")
        now = self._clock()
        found = await self._pending(Holder.of(session))
        if found is None:
            raise Forbidden(_REFUSALS["over"])
        factor_id, secret = found
        step = totp.matching_step(secret, typed, now)
        if step is None:
            clock = totp.wrong_clock(secret, typed, now)
            hint = totp.clock_hint(clock) if clock is not None else _NOT_SHOWN
            raise InvalidRequest(FieldError("/code", hint))
        row = await self._db.one(
            _CONFIRM,
            now,
            session.tenant_id,
            session.session_id,
            session.subject.kind,
            session.subject.id,
            RECENT,
            factor_id,
            step,
            self._channels,
            client.as_json(),
        )
        self._changed(session, row["outcome"])

    async def remove(self, session: LiveSession, client: Client) -> None:
        """Takes app and backup codes away; with the same effects. Raises `Forbidden`, and `NotFound` for nothing."""
        row = await self._db.one(
            _REMOVE,
            self._clock(),
            session.tenant_id,
            session.session_id,
            session.subject.kind,
            session.subject.id,
            RECENT,
            self._sessions.admins_must,
            self._channels,
            client.as_json(),
        )
        self._changed(session, row["outcome"])

    async def reset(
        self, tenant_id: UUID, subject_kind: str, subject_id: UUID, *, actor: Actor, client: Client
    ) -> bool:
        """The same for somebody who lost theirs: every session of theirs ends. False when there was nothing."""
        row = await self._db.one(
            _RESET,
            self._clock(),
            tenant_id,
            subject_kind,
            subject_id,
            actor.kind,
            actor.id,
            self._channels,
            client.as_json(),
        )
        self._wake_worker()
        return bool(row["done"])

    async def new_backup_codes(self, session: LiveSession, client: Client) -> Sequence[str]:
        """Ten new codes, shown this once; the old ones are void. Raises `Forbidden`."""
        codes = backup_codes.new_codes()
        ids = [uuid4() for _ in codes]
        key_id, stored = "", []
        for code_id, code in zip(ids, codes, strict=True):
            context = backup_context(session.tenant_id, session.subject.id, code_id)
            digest = backup_codes.digest(backup_codes.read_code(code, ""))
            key_id, kept = encrypt(self._ring, context, digest)
            stored.append(kept)
        row = await self._db.one(
            _REPLACE,
            self._clock(),
            session.tenant_id,
            session.session_id,
            session.subject.kind,
            session.subject.id,
            RECENT,
            ids,
            stored,
            key_id,
            self._channels,
            client.as_json(),
        )
        self._changed(session, row["outcome"])
        return codes

    async def _pending(self, holder: Holder) -> tuple[UUID, bytes] | None:
        row = await self._db.row(_PENDING, holder.tenant_id, holder.by, holder.subject_kind, holder.subject_id)
        if row is None:
            return None
        context = totp_context(holder.tenant_id, holder.subject_id, row["factor"])
        return row["factor"], decrypt(self._ring, row["key_id"], context, row["secret"])

    def _changed(self, session: LiveSession, outcome: str) -> None:
        _check(outcome)
        self._sessions.forget(session)
        self._wake_worker()


def totp_context(tenant_id: UUID, subject_id: UUID, factor_id: UUID) -> bytes:
    """The place that an app's secret is encrypted for: moved to another person's row it is worth nothing."""
    return b"totp:" + tenant_id.bytes + subject_id.bytes + factor_id.bytes


def backup_context(tenant_id: UUID, subject_id: UUID, code_id: UUID) -> bytes:
    """The place that a backup code's hash is encrypted for."""
    return b"backup-code:" + tenant_id.bytes + subject_id.bytes + code_id.bytes


def _account(subject_kind: str, slug: str, email: str | None) -> str:
    """How the app tells this account from others of the same issuer."""
    return slug if subject_kind == "tenant" or email is None else email


def _shown(holder: Holder, secret: bytes) -> Enrolment:
    address = totp.uri(secret, holder.issuer, holder.account)
    return Enrolment(totp.show_secret(secret), address, totp.qr_svg(address))


def _check(outcome: str) -> None:
    if outcome == "none":
        raise NotFound(_REFUSALS[outcome])
    if outcome in _REFUSALS:
        raise Forbidden(_REFUSALS[outcome])
