"""What is sent twice happens once: whoever lost our answer sends the same again, and gets the same answer.

An answer may hold a secret that is shown once: the cookie of a session, a token. So it is sealed under a key made of
what only the sender has (`proof`: the cookie, the number of the form, all that was sent) and the key ring. No store has
either, so a dump opens none of it, not even together with SECRET_KEY. It is kept for two minutes.
"""

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.keys import KeyRing, keyed_hash
from app.storage import SYSTEM_TENANT
from app.storage.db import Database

# How long somebody waits before they try again whose connection broke.
LIFE: Final = timedelta(minutes=2)
# Nothing that a form does takes longer; whoever isn't heard of by then has died.
PATIENCE: Final = timedelta(minutes=1)

_BEGIN: Final = "SELECT * FROM fn.begin_repeat($1, $2, $3, $4, $5, $6)"
_END: Final = "SELECT fn.end_repeat($1, $2, $3, $4)"
_NONCE_BYTES: Final = 12

# What began is whoever's turn it is; `running` is somebody else's; `mismatch`: the same key came with something else.
Refused: TypeAlias = Literal["running", "mismatch"]


@dataclass(frozen=True, slots=True)
class Once:
    """Something that is to be done once: `name` is the sender's word for it, `proof` all that was sent with it."""

    name: tuple[bytes, ...]
    proof: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """Ours to do. `begun_at` tells it from a later try under the same name."""

    once: Once
    begun_at: datetime


class Repeats:
    """Keeps answers for two minutes. Every call is one round trip and raises `Unavailable`."""

    def __init__(self, db: Database, ring: KeyRing, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._ring = ring
        self._clock = clock

    async def begin(self, once: Once) -> Turn | bytes | Refused:
        """Our turn to do it, or the answer of the first time, or why it is neither."""
        now = self._clock()
        row = await self._db.one(
            _BEGIN, now, SYSTEM_TENANT, self._id(once), self._of_all("repeat-shape", once), PATIENCE, LIFE
        )
        match row["outcome"]:
            case "begun":
                return Turn(once, now)
            case "done":
                return self._open(once, row["answer"])
            case "mismatch":
                return "mismatch"
            case _:
                return "running"

    async def done(self, turn: Turn, answer: bytes) -> None:
        """Keeps the answer."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + AESGCM(self._seal(turn.once)).encrypt(nonce, zlib.compress(answer, 1), None)
        await self._db.run(_END, SYSTEM_TENANT, self._id(turn.once), turn.begun_at, sealed)

    async def undone(self, turn: Turn) -> None:
        """Nothing happened: whoever sends it again is the first one."""
        await self._db.run(_END, SYSTEM_TENANT, self._id(turn.once), turn.begun_at, None)

    def _open(self, once: Once, sealed: bytes) -> bytes | Refused:
        try:
            return zlib.decompress(AESGCM(self._seal(once)).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None))
        except InvalidTag:
            return "mismatch"

    def _id(self, once: Once) -> bytes:
        return self._hash("repeat", *once.name)

    def _seal(self, once: Once) -> bytes:
        return self._of_all("repeat-seal", once)

    def _of_all(self, purpose: str, once: Once) -> bytes:
        """Of the name as well: a password or code in what was sent could be tried out by whoever has the ring."""
        return self._hash(purpose, str(len(once.name)).encode(), *once.name, *once.proof)

    def _hash(self, purpose: str, *parts: bytes) -> bytes:
        return keyed_hash(self._ring.current.cookie, purpose, *parts)
