"""How long an answer takes tells nothing about which tenants exist. Members: `test_member_timing.py`."""

from pathlib import Path
from typing import Final

import pytest

from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.timing import LATE, Arm, assert_alike, lengths, measured

_REACHABLE: Final = {"email": "'owner@' || s || '.example'", "status": "'active'"}
ARMS: Final = {
    "known": Arm("know", _REACHABLE),
    "unknown": Arm("none"),
    "suspended": Arm("susp", _REACHABLE | {"status": "'suspended'"}),
    "contactless": Arm("mute", _REACHABLE | {"email": "NULL"}),
    "known contact": Arm("name", _REACHABLE, body={"identifier": "owner@{slug}.example"}),
    "unknown contact": Arm("miss", _REACHABLE, body={"identifier": "other@{slug}.example"}),
    "a millisecond later": Arm(LATE),
}


@pytest.mark.parametrize(("rounds", "allowed"), lengths(400))
async def test_time_tells_nothing(
    settings: Settings, db: Database, clock: Clock, tmp_path: Path, rounds: int, allowed: float
) -> None:
    """Nobody's, suspended, contactless and known tenants, right and wrong contacts: AUC about 0.5; 1 ms more shows."""
    times, _ = await measured(ARMS, rounds, settings, db, clock, tmp_path)
    pairs = dict.fromkeys(("unknown", "suspended", "contactless"), "known")
    pairs |= {"unknown contact": "known contact"}
    assert_alike(times, pairs, allowed, control=("a millisecond later", "unknown"))
