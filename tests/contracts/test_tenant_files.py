"""Importing and exporting tenants on the real database: all or nothing, and never over somebody's head."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

import pytest

from app.audit.log import Actor, Client
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.errors import AlreadyExists, EditConflict, InvalidRequest, PayloadTooLarge
from app.settings import Settings
from app.storage.db import Database
from app.tenants.import_export import Report, TenantFiles
from app.tenants.search import Filters
from app.tenants.service import Tenants
from app.tenants.table import MOST_ROWS, FileRow, read_csv
from tests.conftest import Clock
from tests.people import challenge_row, count

BY_HAND = Actor("operator")
SHELL = Client("cli")


class Desk:
    """Somebody with a file, and what they see."""

    def __init__(self, db: Database, settings: Settings, clock: Clock) -> None:
        settings = replace(settings, sms_enabled=True)
        self.woken: list[str] = []
        self.files = TenantFiles(db, settings, clock, lambda: self.woken.append("woken"))
        self.tenants = Tenants(db, settings, clock)

    async def check(self, text: str) -> Report:
        return await self.files.check(read_csv(text.encode()))

    async def load(self, text: str) -> Report:
        return await self.files.load(read_csv(text.encode()), actor=BY_HAND, client=SHELL)

    async def add(self, slug: str, **fields: object) -> None:
        values = {"slug": slug, "name": "Acme", "email": f"a@{slug}.example", **fields}
        await self.tenants.create(values, actor=BY_HAND, client=SHELL)


@pytest.fixture
def desk(db: Database, settings: Settings, clock: Clock) -> Desk:
    return Desk(db, settings, clock)


@pytest.fixture
def slug() -> str:
    return f"f{uuid4().hex[:10]}"


def faults(report: Report) -> Sequence[tuple[int, str]]:
    return [(fault.row, fault.field) for fault in report.faults]


async def test_rows_are_new_changed_or_unchanged(desk: Desk, slug: str) -> None:
    """A column that isn't there says nothing, an empty cell clears, and the policy of a row is the whole one."""
    await desk.add(f"{slug}-1", phone_number="+447700900123", policy={"max_attempts": 3, "hourly_limit": 2})
    await desk.add(f"{slug}-2")
    text = (
        "slug,name,phone_number,policy\n"
        f"{slug}-1,Acme,,max_attempts=2\n{slug}-2,Acme,,\n{slug}-3,Gamma,+447700900456,\n"
    )
    expected = [("changed", ["phone_number", "policy"]), ("unchanged", []), ("faulty", [])]
    tried = await desk.check(text)
    assert [(row.outcome, list(row.fields)) for row in tried.rows] == expected
    assert faults(tried) == [(4, "email")], "codes go by email unless the row says otherwise"

    loaded = await desk.load(text.replace("+447700900456", ""))
    assert loaded.counts == {"new": 1, "changed": 1, "unchanged": 1, "faulty": 0}
    first = await desk.tenants.get(f"{slug}-1")
    assert (first.phone_number, first.email, first.policy) == (None, f"a@{slug}-1.example", {"max_attempts": 2})
    assert (first.version, (await desk.tenants.get(f"{slug}-2")).version) == (2, 1)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("{slug},A\nB,,", ""),
        ("{slug},Acme,a***@x.example,", "email"),
        ("{slug},Acme,,+44*****0123", "phone_number"),
        ("{slug},,,", "name"),
        ("_system,Acme,,", "slug"),
        (",Acme,,", "slug"),
    ],
)
async def test_a_fault_stands_beside_its_cell(desk: Desk, slug: str, row: str, field: str) -> None:
    """Masked contacts of a viewer's export, reserved slugs, empty names: nothing of the file is imported."""
    text = f"slug,name,email,phone_number\n{slug}-ok,Fine,,\n" + row.replace("{slug}", slug) + "\n"
    assert (3, field) in faults(await desk.check(text))
    with pytest.raises(InvalidRequest, match=r"nothing was imported"):
        await desk.load(text)
    assert await desk.tenants.count(Filters(contacts=True, search=slug)) == 0


async def test_a_tenant_is_in_one_row_only(desk: Desk, slug: str) -> None:
    """The second one is the fault, and says where the first is."""
    report = await desk.check(f"slug,name\n{slug},A\nother-{slug},B\n{slug},C\n")
    assert faults(report) == [(4, "slug")]
    assert "row 2" in report.faults[0].detail


