"""What the audit log promises whoever keeps it: retention, export, the command."""

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from app.audit import retention
from app.audit.chain import Seal, month_of, seal_removal
from app.audit.export import FIELDS, EventFilters, as_csv, as_json_lines, event_pages
from app.audit.log import Actor, Client, record
from app.audit.sealing import SEAL_COLUMNS, add_seal, keys_needed, newest_seal
from app.audit.verification import verify
from app.errors import InvalidRequest, Unavailable
from app.keys import KeyRing
from app.storage.db import Database
from app.storage.migrate import upgrade
from tests.auditing import FOREIGN, NOW, OLD_SECRET, RING, SECRET, TENANT, Desk, copy_of, drop, open_desk
from tests.people import add_tenant
from tests.stores import StoresOfTests

_JANUARY, _FEBRUARY = datetime(2025, 1, 20, 12, tzinfo=UTC), datetime(2025, 2, 20, 12, tzinfo=UTC)
# No partition was ever made for it.
_LONG_AGO: Final = datetime(2019, 7, 1, tzinfo=UTC)
_OTHER: Final = UUID("00000000-0000-0000-0000-00000000bbbb")


@pytest.fixture(scope="module")
async def migrated(stores: StoresOfTests, worker_id: str) -> AsyncIterator[str]:
    """A database with partitions for the first months of 2025 and of 2026."""
    name = f"audit_log_{worker_id}"
    await stores.create_database(name)
    await upgrade(stores.owner_url_for(name), NOW)
    desk = await open_desk(stores, name)
    await desk.owner.execute("SELECT fn.ensure_partitions($1)", _JANUARY)
    await desk.close()
    yield name
    await drop(stores, name)


@pytest.fixture
async def desk(stores: StoresOfTests, migrated: str) -> AsyncIterator[Desk]:
    """A copy of its own for each test."""
    async with copy_of(stores, migrated) as desk:
        yield desk


@pytest.fixture
async def aged(desk: Desk) -> Desk:
    """Four batches: events 1 to 3 of long ago, 4 to 7 of January, 8 and 9 of January and February, 10 of now."""
    await desk.write(3, _LONG_AGO)
    await desk.seal()
    await desk.write(4, _JANUARY)
    await desk.seal()
    await desk.write(1, _JANUARY)
    await desk.write(1, _FEBRUARY)
    await desk.seal()
    await desk.write(1)
    await desk.seal()
    return desk


@pytest.fixture
async def owner_db(stores: StoresOfTests, desk: Desk) -> AsyncIterator[Database]:
    """The same database as the owner of the tables sees it."""
    owner = Database(stores.owner_url_for(desk.name), size=1, application="tests")
    await owner.open()
    yield owner
    await owner.close()


async def test_retention_removes_whole_months_and_the_chain_stays_checkable(aged: Desk, owner_db: Database) -> None:
    """Everything before February goes, also what never had a partition; verify says how much, and finds no fault."""
    pruned = await retention.prune(owner_db, RING, NOW, month_of("2025-02"))
    assert (pruned.events, pruned.partitions) == (8, ["audit_events_p202501"])
    assert await aged.value("SELECT array_agg(id ORDER BY id) FROM audit_events WHERE id <= 10") == [9, 10]
    assert await aged.value("SELECT count(*) FROM audit_events WHERE action = 'audit.pruned'") == 1
    assert await aged.value("SELECT array_agg(number) FROM audit_seals WHERE marks IS NULL AND kind = 'events'") == [
        1,
        2,
    ]
    await aged.seal()
    verdict = await aged.verify()
    assert (verdict.intact, verdict.findings) == (True, [])
    assert (verdict.pruned_batches, verdict.pruned_events, verdict.events) == (2, 8, 3)


async def test_retention_can_be_applied_again_and_again(aged: Desk, owner_db: Database) -> None:
    """Month after month, and a second time for the same month, which does nothing."""
    for before, events in (("2025-01", 3), ("2025-02", 5), ("2025-02", 0), ("2025-03", 1)):
        pruned = await retention.prune(owner_db, RING, NOW, month_of(before))
        assert pruned.events == events, before
        await aged.seal()
        assert await aged.faults() == []
    assert await aged.value("SELECT count(*) FROM audit_seals WHERE kind = 'removal'") == 3


