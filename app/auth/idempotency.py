"""Doing once what is asked for twice: a caller who lost our answer sends the same again, and gets the same answer.

After draft-ietf-httpapi-idempotency-key-header. Only what was done is kept: a refusal changed nothing, so the same
call may be tried again. An answer may name people, so it is kept encrypted, for a day; the secrets of answers that
show one are not to be kept at all.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.auth.encryption import decrypt, encrypt
from app.errors import FieldError, InvalidRequest, KeyInUse, KeyReused
from app.keys import KeyRing
from app.storage import SYSTEM_TENANT
from app.storage.db import Database

LIFE: Final = timedelta(hours=24)
# Nothing that is done once takes longer.
_PATIENCE: Final = timedelta(minutes=2)
_LONGEST_KEY: Final = 255

_BEGIN: Final = "SELECT * FROM fn.begin_once($1, $2, $3, $4, $5, $6, $7)"
_END: Final = "SELECT fn.end_once($1, $2, $3, $4, $5, $6)"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call that is to be done once. `answer` is that of the first time; None: this is the first time."""

    caller: UUID
    key: str
    begun_at: datetime
    answer: bytes | None = None


class Idempotency:
    """Keeps answers for a day. Every call is one round trip and raises `Unavailable` when the database is away."""

    def __init__(self, db: Database, ring: KeyRing, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._ring = ring
        self._clock = clock

    async def begin(self, caller: UUID, key: str, *request: bytes) -> Attempt:
        """Begins, or finds the answer. `request` is all that makes two calls the same.

        Raises `InvalidRequest` for what is no key, `KeyReused` where it belongs to another request, and `KeyInUse`
        where the first call is still under way.
        """
        if not 0 < len(key) <= _LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise InvalidRequest(
                FieldError("", f"An Idempotency-Key has 1 to {_LONGEST_KEY} printable ASCII characters.")
            )
        now = self._clock()
        row = await self._db.one(_BEGIN, now, SYSTEM_TENANT, caller, key, _fingerprint(request), _PATIENCE, LIFE)
        if row["outcome"] == "mismatch":
            raise KeyReused
        if row["outcome"] == "running":
            raise KeyInUse
        if row["outcome"] == "begun":
            return Attempt(caller, key, now)
        return Attempt(caller, key, now, decrypt(self._ring, row["key_id"], context_of(caller, key), row["answer"]))

    async def done(self, attempt: Attempt, answer: bytes) -> None:
        """Keeps the answer for a day."""
        key_id, stored = encrypt(self._ring, context_of(attempt.caller, attempt.key), answer)
        await self._db.run(_END, SYSTEM_TENANT, attempt.caller, attempt.key, attempt.begun_at, key_id, stored)

    async def undone(self, attempt: Attempt) -> None:
        """It was refused or failed: the next call with this key is the first one again."""
        await self._db.run(_END, SYSTEM_TENANT, attempt.caller, attempt.key, attempt.begun_at, None, None)


def _fingerprint(request: tuple[bytes, ...]) -> bytes:
    digest = hashlib.sha256()
    for part in request:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def context_of(caller: UUID, key: str) -> bytes:
    """The place that an answer is encrypted for."""
    return b"idempotency:" + caller.bytes + key.encode()
