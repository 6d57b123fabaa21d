"""The second half of a sign-in: a code of the authenticator app or a backup code. See `sql/half_sign_ins.sql`."""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final, Literal, NoReturn, TypeAlias
from uuid import UUID

import structlog

from app.audit.log import Client
from app.auth.credentials import MfaToken, SessionKind, sign_in_over
from app.auth.devices import LIFETIME as DEVICE_LIFETIME
from app.auth.encryption import decrypt
from app.auth.factors import backup_codes, totp
from app.auth.factors.service import backup_context, totp_context
from app.auth.sessions import Sessions
from app.auth.signing_in import Fresh, SignIn
from app.auth.standing import seconds_until
from app.errors import GatehouseError, InvalidCode, RateLimited, TooManyAttempts
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database, Row

log: structlog.stdlib.BoundLogger = structlog.get_logger()

# Wrong codes of the app within a day. Three steps count at a time, so 30 x 3e-6 stays below 1e-4 (security.md); a
# backup code, which can't be guessed, is taken all the same, so nobody is locked out.
GUESSES_A_DAY: Final = 30

With: TypeAlias = Literal["totp", "backup_code"]
# What a code proves: that, or that a new app was set up.
_Step: TypeAlias = Literal["totp", "backup_code", "enrol"]

_COUNT: Final = "SELECT * FROM fn.count_factor_attempt($1, $2, $3, $4, $5, $6, $7)"
_FAIL: Final = "SELECT fn.fail_factor_attempt($1, $2, $3, $4, $5, $6, $7, $8)"
_COMPLETE: Final = f"SELECT fn.complete_half_sign_in({', '.join(f'${n}' for n in range(1, 16))}) AS outcome"

_LIMITED: Final = "Too many wrong codes of the app within a day. Use a backup code, or wait."


class SecondSteps:
    """Finishes half sign-ins. What must never be skipped happens in the statements."""

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

    async def finish(
        self,
        mfa_token: str,
        code: str,
        client: Client,
        *,
        using: With,
        kind: SessionKind,
        subjects: Collection[str],
    ) -> SignIn:
        """Begins the session of a half sign-in that this face (`kind`, `subjects`) began.

        Two round trips: the attempt is counted and committed before anything is compared. Raises `InvalidRequest` (no
        attempt spent), `InvalidCode`, `TooManyAttempts`, `RateLimited` after too many wrong codes of the app in a day,
        `CodeExpired` for a token that is over, foreign or not ours.
        """
        read = totp.read_code if using == "totp" else backup_codes.read_code
        return await self._step(mfa_token, read(code, f"/{using}"), client, using, kind, subjects)

    async def enrol_and_finish(
        self, mfa_token: str, code: str, client: Client, *, kind: SessionKind, subjects: Collection[str]
    ) -> SignIn:
        """The same for somebody who had to set an app up first: the first code puts it in force."""
        return await self._step(mfa_token, totp.read_code(code, "/code"), client, "enrol", kind, subjects)

    async def _step(
        self, mfa_token: str, code: str, client: Client, step: _Step, kind: SessionKind, subjects: Collection[str]
    ) -> SignIn:
        token = MfaToken.parse(mfa_token)
        now = self._clock()
        row = await self._db.one(_COUNT, now, token.tenant_id, token.half_id, token.hash(), kind, step, GUESSES_A_DAY)
        if row["outcome"] != "counted":
            raise _refusal(row, now)
        if row["subject_kind"] not in subjects:
            raise sign_in_over()
        if step == "backup_code":
            found: int | UUID | None = self._backup_code(row, token, code)
        else:
            found = totp.matching_step(self._secret(row, token), code, now, after=row["last_step"])
        outcome = "wrong"
        fresh = Fresh.new(self._ring, now, token.tenant_id, kind, row["device_id"] if step != "enrol" else None)
        if found is not None:
            outcome = await self._complete(now, token, row, found, fresh, client)
        if outcome in {"wrong", "replayed"}:
            await self._fail(now, token, row, code, step, client)
        signed_in = self._sessions.outcome(now, outcome, row, fresh)
        if not isinstance(signed_in, SignIn):
            raise sign_in_over()
        if step != "totp":
            self._wake_worker()
        return signed_in

    async def _fail(self, now: datetime, token: MfaToken, row: Row, code: str, step: _Step, client: Client) -> NoReturn:
        """Leaves the evidence, with how wrong the app's clock is where the code tells. Raises what becomes of it.

        Only who has the secret finds such a code with any chance worth speaking of. Whoever guesses one of the past has
        learnt nothing, and one of the future, once told of, signs nobody in (`told_steps`).
        """
        clock = None
        if step != "backup_code":
            clock = totp.wrong_clock(self._secret(row, token), code, now, after=row["last_step"])
        here = totp.step_at(now)
        told = here + clock if clock is not None and clock > 0 else None
        seconds = clock * totp.SECONDS if clock is not None else None
        await self._db.run(
            _FAIL, now, token.tenant_id, token.half_id, step, client.as_json(), seconds, row["factor"], told
        )
        if seconds is not None:
            log.warning(
                "The clock of an authenticator app is wrong",
                seconds=seconds,
                tenant=row["slug"],
                subject_kind=row["subject_kind"],
            )
        if row["attempts_left"] == 0:
            raise TooManyAttempts(seconds_until(row["expires_at"], now))
        raise InvalidCode(row["attempts_left"], totp.clock_hint(clock) if clock is not None else None)

    def _secret(self, row: Row, token: MfaToken) -> bytes:
        context = totp_context(token.tenant_id, row["subject"], row["factor"])
        return decrypt(self._ring, row["key_id"], context, row["secret"])

    def _backup_code(self, row: Row, token: MfaToken, code: str) -> UUID | None:
        found = None
        for code_id, stored, key_id in zip(
            row["code_ids"] or (), row["code_hashes"] or (), row["code_keys"] or (), strict=True
        ):
            context = backup_context(token.tenant_id, row["subject"], code_id)
            # All of them are looked at, so the time says nothing about which it was.
            if backup_codes.matches(code, decrypt(self._ring, key_id, context, stored)):
                found = code_id
        return found

    async def _complete(
        self, now: datetime, token: MfaToken, row: Row, found: int | UUID, fresh: Fresh, client: Client
    ) -> str:
        completed = await self._db.one(
            _COMPLETE,
            now,
            token.tenant_id,
            token.half_id,
            row["factor"],
            None if isinstance(found, UUID) else found,
            found if isinstance(found, UUID) else None,
            fresh.session_id,
            fresh.kind,
            fresh.cookie_hash,
            fresh.refresh_hash,
            self._ttl,
            client.as_json(),
            fresh.device_id,
            DEVICE_LIFETIME,
            self._channels,
        )
        outcome: str = completed["outcome"]
        return outcome


def _refusal(row: Row, now: datetime) -> GatehouseError:
    match row["outcome"]:
        case "too-many-attempts":
            return TooManyAttempts(seconds_until(row["expires_at"], now))
        case "limited":
            return RateLimited(seconds_until(row["retry_at"], now), policy="factor", detail=_LIMITED)
        case _:
            return sign_in_over()