async def test_after_retention_tampering_is_found_as_before(aged: Desk, owner_db: Database) -> None:
    """In a batch of which retention took a part the rest is still watched; what was taken doesn't come back."""
    await retention.prune(owner_db, RING, NOW, month_of("2025-02"))
    forged = "INSERT INTO audit_events (tenant_id, at, id, action, actor_kind, source) VALUES (gen_random_uuid(), "
    await aged.tamper(
        "DELETE FROM audit_events WHERE id = 9",
        f"{forged}'2025-01-20 12:00Z', 2, 'forged', 'tenant', 'api')",
        "UPDATE audit_seals SET marks = NULL WHERE number = 4",
    )
    assert await aged.faults() == [("event-inserted", 2, 1), ("event-removed", 9, 3), ("batch-changed", None, 4)]


async def test_a_month_dropped_without_the_key_is_found(aged: Desk) -> None:
    """Dropping the partition by hand removes events like any other way; a record made up for it is no excuse."""
    await aged.owner.execute("DROP TABLE audit_events_p202501")
    removed = [("event-removed", n, 2 if n < 8 else 3) for n in range(4, 9)]
    assert await aged.faults() == removed
    async with aged.owner.transaction():
        await aged.owner.execute("SELECT set_config('app.scope', 'all', true)")
        head = await newest_seal(aged.owner)
        await add_seal(aged.owner, seal_removal(FOREIGN.current, head, month_of("2025-02"), NOW), None)
    assert await aged.faults() == [*removed, ("batch-forged", None, 5)]


async def test_a_secret_can_be_retired_once_retention_has_taken_what_it_sealed(desk: Desk, owner_db: Database) -> None:
    """Until then the chain names it as needed; afterwards later seals vouch for its own, as they were."""
    old, new = KeyRing([OLD_SECRET]), KeyRing([SECRET])
    await desk.write(2, _JANUARY)
    await desk.seal(_JANUARY, old)
    await desk.write(2, _FEBRUARY)
    await desk.seal(_FEBRUARY, old)
    await desk.write(2)
    await desk.seal()
    assert await needed(desk) == {old.current.id, new.current.id}
    assert (await verify(desk.db, new)).faults > 0
    await retention.prune(owner_db, RING, NOW, month_of("2025-03"))
    assert await needed(desk) == {new.current.id}
    assert (await verify(desk.db, new)).findings == []
    async with desk.db.every_tenant() as connection:
        row = await connection.fetchrow(f"SELECT {SEAL_COLUMNS} FROM audit_seals WHERE number = 2")
    forged = replace(Seal(*row), events=9).signed(FOREIGN.current)
    changed = f"events = 9, hash = '\\x{forged.hash.hex()}', mac = '\\x{forged.mac.hex()}'"
    await desk.tamper(f"UPDATE audit_seals SET {changed} WHERE number = 2")
    found = [(finding.fault, finding.batch) for finding in (await verify(desk.db, new)).findings]
    assert found == [("batch-forged", 1), ("batch-changed", 3)]


async def needed(desk: Desk) -> set[str]:
    async with desk.db.every_tenant() as connection:
        return await keys_needed(connection)


async def test_retention_takes_nothing_that_is_not_sealed_or_not_over(aged: Desk, owner_db: Database) -> None:
    """An unsealed event would vanish without a trace, and this month is still being written: both are refused."""
    with pytest.raises(InvalidRequest, match="are over"):
        await retention.prune(owner_db, RING, NOW, month_of("2026-04"))
    await aged.write(1, _JANUARY)
    with pytest.raises(InvalidRequest, match="not sealed yet"):
        await retention.prune(owner_db, RING, NOW, month_of("2025-02"))
    assert await aged.value("SELECT count(*) FROM audit_events") == 11
    assert await aged.faults() == []


async def test_the_application_can_not_apply_retention(aged: Desk) -> None:
    """Its role owns no table: nothing is removed and nothing recorded."""
    with pytest.raises(Unavailable):
        await retention.prune(aged.db, RING, NOW, month_of("2025-02"))
    assert await aged.value("SELECT count(*) FROM audit_seals WHERE kind = 'removal'") == 0


def test_thirteen_months_are_kept_unless_said_otherwise() -> None:
    """In March 2026 the first month kept is February 2025."""
    assert retention.default_month(NOW) == month_of("2025-02")


