"""Somebody owns the database: whatever they do to the audit log behind the application's back is found by name."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import asyncpg
import pytest
from structlog.testing import capture_logs

from app.audit.chain import seal_events
from app.audit.checkpoints import Checkpoint
from app.audit.log import Actor, record
from app.audit.sealing import add_seal, newest_seal, seal_once
from app.audit.verification import verify
from app.errors import InvalidRequest
from app.keys import KeyRing
from app.storage.migrate import upgrade
from tests.auditing import CLIENT, FOREIGN, NOW, OLD_SECRET, RING, SECRET, TENANT, Desk, copy_of, drop, open_desk
from tests.stores import StoresOfTests

_BATCHES, _BATCH = 5, 10


@pytest.fixture(scope="module")
async def sealed_database(stores: StoresOfTests, worker_id: str) -> AsyncIterator[str]:
    """Five sealed batches of ten events, the first of them under the older secret; two checkpoints."""
    name = f"audit_{worker_id}"
    await stores.create_database(name)
    await upgrade(stores.owner_url_for(name), NOW)
    desk = await open_desk(stores, name)
    for batch in range(_BATCHES):
        await desk.write(_BATCH, NOW + timedelta(seconds=30 * batch))
        ring = KeyRing([OLD_SECRET]) if batch == 0 else RING
        assert await desk.seal(NOW + timedelta(seconds=30 * batch), ring) == _BATCH
    await desk.close()
    yield name
    await drop(stores, name)


@pytest.fixture
async def desk(stores: StoresOfTests, sealed_database: str) -> AsyncIterator[Desk]:
    """A copy of its own for each test."""
    async with copy_of(stores, sealed_database) as desk:
        yield desk


async def test_an_untouched_log_is_intact(desk: Desk) -> None:
    """Nobody tampered: nothing is found, with keys of two generations; every event is sealed; checkpoints hold."""
    verdict = await desk.verify()
    assert (verdict.intact, verdict.findings) == (True, [])
    assert (verdict.batches, verdict.events, verdict.unsealed_events) == (_BATCHES, _BATCHES * _BATCH, 0)
    assert verdict.checkpoint == await desk.value("SELECT checkpoint FROM audit_checkpoints ORDER BY number DESC")
    assert await desk.value("SELECT count(DISTINCT key_id) FROM audit_seals") == 2


async def test_ten_thousand_events_stay_intact_and_one_changed_one_is_found(desk: Desk) -> None:
    """Full batches: sealing loses none, checking finds one changed byte among ten thousand."""
    await desk.owner.execute("SELECT set_config('app.scope', 'all', false)")
    await desk.owner.execute(
        "INSERT INTO audit_events (tenant_id, at, action, actor_kind, source) "
        "SELECT gen_random_uuid(), $1::timestamptz + n * interval '1 ms', 'code.sent', 'tenant', 'api' "
        "FROM generate_series(1, 10000) n",
        NOW,
    )
    assert await desk.seal() == 10_000
    verdict = await desk.verify()
    assert (verdict.intact, verdict.events, verdict.unsealed_events) == (True, 10_050, 0)
    await desk.tamper("UPDATE audit_events SET user_agent = '' WHERE id = 6789")
    assert [fault[:2] for fault in await desk.faults()] == [("event-changed", 6789)]


_CELLS: Final = (
    "tenant_id = gen_random_uuid()",
    "at = at + interval '1 microsecond'",
    "action = 'code.right'",
    "actor_kind = 'admin'",
    "actor_id = NULL",
    "subject_kind = ''",
    "subject_id = gen_random_uuid()",
    "challenge_id = gen_random_uuid()",
    "source = 'cli'",
    "ip = NULL",
    "user_agent = 'Mozilla/5.1'",
    "request_id = 'r-2'",
    """data = '{"n": 40}'""",
)


async def test_one_changed_cell_is_found(desk: Desk) -> None:
    """Whatever column of an event is changed, that event is named and no other."""
    await desk.tamper("CREATE TABLE kept AS SELECT * FROM audit_events WHERE id = 25")
    for change in _CELLS:
        await desk.tamper(f"UPDATE audit_events SET {change} WHERE id = 25")
        assert await desk.faults() == [("event-changed", 25, 3)], change
        await desk.tamper("DELETE FROM audit_events WHERE id = 25", "INSERT INTO audit_events SELECT * FROM kept")
    assert await desk.faults() == [], "as it was before"


async def test_times_no_clock_shows_are_found_not_stumbled_over(desk: Desk) -> None:
    """Infinity and years before Christ are changes like any other."""
    await desk.tamper(
        "UPDATE audit_events SET at = 'infinity' WHERE id = 5",
        "UPDATE audit_events SET at = '-infinity' WHERE id = 15",
        "UPDATE audit_events SET at = '0044-03-15 BC' WHERE id = 25",
    )
    assert await desk.faults() == [("event-changed", n, n // 10 + 1) for n in (5, 15, 25)]


async def test_one_removed_row_is_found(desk: Desk) -> None:
    """A removed event is named; also the first and the last of a batch, and the very first and last of all."""
    await desk.tamper("DELETE FROM audit_events WHERE id IN (1, 10, 25, 31, 50)")
    assert await desk.faults() == [("event-removed", n, (n - 1) // 10 + 1) for n in (1, 10, 25, 31, 50)]


@pytest.mark.parametrize("event_id", [-7, 0, 25, 50])
async def test_one_inserted_row_is_found(desk: Desk, event_id: int) -> None:
    """A row smuggled in under an id that is taken, or that was never given out, is named; the real one is not."""
    await desk.tamper(
        "INSERT INTO audit_events (tenant_id, at, id, action, actor_kind, source) "
        f"VALUES (gen_random_uuid(), '{NOW.isoformat()}', {event_id}, 'forged', 'tenant', 'api')"
    )
    verdict = await desk.verify()
    assert [(f.fault, f.event_id) for f in verdict.findings] == [("event-inserted", event_id)]
    assert "forged" in verdict.findings[0].sentence


async def test_a_row_inserted_into_a_gap_is_found(desk: Desk) -> None:
    """An id that a rolled back transaction left unused is no place to hide."""
    await desk.db.run("SELECT nextval('audit_event_id')")
    await desk.write(1)
    assert await desk.seal() == 1
    assert await desk.faults() == []
    forged = "INSERT INTO audit_events (tenant_id, at, id, action, actor_kind, source) VALUES (gen_random_uuid(), "
    await desk.tamper(f"{forged}'2026-03-14 09:00Z', 51, 'forged', 'tenant', 'api')")
    assert await desk.faults() == [("event-inserted", 51, 6)]


async def test_a_row_with_an_id_from_the_future_is_found(desk: Desk) -> None:
    """An id above the sequence is not mistaken for an event that is about to be sealed."""
    forged = "INSERT INTO audit_events (tenant_id, at, id, action, actor_kind, source) VALUES (gen_random_uuid(), "
    await desk.tamper(f"{forged}'2026-03-14 09:00Z', 9000, 'forged', 'tenant', 'api')")
    assert await desk.seal() == 0
    assert await desk.faults() == [("event-inserted", 9000, None)]


async def test_swapped_rows_are_found(desk: Desk) -> None:
    """Two events that trade their ids, or their contents, are both named."""
    await desk.tamper("UPDATE audit_events SET id = CASE id WHEN 14 THEN 37 ELSE 14 END WHERE id IN (14, 37)")
    assert await desk.faults() == [("event-changed", 14, 2), ("event-changed", 37, 4)]


async def test_a_removed_batch_is_found(desk: Desk) -> None:
    """A seal that is taken out with all its events leaves a hole, at the start as in the middle."""
    await desk.tamper(
        "DELETE FROM audit_seals WHERE number IN (1, 3)", "DELETE FROM audit_events WHERE id BETWEEN 21 AND 30"
    )
    assert await desk.faults() == [("batch-missing", None, 1), ("batch-missing", None, 3)]


_SEAL_CHANGES: Final = (
    "events = 9",
    "through_id = 1000000",
    "hash = sha256(hash)",
    "mac = sha256(mac)",
    "marks = substr(marks, 27)",
    "marks = NULL",
    "marks = NULL, marks_digest = sha256('')",
    "month = 0, marks = NULL",
    "sealed_at = sealed_at - interval '1 day'",
    "sealed_at = 'infinity'",
    "sealed_at = '0044-03-15 BC'",
    "previous = sha256(previous)",
    "key_id = (SELECT key_id FROM audit_seals WHERE number = 1)",
    "kind = 'removal', month = 30000",
)


@pytest.mark.parametrize("batch", [3, 5])
async def test_a_changed_seal_is_found(desk: Desk, batch: int) -> None:
    """A seal made to fit tampered events is named, once; what it says is not believed."""
    this = f"WHERE number = {batch}"
    await desk.tamper(f"CREATE TABLE kept AS SELECT * FROM audit_seals {this}")
    for change in _SEAL_CHANGES:
        await desk.tamper(f"UPDATE audit_seals SET {change} {this}")
        assert await desk.faults() == [("batch-changed", None, batch)], change
        await desk.tamper(f"DELETE FROM audit_seals {this}", "INSERT INTO audit_seals SELECT * FROM kept")
    assert await desk.faults() == [], "as it was before"


async def test_the_newest_batch_cut_off_is_found_by_checkpoint(desk: Desk) -> None:
    """Events and seal of the newest batch are gone: a checkpoint in the database says that there was more."""
    await desk.tamper("DELETE FROM audit_seals WHERE number = 5", "DELETE FROM audit_events WHERE id > 40")
    assert await desk.faults() == [("chain-truncated", None, 5)]


async def test_a_copy_of_the_checkpoint_outlives_a_thorough_attacker(desk: Desk) -> None:
    """With the checkpoint removed too, or everything, the database looks whole; the copy in the log knows better."""
    copy = Checkpoint.parse(await desk.value("SELECT checkpoint FROM audit_checkpoints WHERE number = 5"))
    assert await desk.faults(copy) == []
    await desk.tamper(
        "DELETE FROM audit_seals WHERE number = 5",
        "DELETE FROM audit_events WHERE id > 40",
        "DELETE FROM audit_checkpoints WHERE number = 5",
    )
    assert await desk.faults() == []
    assert await desk.faults(copy) == [("chain-truncated", None, 5)]
    await desk.write(3, NOW + timedelta(minutes=9))
    await desk.seal(NOW + timedelta(minutes=9))
    assert await desk.faults(copy) == [("batch-changed", None, 5)], "sealed anew, it is another batch"
    await desk.tamper("TRUNCATE audit_seals, audit_checkpoints, audit_events")
    assert await desk.faults(copy) == [("chain-truncated", None, 5)]


async def test_a_genuine_seal_of_another_history_is_found(desk: Desk) -> None:
    """A seal that was cut off, its place taken by a new one, can't be put back: the next seal names the new one."""
    await desk.tamper(
        "CREATE TABLE kept AS SELECT * FROM audit_seals WHERE number = 5",
        "DELETE FROM audit_seals WHERE number = 5",
        "DELETE FROM audit_checkpoints WHERE number = 5",
    )
    assert await desk.seal(NOW + timedelta(hours=1)) == _BATCH
    await desk.write(1)
    assert await desk.seal(NOW + timedelta(hours=1)) == 1
    await desk.tamper("DELETE FROM audit_checkpoints WHERE number = 5")
    assert await desk.faults() == []
    await desk.tamper("DELETE FROM audit_seals WHERE number = 5", "INSERT INTO audit_seals SELECT * FROM kept")
    assert await desk.faults() == [("batch-changed", None, 6)]


