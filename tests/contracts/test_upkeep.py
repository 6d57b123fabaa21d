"""What the worker does beside sending: clears away what has had its time, warns, and goes on whatever fails."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from app.delivery.outage import Outage
from app.storage.db import Database
from app.worker import _regularly, assess_attacks, tidy
from tests.conftest import Clock
from tests.people import add_tenant

FLEET = UUID(int=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MINUTE = timedelta(minutes=1)

# Table, the row's columns with `age` for "so long ago", and the age at which it goes.
_KINDS: list[tuple[str, dict[str, Any], timedelta]] = [
    ("outbox", {"kind": "decoy", "state": "void", "created_at": "age"}, 45 * MINUTE),
    ("outbox", {"kind": "code", "state": "sent", "created_at": "age"}, DAY),
    ("quota", {"sends": [], "seen_at": "age"}, HOUR),
    ("activity", {"shard": 0, "slot": "age"}, 15 * DAY),
    ("attack_modes", {"since": "age", "until": "age"}, DAY),
    ("devices", {"subject_kind": "tenant", "expires_at": "age"}, timedelta()),
    ("devices", {"subject_kind": "tenant", "expires_at": "later", "revoked_at": "age"}, 30 * DAY),
    ("sign_in_links", {"subject_kind": "tenant", "expires_at": "age"}, DAY),
    ("challenges", {"subject_kind": "member", "expires_at": "age"}, 45 * MINUTE),
    ("claims", {"email": "ana@home.example", "expires_at": "age"}, timedelta()),
    ("half_sign_ins", {"subject_kind": "member", "expires_at": "age"}, 45 * MINUTE),
    ("idempotency_keys", {"key": "k", "fingerprint": b"f", "begun_at": "age"}, DAY),
    ("repeats", {"id": b"i", "fingerprint": b"f", "begun_at": "age"}, 2 * MINUTE),
    ("sessions", {"subject_kind": "member", "expires_at": "age"}, 30 * DAY),
    ("provider_reports", {"state": "failed", "unhealthy": False, "received_at": "age"}, 2 * MINUTE),
    ("refusals", {"recipient_key": b"r", "reason": "hourly", "minute": "age"}, 30 * DAY),
    (
        "door_refusals",
        {"reason": "address", "network": "192.0.2.1", "hour": "age", "first_at": "age", "last_at": "age"},
        30 * DAY,
    ),
    ("send_counts", {"count": 1, "since": "age"}, 2 * DAY),
]
_OF_ANY_ROW: dict[str, dict[str, Any]] = {
    "outbox": {"channel": "email", "available_at": "old", "expires_at": "old", "updated_at": "old"},
    "devices": {"created_at": "old", "seen_at": "old"},
    "sign_in_links": {"secret_hash": b"", "created_at": "old"},
    "challenges": {
        "recipient_key": b"r",
        "lane": "",
        "decoy": False,
        "purpose": "sign_in",
        "channel": "email",
        "code_length": 6,
        "key_id": "k",
        "max_attempts": 5,
        "locale": "en",
        "created_at": "old",
        "sent_at": "old",
        "resend_at": "old",
    },
    "claims": {"locale": "en", "created_at": "old"},
    "half_sign_ins": {"secret_hash": b"", "next": "totp", "kind": "api", "methods": ["otp:email"], "created_at": "old"},
    "sessions": {
        "kind": "api",
        "methods": ["otp:email"],
        "authenticated_at": "old",
        "created_at": "old",
        "seen_at": "old",
    },
}
_NAMED: dict[str, str] = {"provider_reports": "report_key", "send_counts": "name"}


async def add(db: Database, table: str, columns: dict[str, Any], owner: UUID, now: datetime, age: timedelta) -> None:
    times = {"age": now - age, "old": now - 40 * DAY, "later": now + DAY}
    values = {**_OF_ANY_ROW.get(table, {}), **columns}
    filled = {name: times.get(value, value) if isinstance(value, str) else value for name, value in values.items()}
    if table in _NAMED:
        filled[_NAMED[table]] = f"{owner}"
    else:
        filled["tenant_id"] = owner
    if table in _OF_ANY_ROW:
        filled |= {"id": uuid4()}
    if "subject_kind" in filled:
        filled |= {"subject_id": owner}
    if table == "idempotency_keys":
        filled |= {"caller": owner}
    if table == "claims":
        filled |= {"member_id": owner}
    if table == "quota":
        filled |= {"recipient_key": b"r"}
    places = ", ".join(f"${n}" for n in range(1, len(filled) + 1))
    async with db.every_tenant() as connection:
        await connection.execute(f"INSERT INTO {table} ({', '.join(filled)}) VALUES ({places})", *filled.values())


async def left(db: Database, table: str, owner: UUID) -> int:
    column = _NAMED.get(table, "tenant_id")
    async with db.every_tenant() as connection:
        number: int = await connection.fetchval(
            f"SELECT count(*) FROM {table} WHERE {column} = $1", str(owner) if table in _NAMED else owner
        )
    return number


@pytest.mark.parametrize(("table", "columns", "life"), _KINDS)
async def test_each_thing_goes_when_it_has_had_its_time(
    db: Database, clock: Clock, table: str, columns: dict[str, Any], life: timedelta
) -> None:
    """A second before it is still there, a second later it is gone."""
    tenant = await add_tenant(db, clock())
    second = timedelta(seconds=1)
    await add(db, table, columns, tenant.id, clock(), life - second)
    await tidy(db, since=clock(), now=clock())
    assert await left(db, table, tenant.id) == 1
    clock.forward(seconds=2)
    await tidy(db, since=clock(), now=clock())
    assert await left(db, table, tenant.id) == 0


@pytest.mark.parametrize("changes", [{"wrong": "guess"}, {"locked_until": "later"}])
async def test_what_counts_against_a_guesser_is_kept(db: Database, clock: Clock, changes: dict[str, Any]) -> None:
    """A quota row remembers the day's wrong guesses, and a lock, long after its last send."""
    tenant = await add_tenant(db, clock())
    wrong = [clock() - 23 * HOUR] if "wrong" in changes else []
    columns = {"sends": [], "seen_at": "age", "wrong": wrong} | {k: v for k, v in changes.items() if k != "wrong"}
    await add(db, "quota", columns, tenant.id, clock(), 23 * HOUR)
    await tidy(db, since=clock(), now=clock())
    assert await left(db, "quota", tenant.id) == 1
    clock.forward(days=1, seconds=1)
    await tidy(db, since=clock(), now=clock())
    assert await left(db, "quota", tenant.id) == 0


