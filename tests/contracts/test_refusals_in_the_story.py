"""A story tells what was refused where it was refused, however it is counted and however it is paged through."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from app.audit.timeline import Timeline
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http
from tests.people import add_tenant


async def refuse(db: Database, tenant: UUID, at: datetime, reason: str = "hourly", key: bytes = b"r") -> None:
    """As the statements of a sign-in do it."""
    async with db.tenant(tenant) as connection:
        await connection.execute("SELECT fn.refuse($1, $2, $3, $4)", at, tenant, key, reason)


async def happen(db: Database, tenant: UUID, at: datetime, action: str) -> None:
    async with db.tenant(tenant) as connection:
        await connection.execute(
            "INSERT INTO audit_events (tenant_id, at, action, actor_kind, source) "
            "VALUES ($1, $2, $3, 'anonymous', 'api')",
            *(tenant, at, action),
        )


async def test_in_their_true_order(http: Http, db: Database, clock: Clock) -> None:
    """Three codes, the fourth refused, a wrong code: told newest first, though all of it was within one minute."""
    tenant = await add_tenant(db, clock())
    clock.now = clock.now.replace(second=10)
    for _ in range(3):
        asked = await http.otp(tenant.slug, "request")
        clock.forward(seconds=5)
    assert (await http.otp(tenant.slug, "request")).status_code == 429
    refused_at = clock()
    clock.forward(seconds=5)
    body = {"challenge_id": asked.json()["challenge_id"], "code": "000000"}
    assert (await http.otp(tenant.slug, "verify", body)).status_code == 401
    story = await Timeline(db).read(tenant.id, {}, sees_contacts=True)
    newest = [entry.text for entry in story.entries][:3]
    assert newest[0].startswith("Wrong code")
    assert newest[1] == "Not sent: the codes of this hour were used up"
    assert newest[2] == "Code asked for"
    assert story.entries[1].at == refused_at


@pytest.mark.parametrize(
    ("seconds", "at", "note"),
    [
        ([12], 12, None),
        ([12, 50], 50, "2 times within 38 seconds"),
        ([50, 12, 31], 50, "3 times within 38 seconds"),
        ([7, 7], 7, "2 times within a second"),
        ([0, 59], 59, "2 times within 59 seconds"),
    ],
)
async def test_a_counter_says_when_and_how_often(
    db: Database, clock: Clock, seconds: list[int], at: int, note: str | None
) -> None:
    """It stands where the last one was, and says over how long it went on; whoever of several recipients it was."""
    tenant = await add_tenant(db, clock())
    minute = clock().replace(second=0)
    for n, second in enumerate(seconds):
        await refuse(db, tenant.id, minute + timedelta(seconds=second), key=bytes([n % 2]))
    (entry,) = (await Timeline(db).read(tenant.id, {}, sees_contacts=True)).entries
    assert entry.at == minute + timedelta(seconds=at)
    assert list(entry.notes) == ([note] if note else [])


async def test_rows_of_older_versions_have_their_minute(db: Database, clock: Clock) -> None:
    """Written while the release before this one still runs, or before the upgrade."""
    tenant = await add_tenant(db, clock())
    minute = clock().replace(second=0)
    async with db.tenant(tenant.id) as connection:
        await connection.execute(
            "INSERT INTO refusals (tenant_id, recipient_key, reason, minute, count) VALUES ($1, 'r', 'hourly', $2, 4)",
            *(tenant.id, minute),
        )
    (entry,) = (await Timeline(db).read(tenant.id, {}, sees_contacts=True)).entries
    assert (entry.at, list(entry.notes)) == (minute, ["4 times within this minute"])
    await refuse(db, tenant.id, minute + timedelta(seconds=40))
    (entry,) = (await Timeline(db).read(tenant.id, {}, sees_contacts=True)).entries
    assert entry.at == minute + timedelta(seconds=40)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
async def test_pages_tell_each_once(db: Database, clock: Clock, limit: int) -> None:
    """Refusals between other happenings of the same minutes: page by page the same story as in one."""
    tenant = await add_tenant(db, clock())
    minute = clock().replace(second=0)
    for n in range(4):
        start = minute + timedelta(minutes=n)
        await happen(db, tenant.id, start + timedelta(seconds=5), "code.disowned")
        await refuse(db, tenant.id, start + timedelta(seconds=10))
        await refuse(db, tenant.id, start + timedelta(seconds=30), reason="cooldown")
        await happen(db, tenant.id, start + timedelta(seconds=30), "code.disowned")
        await refuse(db, tenant.id, start + timedelta(seconds=45), key=uuid4().bytes)
        await happen(db, tenant.id, start + timedelta(seconds=50), "code.disowned")
    timeline = Timeline(db)
    whole = [(h.at, h.ref) for h in (await timeline.read(tenant.id, {}, limit=1000, sees_contacts=True)).happenings]
    assert whole == sorted(whole, reverse=True)
    assert len(whole) == 20
    paged, cursor = [], None
    while True:
        page = await timeline.read(tenant.id, {}, cursor=cursor, limit=limit, sees_contacts=True)
        paged += [(h.at, h.ref) for h in page.happenings]
        cursor = page.next
        if cursor is None:
            break
    assert paged == whole