async def test_a_stale_file_overwrites_nobody(desk: Desk, slug: str) -> None:
    """A version in the row that isn't the stored one is a fault, unless the row changes nothing."""
    await desk.add(slug)
    await desk.tenants.update(slug, {"name": "Newer"}, actor=BY_HAND, client=SHELL)
    assert faults(await desk.check(f"slug,name,version\n{slug},Older,1\n")) == [(2, "version")]
    assert faults(await desk.check(f"slug,name,version\n{slug},Newer,1\n")) == []
    assert (await desk.load(f"slug,name,version\n{slug},Newest,2\n")).counts["changed"] == 1


async def test_a_contact_changed_by_file_has_all_its_consequences(
    desk: Desk, slug: str, db: Database, challenges: Challenges
) -> None:
    """Open codes are void, both addresses are told, and the audit log has the masked difference."""
    await desk.add(slug)
    tenant = await desk.tenants.get(slug)
    issued = await challenges.request(Realm.of(slug), Client("api"))
    await desk.load(f"slug,email\n{slug},new@{slug}.example\n")
    assert (await challenge_row(db, issued.challenge_id))["end_reason"] == "void"
    notices = "SELECT count(*) FROM outbox WHERE kind = 'notice' AND tenant_id = $1"
    assert await count(db, notices, tenant.id) == 2
    history = await desk.tenants.history(slug, sees_contacts=True)
    assert [change["field"] for change in history.entries[0].changes] == ["email"]
    assert desk.woken == ["woken"]


async def test_what_happens_meanwhile_stops_the_import_whole(
    desk: Desk, slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant changed, or added, between the plan and its writing: refused, and no row is written."""
    await desk.add(slug)
    text = f"slug,name\nnew-{slug},New\n{slug},Changed\n"
    plan = desk.files._plan
    meanwhile: list[Callable[[], Awaitable[object]]] = []

    async def plan_and_lose(rows: Iterable[FileRow], now: datetime) -> object:
        made = await plan(rows, now)
        await meanwhile.pop()()
        return made

    monkeypatch.setattr(desk.files, "_plan", plan_and_lose)
    meanwhile.append(lambda: desk.tenants.update(slug, {"name": "Faster"}, actor=BY_HAND, client=SHELL))
    with pytest.raises(EditConflict):
        await desk.load(text)
    assert await desk.tenants.count(Filters(contacts=True, search=f"new-{slug}")) == 0

    meanwhile.append(lambda: desk.add(f"new-{slug}"))
    with pytest.raises(AlreadyExists):
        await desk.load(text)
    assert (await desk.tenants.get(slug)).name == "Faster"


async def test_a_file_has_its_limits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 rows (here fewer); nobody's transaction is filled by one call."""
    assert MOST_ROWS == 100_000
    most = 120
    monkeypatch.setattr("app.tenants.import_export.MOST_ROWS", most)
    rows = (FileRow(n, {"slug": f"x{n}", "name": "X"}) for n in range(most + 1))
    with pytest.raises(PayloadTooLarge):
        await desk.files.check(rows)


async def test_thousands_go_in_and_out(desk: Desk, slug: str, db: Database) -> None:
    """Each with its own audit event, and one for the whole; exported over many pages, masked where asked for."""
    text = "slug,name,email\n" + "".join(f"{slug}-{n},Acme {n},a{n}@{slug}.example\n" for n in range(1_000))
    assert (await desk.load(text)).counts["new"] == 1_000
    events = """
        SELECT count(*) FROM audit_events e JOIN tenants t ON t.id = e.tenant_id
        WHERE e.action = 'tenant.created' AND starts_with(t.slug, $1)
    """
    assert await count(db, events, f"{slug}-") == 1_000
    chunks = await desk.files.export(Filters(contacts=False, search=slug), "csv", actor=BY_HAND, client=SHELL)
    out = b"".join([chunk async for chunk in chunks]).decode().splitlines()
    assert len(out) == 1_001
    assert f"a***@{slug}.example" in out[1]
    assert f"a1@{slug}.example" not in "".join(out)
    assert faults(await desk.check("\n".join(out)))[0] == (2, "email")