async def test_slugs_that_nobody_has_are_forgotten_within_hours(db: Database, clock: Clock) -> None:
    """Their activity goes once attacks were judged by it; a tenant's and the fleet's stay for the usual hour."""
    tenant, nobody = (await add_tenant(db, clock())).id, uuid4()
    for owner in (tenant, nobody, FLEET):
        await add(db, "activity", {"shard": 3, "slot": "age"}, owner, clock(), 2 * HOUR + MINUTE)
    await tidy(db, since=clock(), now=clock())
    assert [await left(db, "activity", owner) > 0 for owner in (tenant, nobody, FLEET)] == [True, False, True]


async def test_an_attack_is_warned_of_once(db: Database, clock: Clock) -> None:
    """By the tenant's id; the next look finds nothing new."""
    tenant = await add_tenant(db, clock())
    await add(db, "activity", {"shard": 0, "slot": "age", "wrong": 101}, tenant.id, clock(), MINUTE)
    with capture_logs() as logs:
        await assess_attacks(db, clock())
        await assess_attacks(db, clock())
    assert [log["tenant_id"] for log in logs if log["tenant_id"] == tenant.id] == [tenant.id]
    assert {log["log_level"] for log in logs} == {"warning"}
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM attack_modes; DELETE FROM activity")


async def test_a_chore_that_stumbles_is_done_again() -> None:
    """It is told, and it neither ends the worker nor itself."""
    done = asyncio.Event()
    tries = 0

    async def stumble() -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            done.set()
        raise ZeroDivisionError

    with capture_logs() as logs:
        task = asyncio.create_task(_regularly(0, stumble, Outage("PostgreSQL")))
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert logs[0]["event"] == "A chore of the worker failed"