async def test_checkpoints_can_not_be_made_up(desk: Desk) -> None:
    """One that is changed in the database is a fault; one that isn't ours is refused as bad input."""
    seal = await head_of(desk)
    with pytest.raises(InvalidRequest):
        await desk.verify(Checkpoint.of(FOREIGN.current, seal, NOW))
    forged = Checkpoint.of(FOREIGN.current, seal, NOW).text()
    await desk.tamper(
        f"UPDATE audit_checkpoints SET checkpoint = '{forged}' WHERE number = 5",
        "UPDATE audit_checkpoints SET checkpoint = 'x', number = 9 WHERE number = 1",
    )
    assert await desk.faults() == [("checkpoint-broken", None, None), ("checkpoint-broken", None, None)]


@pytest.mark.parametrize("hidden", [False, True], ids=["as itself", "under our key's name"])
async def test_resealed_with_another_key_is_found(desk: Desk, hidden: bool) -> None:
    """An attacker who changes an event and makes the seal anew, all rules kept, lacks the key."""
    async with desk.owner.transaction():
        await desk.owner.execute("SELECT set_config('app.scope', 'all', true)")
        await desk.owner.execute("ALTER TABLE audit_seals DISABLE TRIGGER USER")
        await desk.owner.execute("DELETE FROM audit_seals WHERE number = 5")
        head = await newest_seal(desk.owner)
        seal, marks = seal_events(FOREIGN.current, head, 50, [], NOW)
        await add_seal(desk.owner, seal, marks)
        if hidden:
            await desk.owner.execute(f"UPDATE audit_seals SET key_id = '{RING.current.id}' WHERE number = 5")
        await desk.owner.execute("ALTER TABLE audit_seals ENABLE TRIGGER USER")
    assert await desk.faults() == [("batch-changed" if hidden else "batch-forged", None, 5)]


