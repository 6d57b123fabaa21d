"""Challenges: a code is asked for, sent again, checked. One statement a step; see `sql/challenges.sql`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from app.audit.log import Client
from app.auth import codes
from app.auth.asking import Issued, Realm, Wish, door_key, read_identifier
from app.auth.credentials import SessionKind
from app.auth.devices import KnownDevice, read_device_token
from app.auth.limits import AddressLimiter, Admission
from app.auth.sessions import Sessions
from app.auth.signing_in import Outcome
from app.auth.standing import Status, concealed_state, disclosed_state, ended, refusal, seconds_until
from app.errors import CodeExpired, DeliveryFailed, InvalidCode, RateLimited, TooManyAttempts
from app.keys import KeyRing, keyed_hash
from app.settings import Settings
from app.storage.db import Database, Row

_REQUEST: Final = f"SELECT * FROM fn.request_code({', '.join(f'${n}' for n in range(1, 31))})"
_OPEN: Final = "SELECT * FROM fn.open_challenge($1, $2, $3, $4, $5)"
_RESEND: Final = f"SELECT * FROM fn.resend_code({', '.join(f'${n}' for n in range(1, 21))})"
_COUNT: Final = "SELECT * FROM fn.count_attempt_v2($1, $2, $3, $4)"
_FAIL: Final = "SELECT fn.fail_attempt($1, $2, $3, $4, $5)"
_STATUS: Final = "SELECT * FROM fn.challenge_status($1, $2, $3, $4)"
# Whose address has paid.
_PAID: Final = Admission()

_NEWER_SENT: Final = "A newer code was sent. Use that one."


@dataclass(frozen=True, slots=True)
class Proof:
    """A right code: the challenge, and the row of `fn.count_attempt_v2` that was compared."""

    challenge_id: UUID
    counted: Row
    at: datetime


class Challenges:
    """Asks for codes and checks them, for every face. What must never be skipped happens in the statements."""

    def __init__(
        self,
        db: Database,
        ring: KeyRing,
        settings: Settings,
        sessions: Sessions,
        limiter: AddressLimiter,
        clock: Callable[[], datetime],
        wake_worker: Callable[[], None],
    ) -> None:
        self._db = db
        self._ring = ring
        self._settings = settings
        self._sessions = sessions
        self._limiter = limiter
        self._clock = clock
        self._wake_worker = wake_worker
        self._channels = list(settings.providers)

    async def request(
        self,
        realm: Realm,
        client: Client,
        *,
        identifier: str | None = None,
        channel: str | None = None,
        locale: str = "en",
        disclose: bool = False,
        device_token: str | None = None,
    ) -> Issued:
        """Sends a code to the realm's contact, or to whoever `identifier` (email or E.164 phone) names.

        A `device_token` of an earlier sign-in gives this client its own quota lane; any other is ignored.

        One round trip. Raises `InvalidRequest`, `RateLimited`; with `disclose` also `TenantNotFound`,
        `TenantSuspended`, `ContactMissing`, `ChannelUnavailable`: everyone else gets a decoy for those.
        """
        wish = Wish(*read_identifier(identifier), channel=channel, locale=locale, disclose=disclose)
        device = read_device_token(self._ring, realm.slug, device_token, self._clock())
        admission = await self.admit(client, device)
        issued = await self.issue(realm, wish, client, device, admission)
        assert issued is not None  # noqa: S101 - nothing else was allowed for
        return issued

    async def admit(self, client: Client, device: KnownDevice | None = None) -> Admission:
        """Spends one of what an address, or a known device, may ask for in an hour. Raises `RateLimited`."""
        return await self._limiter.admit(self._clock(), client.limited_by, device.device_id if device else None)

    async def issue(
        self,
        realm: Realm,
        wish: Wish,
        client: Client,
        device: KnownDevice | None = None,
        admission: Admission = _PAID,
    ) -> Issued | None:
        """Sends the code that is wished for; None where none is needed and the wish allows for that.

        One round trip. The `admission` comes from `admit` and is settled here, unless the caller has settled it. Raises
        what `request` does, for a registration `InvalidRequest` where it has to come with a password, and with
        `disclose` `Forbidden` and `AlreadyExists` for claims.
        """
        now = self._clock()
        challenge_id = codes.new_challenge_id()
        made = codes.candidates(self._ring.current, challenge_id, 1)
        registering = wish.purpose == "register"
        row = await self._db.one(
            _REQUEST,
            now,
            realm.slug,
            self.stand_in(realm),
            wish.email,
            wish.phone,
            wish.channel,
            self._channels,
            wish.disclose,
            challenge_id,
            uuid4(),
            self.recipient_key(realm, wish.email or wish.phone or ""),
            made.salt,
            made.key_id,
            made.digest_6,
            made.digest_8,
            made.digest_decoy,
            self._settings.otp_length,
            self._settings.otp_registration_ttl_seconds if registering else self._settings.otp_ttl_seconds,
            self._settings.otp_max_attempts,
            self._settings.otp_hourly_limit,
            self._settings.otp_resend_cooldown_seconds,
            wish.locale,
            client.as_json(),
            device.device_id if device else None,
            self._settings.otp_known_device_hourly_limit,
            wish.purpose,
            wish.proven,
            {**wish.claim, "always": not wish.or_none},
            self.door_key(realm, wish.email or wish.phone or ""),
            admission.known_only,
        )
        await admission.settle(known=row["device_known"])
        if row["outcome"] == "no-code-needed":
            return None
        return self._issued(row, challenge_id, now)

    async def resend(
        self,
        realm: Realm,
        challenge_id: str,
        client: Client,
        *,
        channel: str | None = None,
        disclose: bool = False,
        device_token: str | None = None,
    ) -> Issued:
        """Sends a new code for the same challenge and voids the old one; attempts are kept.

        A known device spends of its own limit, as in `request`: a flood behind the same address doesn't keep it from
        its new code. Two round trips. Raises `CodeExpired`, `TooManyAttempts`, `RateLimited`, and with `disclose` what
        `request` raises.
        """
        identity = self._parse_id(challenge_id)
        now = self._clock()
        device = read_device_token(self._ring, realm.slug, device_token, now)
        admission = await self.admit(client, device)
        opened = await self._db.one(
            _OPEN, now, realm.slug, self.stand_in(realm), identity, device.device_id if device else None
        )
        await admission.settle(known=opened["device_known"])
        if opened["outcome"] != "open":
            raise ended(opened["outcome"], opened["expires_at"], now)
        generation = opened["generation"]
        made = codes.candidates(self._ring.current, identity, generation + 1)
        row = await self._db.one(
            _RESEND,
            now,
            realm.slug,
            self.stand_in(realm),
            identity,
            generation,
            channel,
            self._channels,
            disclose,
            uuid4(),
            made.salt,
            made.key_id,
            made.digest_6,
            made.digest_8,
            made.digest_decoy,
            self._settings.otp_length,
            self._settings.otp_ttl_seconds,
            self._settings.otp_hourly_limit,
            self._settings.otp_resend_cooldown_seconds,
            client.as_json(),
            self._settings.otp_known_device_hourly_limit,
        )
        return self._issued(row, identity, now)

    async def verify(
        self,
        realm: Realm,
        challenge_id: str,
        code: str,
        client: Client,
        *,
        kind: SessionKind = "api",
        device_name: str | None = None,
        remember: bool = False,
    ) -> Outcome:
        """Checks a code and begins a session, or half of a sign-in where a second factor is to follow.

        Two round trips: the attempt is counted and committed before anything is compared. Raises what `prove` does.
        """
        proof = await self.prove(realm, challenge_id, code, client)
        signed_in = await self._sessions.begin(
            proof.at,
            proof.counted,
            challenge_id=proof.challenge_id,
            kind=kind,
            device_name=device_name,
            client=client,
            remember=remember,
        )
        if signed_in is None:
            raise CodeExpired
        return signed_in

    async def prove(self, realm: Realm, challenge_id: str, code: str, client: Client) -> Proof:
        """Counts an attempt, then compares. What the code proves is still to be used up, once.

        Raises `InvalidRequest` (no attempt spent), `InvalidCode`, `TooManyAttempts`, `CodeExpired`.
        """
        typed = codes.clean(code)
        identity = self._parse_id(challenge_id)
        now = self._clock()
        row = await self._db.one(_COUNT, now, realm.slug, self.stand_in(realm), identity)
        if row["outcome"] != "counted":
            raise ended(row["outcome"], row["expires_at"], now)
        keys = self._ring.find(row["key_id"])
        if keys is None:
            # Its secret has left the ring: nothing can prove this code any more.
            raise CodeExpired
        if not codes.matches(keys, identity, row["generation"], row["salt"], typed, row["digest"]):
            earlier = self._was_sent_earlier(identity, row, typed)
            await self._db.run(_FAIL, now, row["tenant"], identity, client.as_json(), earlier)
            if row["attempts_left"] == 0:
                raise TooManyAttempts(seconds_until(row["expires_at"], now))
            raise InvalidCode(row["attempts_left"], _NEWER_SENT if earlier else None)
        return Proof(identity, row, now)

    def _was_sent_earlier(self, identity: UUID, row: Row, typed: str) -> bool:
        """Whether a wrong code is one that a resend voided. It signs nobody in; a decoy costs the same comparisons."""
        digests = row["earlier_digests"]
        generations = range(row["generation"] - len(digests), row["generation"])
        found = False
        for n, salt, digest, key_id in zip(
            generations, row["earlier_salts"], digests, row["earlier_keys"], strict=True
        ):
            keys = self._ring.find(key_id)
            found |= keys is not None and codes.matches(keys, identity, n, salt, typed, digest)
        return found

    async def status(
        self, realm: Realm, challenge_id: str, *, disclose: bool = False, device_token: str | None = None
    ) -> Status:
        """Where a challenge stands; the known device that asked is told what really happened.

        Raises `CodeExpired` for one that isn't this realm's.
        """
        now = self._clock()
        row = await self._db.one(_STATUS, now, realm.slug, self.stand_in(realm), self._parse_id(challenge_id))
        if not row["known"]:
            raise CodeExpired
        device = read_device_token(self._ring, realm.slug, device_token, now)
        known = device is not None and row["device_id"] == device.device_id
        if (disclose or known) and not row["decoy"]:
            state = disclosed_state(now, row["expires_at"], row["end_reason"], row["outbox_state"])
            error = row["error_text"] or DeliveryFailed.default_detail if state == "failed" else None
            channel = row["channel"]
        else:
            state = concealed_state(now, row["sent_at"], row["expires_at"], row["end_reason"])
            channel, error = row["asked_channel"], None
        return Status(state, channel, seconds_until(row["expires_at"], now), row["attempts_left"], error)

    def _issued(self, row: Row, challenge_id: UUID, now: datetime) -> Issued:
        outcome = row["outcome"]
        if outcome in {"rate-limited", "cooling-down"}:
            policy = "hourly" if outcome == "rate-limited" else "cooldown"
            raise RateLimited(seconds_until(row["retry_at"], row["asked_at"]), policy=policy)
        if outcome != "accepted":
            raise refusal(outcome, row["retry_at"], now)
        self._wake_worker()
        return Issued(
            codes.show_challenge_id(challenge_id),
            row["code_length"],
            seconds_until(row["expires_at"], row["asked_at"]),
            seconds_until(row["resend_at"], row["asked_at"]),
        )

    def stand_in(self, realm: Realm) -> UUID:
        """The tenant id of a slug that nobody has."""
        return UUID(bytes=keyed_hash(self._ring.current.recipient, "tenant", realm.slug.encode())[:16])

    def recipient_key(self, realm: Realm, identifier: str) -> bytes:
        """Names a stranger's quota without keeping what was typed."""
        return keyed_hash(self._ring.current.recipient, "recipient", realm.slug.encode(), identifier.encode())

    def door_key(self, realm: Realm, identifier: str) -> bytes:
        """Names the quota of an address, whoever has it."""
        return door_key(self._ring, realm.slug, identifier)

    def _parse_id(self, challenge_id: str) -> UUID:
        """Any string is looked up, so that a malformed id costs and answers what an unknown one does."""
        try:
            return codes.read_challenge_id(challenge_id)
        except ValueError:
            return UUID(bytes=keyed_hash(self._ring.current.recipient, "no-challenge", challenge_id.encode())[:16])
