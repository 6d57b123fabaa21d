"""How long an answer takes tells nothing about who is a member, who has a password, and whose address is whose.

Hashing takes a hundred times as long as all the rest, and as much longer by chance as would hide a millisecond. So
everybody's hashes are cheap here, which leaves what is around them; that nobody's hash costs as much as somebody's is
a matter of parameters, see `test_nobodys_password_costs_the_same_work`.
"""

import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import pytest
from argon2 import PasswordHasher, extract_parameters

from app.auth import passwords
from app.auth.passwords import Passwords
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.people import CONSENT
from tests.timing import LATE, Arm, assert_alike, lengths, measured

_CHEAPLY: Final = """
from argon2 import PasswordHasher
from app.auth import passwords
passwords._HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
passwords._NOBODYS = passwords._HASHER.hash("of nobody")
"""
_HASH: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("a window left ajar")

_HOME: Final = {"email": "'owner@' || s || '.example'", "status": "'active'"}
_OPEN: Final = _HOME | {"policy": """'{"registration": "open"}'"""}
_SHOP: Final = _HOME | {"policy": """'{"first_factor": "password"}'"""}
_ANA: Final = {"email": "'ana@' || s || '.example'"}
_GONE: Final = _ANA | {"status": "'suspended'"}
_WITH_PASSWORD: Final = {"password_hash": f"'{_HASH}'"}

_ASKS: Final = {"identifier": "ana@{slug}.example"}
_OTHER: Final = {"identifier": "eve@{slug}.example"}
_RESET: Final = {"purpose": "reset"}
_GUESS: Final = {"password": "a window left shut"}
_NEW: Final = {"name": "Ana", "email": "ana@{slug}.example", "consent": CONSENT}


def _guess(prefix: str, member: dict[str, str] | None, body: dict[str, str] = _ASKS) -> Arm:
    return Arm(prefix, _SHOP, member, body | _GUESS, status=401)


ARMS: Final = {
    "code: member": Arm("came", _HOME, _ANA, _ASKS),
    "code: nobody": Arm("cano", _HOME, _ANA, _OTHER),
    "code: suspended": Arm("casu", _HOME, _GONE, _ASKS),
    "open: member": Arm("opme", _OPEN, _ANA, _ASKS),
    "open: nobody": Arm("opno", _OPEN, _ANA, _OTHER),
    "password: wrong": _guess("pawr", _ANA | _WITH_PASSWORD),
    "password: nobody": _guess("pano", _ANA | _WITH_PASSWORD, _OTHER),
    "password: none set": _guess("pase", _ANA),
    "password: suspended": _guess("pasu", _GONE | _WITH_PASSWORD),
    "password: no tenant": Arm("pate", body=_ASKS | _GUESS, status=401),
    "register: taken": Arm("reta", _OPEN, _ANA, _NEW, "members"),
    "register: new": Arm("rene", _OPEN, None, _NEW, "members"),
    "reset: member": Arm("rsme", _SHOP, _ANA | _WITH_PASSWORD, _ASKS | _RESET),
    "reset: nobody": Arm("rsno", _SHOP, _ANA | _WITH_PASSWORD, _OTHER | _RESET),
    "reset: suspended": Arm("rssu", _SHOP, _GONE | _WITH_PASSWORD, _ASKS | _RESET),
    "a millisecond later": Arm(LATE, body=_OTHER),
    "no tenant": Arm("gone", body=_OTHER),
}
PAIRS: Final = {
    "code: nobody": "code: member",
    "code: suspended": "code: member",
    "open: nobody": "open: member",
    "password: nobody": "password: wrong",
    "password: none set": "password: wrong",
    "password: suspended": "password: wrong",
    "password: no tenant": "password: wrong",
    "register: taken": "register: new",
    "reset: nobody": "reset: member",
    "reset: suspended": "reset: member",
}


@pytest.mark.parametrize(("rounds", "allowed"), lengths(250))
async def test_time_tells_nothing_of_members(
    settings: Settings, db: Database, clock: Clock, tmp_path: Path, rounds: int, allowed: float
) -> None:
    """By code, password, registration and reset, for every kind of member there is: AUC about 0.5; 1 ms more shows."""
    times, _ = await measured(ARMS, rounds, settings, db, clock, tmp_path, more=_CHEAPLY)
    assert_alike(times, PAIRS, allowed, control=("a millisecond later", "no tenant"))


async def test_nobodys_password_costs_the_same_work() -> None:
    """What somebody is compared with who isn't there has the parameters of a new hash, and takes about as long."""
    stored = await Passwords().hash("a window left ajar")
    assert extract_parameters(passwords._NOBODYS) == extract_parameters(stored)

    async def seconds(against: str | None, typed: str) -> float:
        began = time.perf_counter()
        assert not await Passwords().matches(typed, against)
        return time.perf_counter() - began

    times: dict[str | None, Any] = {stored: [], None: []}
    for _ in range(10):
        for against, taken in times.items():
            taken.append(await seconds(against, "a window left shut"))
    assert 0.5 < median(times[stored]) / median(times[None]) < 2