async def exported(desk: Desk, **filters: Any) -> list[dict[str, Any]]:
    chunks = [chunk async for chunk in as_json_lines(event_pages(desk.db, EventFilters(**filters), sees_contacts=True))]
    return [json.loads(line) for line in b"".join(chunks).splitlines()]


async def test_json_lines_hold_every_field(desk: Desk) -> None:
    """One object a line, typed as they are, with the tenant's slug and times in RFC 3339."""
    tenant = await add_tenant(desk.db, NOW, slug="acme")
    at, subject = NOW + timedelta(microseconds=5), uuid4()
    async with desk.db.every_tenant() as connection:
        client = Client("page", "2001:db8::1", "=cmd()", "r-9")
        data = {"changes": [{"field": "name", "before": "A\n", "after": "Ä"}], "n": 1}
        await record(connection, at, tenant.id, "tenant.updated", Actor("admin", subject), client, data=data)
    [event] = await exported(desk)
    assert event == dict.fromkeys(FIELDS) | {
        "id": 1,
        "at": "2026-03-14T09:26:53.000005Z",
        "tenant_id": str(tenant.id),
        "tenant": "acme",
        "action": "tenant.updated",
        "actor_kind": "admin",
        "actor_id": str(subject),
        "source": "page",
        "ip": "2001:db8::1",
        "user_agent": "=cmd()",
        "request_id": "r-9",
        "data": data,
    }


async def test_csv_can_be_opened_in_a_spreadsheet(desk: Desk) -> None:
    """A header, a row an event, line ends inside cells quoted, and nothing that a spreadsheet would compute."""
    async with desk.db.every_tenant() as connection:
        client = Client("page", None, '=HYPERLINK("x","y")', "r,\n9")
        await record(connection, NOW, TENANT, "code.sent", Actor("tenant"), client)
    text = b"".join(
        [chunk async for chunk in as_csv(event_pages(desk.db, EventFilters(), sees_contacts=True))]
    ).decode()
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    assert tuple(row) == FIELDS
    assert (row["user_agent"], row["request_id"]) == ('\'=HYPERLINK("x","y")', "r,\n9")
    assert (row["tenant"], row["actor_id"], row["data"]) == ("", "", "{}")


async def test_an_export_can_be_narrowed(desk: Desk) -> None:
    """By tenant, time and action, alone and together; an end is exclusive, a start is not."""
    await desk.write(2, _JANUARY, "code.sent")
    await desk.write(1, _FEBRUARY, "code.wrong")
    async with desk.db.every_tenant() as connection:
        await record(connection, NOW, _OTHER, "tenant.updated", Actor("admin"), Client("page"))

    async def ids(**filters: Any) -> list[int]:
        return [event["id"] for event in await exported(desk, **filters)]

    assert await ids() == [1, 2, 3, 4]
    assert await ids(tenant_id=_OTHER) == [4]
    assert await ids(action="code.wrong") == [3]
    assert await ids(action="code.*") == [1, 2, 3]
    assert await ids(action="code.%") == []
    assert await ids(start=_FEBRUARY) == [3, 4]
    assert await ids(end=_FEBRUARY) == [1, 2]
    assert await ids(tenant_id=TENANT, start=_JANUARY, end=NOW, action="code.*") == [1, 2, 3]


async def test_an_export_is_complete_over_many_pages(desk: Desk) -> None:
    """Each event once, in order, however many have the same time; of one tenant as of all."""
    await desk.owner.execute("SELECT set_config('app.scope', 'all', false)")
    await desk.owner.execute(
        "INSERT INTO audit_events (tenant_id, at, action, actor_kind, source) "
        "SELECT $1, $2::timestamptz + n / 700 * interval '1 s', 'code.sent', 'tenant', 'api' "
        "FROM generate_series(1, 1500) n",
        TENANT,
        NOW,
    )
    for filters in ({}, {"tenant_id": TENANT}):
        assert [event["id"] for event in await exported(desk, **filters)] == list(range(1, 1501))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    out: str
    err: str