async def test_a_lost_secret_is_told_from_a_changed_row(desk: Desk) -> None:
    """Without the older secret its batch can't be checked, and the sentence says what to do."""
    verdict = await verify(desk.db, KeyRing([SECRET]))
    first = verdict.findings[0]
    assert (verdict.intact, first.fault, first.batch) == (False, "batch-forged", 1)
    assert KeyRing([OLD_SECRET]).current.id in first.sentence
    assert "add that back" in first.sentence


async def test_the_application_itself_can_not_touch_the_chain(desk: Desk) -> None:
    """Its role may add and read, in the all-tenants scope only; even the owner trips over a trigger."""
    async with desk.db.tenant(TENANT) as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit_seals") == 0
        assert await connection.fetchval("SELECT count(*) FROM audit_checkpoints") == 0
    await desk.owner.execute("SELECT set_config('app.scope', 'all', false)")
    for table, change in itertools.product(("audit_seals", "audit_checkpoints"), ("number = 0", None)):
        statement = f"UPDATE {table} SET {change}" if change else f"DELETE FROM {table}"
        async with desk.db.every_tenant() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
                async with connection.transaction():
                    await connection.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await desk.owner.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await desk.owner.execute(f"TRUNCATE {table}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await desk.owner.execute("TRUNCATE audit_events")


async def test_an_event_that_commits_late_is_waited_for(desk: Desk) -> None:
    """While a transaction with a smaller id is open nothing after it is sealed; then both are, in order."""
    async with desk.db.every_tenant() as slow:
        await record(slow, NOW, TENANT, "slow", Actor("tenant"), CLIENT)
        await desk.write(1)
        assert await seal_once(desk.db, RING, NOW, patience=0) == 0
        waiting = asyncio.create_task(seal_once(desk.db, RING, NOW, patience=60))
        verdict = await desk.verify()
        assert (verdict.intact, verdict.unsealed_events) == (True, 1)
    assert await waiting == 2
    assert await desk.faults() == []


async def test_a_writer_that_is_about_to_draw_its_id_is_waited_for(desk: Desk) -> None:
    """A transaction that has begun its statement, but has neither an id nor a transaction number, counts as well."""
    async with desk.db.every_tenant() as slow:
        await slow.execute("LOCK TABLE audit_events IN ROW EXCLUSIVE MODE")
        assert await slow.fetchval("SELECT pg_current_xact_id_if_assigned()") is None
        await desk.write(1)
        assert await seal_once(desk.db, RING, NOW, patience=0) == 0
    assert await desk.seal() == 1


async def test_parallel_writers_and_sealers_lose_no_event(desk: Desk) -> None:
    """Forty transactions commit in any order, some roll back, while two workers seal: each event is sealed once."""
    written = 0
    done = asyncio.Event()
    order = random.Random(7)

    async def writer() -> None:
        nonlocal written
        for _ in range(15):
            try:
                async with desk.db.every_tenant() as connection:
                    events = order.randint(1, 3)
                    for _ in range(events):
                        await record(connection, NOW, TENANT, "code.wrong", Actor("tenant"), CLIENT)
                        await connection.execute("SELECT pg_sleep($1)", order.choice([0, 0.001, 0.01]))
                    if order.random() < 0.2:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                continue
            written += events

    async def sealer() -> int:
        sealed = 0
        while not done.is_set():
            sealed += await desk.seal()
        return sealed

    sealers = [asyncio.create_task(sealer()) for _ in range(2)]
    await asyncio.gather(*(writer() for _ in range(8)))
    done.set()
    sealed = sum(await asyncio.gather(*sealers)) + await desk.seal()
    verdict = await desk.verify()
    assert (verdict.intact, verdict.unsealed_events) == (True, 0)
    assert sealed == written == verdict.events - _BATCHES * _BATCH
    assert verdict.batches > _BATCHES + 1, "sealing went on while events were written"


async def test_checkpoints_go_to_the_log_once_a_minute(desk: Desk) -> None:
    """The log gets each checkpoint as it stands in the database, and none while nothing was sealed."""
    last = NOW + timedelta(seconds=30 * (_BATCHES - 1))
    with capture_logs() as lines:
        for seconds in (10, 20, 59, 61, 62, 200):
            if seconds != 200:
                await desk.write(1)
            await desk.seal(last + timedelta(seconds=seconds))
    stored = await desk.value("SELECT checkpoint FROM audit_checkpoints ORDER BY number DESC OFFSET 1")
    newest = await desk.value("SELECT checkpoint FROM audit_checkpoints ORDER BY number DESC")
    assert [line["checkpoint"] for line in lines] == [stored, newest]
    assert Checkpoint.parse(newest).made_at == last + timedelta(seconds=200)


async def head_of(desk: Desk) -> Any:
    async with desk.db.every_tenant() as connection:
        head = await newest_seal(connection)
    assert head is not None
    return head
