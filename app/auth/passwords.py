"""Passwords of members: what they may be, how they are kept and checked.

Argon2id by its reference implementation with the parameters of RFC 9106's second recommendation (64 MiB, 3 passes, 4
lanes). Hashing takes a core for tens of milliseconds, so it happens in threads, few at a time: a flood of guesses waits
in line and takes neither the memory nor the event loop from anybody else. The line is short: whoever finds it full is
told at once, and an honest person never waits for a flood to end.
"""

import asyncio
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import FieldError, InvalidRequest, Unavailable

# ASVS 5.0, 6.2.1 and 6.2.9; NIST SP 800-63B-4, section 3.1.1.2.
SHORTEST: Final = 8
LONGEST: Final = 128
# 64 MiB each: at most 256 MiB for passwords in a process.
_AT_ONCE: Final = 4
# Who waits for a turn, at most: four turns, so two seconds on two busy cores. Whoever came behind them would have given
# up before it was theirs.
_WAITING: Final = 4 * _AT_ONCE
# What the door log calls a full line.
FLOOD: Final = "password-flood"
_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4, hash_len=32, salt_len=16)
# At most so many characters are judged by rule, within 15 ms; 72 take seconds.
_JUDGED: Final = 12
_TOO_FEW_GUESSES: Final = 1_000
# What somebody is compared with who isn't there: the hash of 256 bits that were thrown away, by the same parameters,
# so it costs the same work.
_NOBODYS: Final = "$argon2id$v=19$m=65536,t=3,p=4$T/5M/dTv8fPGYNK86YPV8g$36npXvhbhtwNhZldHyBderybi9EepqmTPY90KyytVSY"


def normalise(password: str) -> str:
    """The same password from every keyboard: Unicode's composed form (NIST SP 800-63B-4, section 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def check_new(password: str, *told: str | None, pointer: str = "/password") -> str:
    """A password somebody wants to have, normalised. `told` is what an attacker would try first: name and addresses.

    Raises `InvalidRequest`. Any characters are welcome; nothing is asked for but length and that nobody guesses it.
    """
    chosen = normalise(password)
    if not SHORTEST <= len(chosen) <= LONGEST:
        raise InvalidRequest(FieldError(pointer, f"A password has {SHORTEST} to {LONGEST} characters."))
    plain = chosen.casefold()
    if plain in _common() or len(set(plain)) < 4 or _is_regular(plain):  # noqa: PLR2004 - "aaaabbbb" has two
        raise InvalidRequest(FieldError(pointer, "This password is among those that are tried first. Take another."))
    if any(plain == known.casefold() for known in told if known):
        raise InvalidRequest(FieldError(pointer, "A password can't be your name or your address."))
    return chosen


class Passwords:
    """Hashes and checks passwords, a few at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the line. Raises `Unavailable` at once where it is full: whoever calls, and whomever they name."""
        if self._taken >= _AT_ONCE + _WAITING:
            raise Unavailable(reason=FLOOD)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def hash(self, password: str) -> str:
        """What is stored of a password that `check_new` let pass. Raises `Unavailable` where the line is full."""
        with self.place():
            async with self._turns:
                return await asyncio.to_thread(_HASHER.hash, password)

    async def matches(self, password: str, stored: str | None) -> bool:
        """Whether it is the one; with nothing stored False, after as long. The caller has a `place`."""
        async with self._turns:
            right = await asyncio.to_thread(_verify, password, stored or _NOBODYS)
        return right and stored is not None


def _verify(password: str, stored: str) -> bool:
    try:
        return _HASHER.verify(stored, normalise(password[: LONGEST * 4]))
    except (VerificationError, InvalidHashError):
        return False


@cache
def _common() -> frozenset[str]:
    # Only here: the lists take 12 MB that an installation without passwords doesn't need.
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415

    return frozenset(word for word in FREQUENCY_LISTS["passwords"] if len(word) >= SHORTEST)


def _is_regular(plain: str) -> bool:
    """Whether it is a sequence, repetition or respelling: the lists leave out what the package's rules find.

    Its author calls what falls within a thousand guesses "too guessable".
    """
    # What takes the package long is long, and whoever calls may be anybody.
    if len(plain) > _JUDGED:
        return False
    from zxcvbn import zxcvbn  # noqa: PLC0415 - as above

    return bool(zxcvbn(plain)["guesses"] < _TOO_FEW_GUESSES)


def password_wanted() -> InvalidRequest:
    """What whoever registers without one is told where everybody signs in with a password."""
    return InvalidRequest(FieldError("/password", "This organisation asks for a password."))