class Shell:
    """Runs `gatehouse` on one desk's database."""

    def __init__(self, stores: StoresOfTests, desk: Desk, directory: Path) -> None:
        self._environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | {
            "ENVIRONMENT": "test",
            "SECRET_KEY": SECRET.decode(),
            "DATA_DIR": str(directory / "data"),
            "DATABASE_URL": stores.app_url_for(desk.name),
            "DATABASE_OWNER_URL": stores.owner_url_for(desk.name),
            "REDIS_URL": stores.redis_url,
        }
        self._directory = directory

    async def __call__(self, *args: str) -> Answer:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("gatehouse"),
            *args,
            env=self._environment,
            cwd=self._directory,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return Answer(process.returncode, out.decode(), err.decode())


@pytest.fixture
def gatehouse(stores: StoresOfTests, aged: Desk, tmp_path: Path) -> Shell:
    return Shell(stores, aged, tmp_path)


async def test_the_command_says_that_the_log_is_intact(aged: Desk, gatehouse: Shell) -> None:
    """Exit code 0, what was checked, and what can't be checked yet."""
    await aged.write(2)
    answer = await gatehouse("audit", "verify")
    assert answer.status == 0, answer.err
    assert answer.out.startswith("The audit log is intact.\n")
    assert "not sealed yet       2 events" in answer.out
    assert "seals within 10 seconds" in answer.err
    told = json.loads((await gatehouse("audit", "verify", "--json")).out)
    assert (told["intact"], told["events"], told["batches"], told["unsealed_events"]) == (True, 10, 4, 2)


async def test_the_command_names_what_is_wrong(aged: Desk, gatehouse: Shell) -> None:
    """Exit code 1 and one sentence about the one row that was changed; the same as JSON."""
    await aged.tamper("UPDATE audit_events SET action = 'code.right' WHERE id = 5")
    answer = await gatehouse("audit", "verify")
    assert answer.status == 1
    first, second, *_ = answer.out.splitlines()
    assert first.startswith(f"Event 5 (code.right of tenant {TENANT} at 2025-01-20 12:00:00+00) was changed")
    assert second == "The audit log is NOT intact."
    as_json = await gatehouse("audit", "verify", "--json")
    assert as_json.status == 1
    [finding] = json.loads(as_json.out)["findings"]
    assert (finding["fault"], finding["event_id"], finding["batch"]) == ("event-changed", 5, 2)


async def test_the_command_takes_a_checkpoint_kept_elsewhere(aged: Desk, gatehouse: Shell) -> None:
    """The newest batch cut off, and its checkpoint with it, shows against the copy; nonsense is bad input."""
    await aged.write(1, NOW)
    await aged.seal(NOW + timedelta(minutes=2))
    copy = await aged.value("SELECT checkpoint FROM audit_checkpoints ORDER BY number DESC")
    await aged.tamper(
        "DELETE FROM audit_checkpoints WHERE number = 5",
        "DELETE FROM audit_seals WHERE number = 5",
        "DELETE FROM audit_events WHERE id = 11",
    )
    assert (await gatehouse("audit", "verify")).status == 0
    answer = await gatehouse("audit", "verify", "--checkpoint", copy)
    assert answer.status == 1
    assert "The chain ends at batch 4, but batch 5 was signed at 2026-03-14T09:28:53Z" in answer.out
    assert (await gatehouse("audit", "verify", "--checkpoint", "ghc_nonsense")).status == 2


async def test_the_command_exports_and_prunes(aged: Desk, gatehouse: Shell) -> None:
    """Events go to stdout; pruning needs a month that is one, and leaves an intact log."""
    january = ("--from", "2025-01-01", "--to", "2025-02-01T00:00:00Z")
    lines = await gatehouse("audit", "export", "--format", "jsonl", *january)
    assert [json.loads(line)["id"] for line in lines.out.splitlines()] == [4, 5, 6, 7, 8]
    cells = await gatehouse("audit", "export", "--action", "code.*")
    assert len(list(csv.reader(io.StringIO(cells.out)))) == 11
    assert (await gatehouse("audit", "export", "--tenant", "nobody")).status == 2
    assert (await gatehouse("audit", "prune", "--before", "2025-13")).status == 2
    pruned = await gatehouse("audit", "prune", "--before", "2025-02")
    assert (pruned.status, pruned.out) == (0, "Removed 8 events from before 2025-02.\n")
    assert (await verify(aged.db, RING)).pruned_events == 8
    assert (await gatehouse("audit", "verify")).status == 0
