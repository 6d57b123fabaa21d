"""A tenant with many members: lists, searches and figures read what they show, and not everything there is."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from app.audit.stats import SPANS
from app.members import search, stats
from app.members.search import Filters
from app.members.service import Members
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.people import SomeTenant, add_member, add_tenant, count
from tests.plans import plan_of

_MEMBERS = """
INSERT INTO members (tenant_id, id, name, email, phone_number, created_at, updated_at)
SELECT $1, gen_random_uuid(), md5(n::text), 'm' || n || '@home.example', '+4479' || lpad(n::text, 8, '0'), $2, $2
FROM generate_series(1, 20000) AS n
"""
# One sign-in an hour, back from now: asked for, sent, delivered, and two of three times a session.
_SIGN_INS = """
WITH begun AS (
    SELECT $2::timestamptz - n * interval '1 hour' AS at, gen_random_uuid() AS challenge, n,
           (SELECT id FROM members WHERE tenant_id = $1 ORDER BY email LIMIT 1) AS member
    FROM generate_series(0, 999) AS n
), delivered AS (
    INSERT INTO delivery_events (tenant_id, at, outbox_id, challenge_id, kind, channel, state)
    SELECT $1, at + interval '1 second', gen_random_uuid(), challenge, 'code', 'email', state
    FROM begun, unnest(ARRAY['sent', 'delivered']) AS state
)
INSERT INTO audit_events (tenant_id, at, action, actor_kind, subject_kind, subject_id, challenge_id, source, data)
SELECT $1, at, 'code.requested', 'member', 'member', member, challenge, 'api', '{}'::jsonb FROM begun
UNION ALL
SELECT $1, at + interval '1 second', 'session.started', 'member', 'member', member, challenge, 'api',
       '{"methods": ["otp:email"]}' FROM begun WHERE n % 3 > 0
"""


@pytest.fixture
async def crowd(db: Database, clock: Clock, urls: tuple[str, str]) -> SomeTenant:
    """A tenant with 20,000 members, and a planner that knows of them."""
    made = await add_tenant(db, clock())
    async with db.every_tenant() as connection:
        await connection.execute(_MEMBERS, made.id, clock(), timeout=60)
    owner = await asyncpg.connect(urls[0])
    await owner.execute("VACUUM ANALYZE members")
    await owner.close()
    return made


@pytest.fixture
async def tenant(db: Database, clock: Clock) -> SomeTenant:
    """A tenant whose one member signs in every hour, years from now: other tests count what the fleet does today."""
    clock.forward(days=3650)
    made = await add_tenant(db, clock())
    await add_member(db, clock(), made)
    async with db.every_tenant() as connection:
        await connection.execute(_SIGN_INS, made.id, clock() - timedelta(seconds=10), timeout=60)
    return made


@pytest.fixture
def members(db: Database, settings: Settings, clock: Clock) -> Members:
    return Members(db, settings, clock)


async def plan_in(db: Database, tenant: SomeTenant, sql: str, args: Sequence[object]) -> list[dict[str, Any]]:
    """How a statement runs that sees one tenant's rows."""
    async with db.tenant(tenant.id) as connection:
        return await plan_of(connection, sql, args)


async def test_a_page_of_the_list_reads_its_members_off_the_index(db: Database, crowd: SomeTenant) -> None:
    """The first page and a later one read as many as they show; nothing is sorted, no table is read through."""
    for place in (None, search._show_cursor({"sort_name": "8", "id": crowd.id}, backwards=False)):
        query = search.build(crowd.id, Filters(contacts=True), place, 25)
        plan = await plan_in(db, crowd, query.sql, query.args)
        assert {node.get("Index Name") for node in plan} >= {"ix_members_name", "members_pkey"}
        assert "Seq Scan" not in {node["Node Type"] for node in plan}
        read = [node for node in plan if node.get("Index Name") == "ix_members_name"]
        assert [node["Actual Rows"] for node in read] == [26]


async def test_a_search_asks_once_whose_rows_it_may_see(db: Database, crowd: SomeTenant) -> None:
    """Row-level security costs a search two looks at the settings, and not two for each of the members."""
    query = search.build(crowd.id, Filters("nobody has this", contacts=True), None, 25)
    plan = await plan_in(db, crowd, query.sql, query.args)
    asked = [node for node in plan if node.get("Parent Relationship") == "InitPlan"]
    assert asked
    assert all(node["Actual Loops"] <= 1 for node in asked)


async def test_figures_are_counted_once(db: Database, tenant: SomeTenant, members: Members, clock: Clock) -> None:
    """A month is counted at the first look; from then on an hour is read again only until it is over."""
    first = await members.stats(tenant.slug)
    assert [(s.name, s.requested, s.sent, s.delivered, s.begun) for s in first] == [
        ("24h", 25, 25, 25, 25),
        ("7d", 169, 169, 169, 169),
        ("30d", 721, 721, 721, 721),
    ]
    assert [s.succeeded for s in first] == [16, 112, 480]
    assert [s.verified for s in first] == [16, 112, 480]
    assert await members.stats(tenant.slug) == first
    hours = "SELECT count(*) FROM member_hours WHERE tenant_id = $1"
    assert await count(db, hours, tenant.id) == 30 * 24 - 2
    async with db.tenant(tenant.id) as connection:
        kept = await stats._kept_until(connection, tenant.id, datetime.min.replace(tzinfo=clock().tzinfo))
    since = stats._since(clock())
    args = [tenant.id, kept, clock(), list(SPANS), since]
    events = [node for node in await plan_in(db, tenant, stats._SUM_ALL, args) if "audit_events" in str(node)]
    assert sum(node["Actual Rows"] for node in events if node.get("Relation Name", "").startswith("audit_")) < 20

    clock.forward(days=3)
    later = await members.stats(tenant.slug)
    assert [s.requested for s in later] == [0, 97, 649]
    assert await count(db, hours, tenant.id) == 30 * 24 - 2, "old ones are forgotten"


async def test_the_worker_counts_ahead(db: Database, tenant: SomeTenant, members: Members, clock: Clock) -> None:
    """A month that nobody has looked at is counted by the worker, so a look counts nothing; an hour later the next."""
    hours = "SELECT count(*) FROM member_hours WHERE tenant_id = $1"
    keeper = stats.Hours(db, clock)
    await keeper.roll_up()
    assert await count(db, hours, tenant.id) == 30 * 24 - 2
    seen = await members.stats(tenant.slug)
    assert [s.requested for s in seen] == [25, 169, 721]
    assert await count(db, hours, tenant.id) == 30 * 24 - 2
    clock.forward(hours=1)
    await keeper.roll_up()
    async with db.tenant(tenant.id) as connection:
        counted = await stats._kept_until(connection, tenant.id, datetime.min.replace(tzinfo=clock().tzinfo))
    assert counted == stats._hour_of(clock()) - stats._SETTLED


async def test_one_members_figures_follow_their_codes(db: Database, tenant: SomeTenant, clock: Clock) -> None:
    """What became of a member's codes is found by the codes."""
    async with db.tenant(tenant.id) as connection:
        member = await connection.fetchval(
            "SELECT id FROM members WHERE tenant_id = $1 ORDER BY email LIMIT 1", tenant.id
        )
        counts = await stats.read_stats_of(connection, tenant.id, clock(), member)
        stranger = await stats.read_stats_of(connection, tenant.id, clock(), tenant.id)
    assert [s.delivered for s in counts] == [25, 169, 721]
    assert [s.requested for s in stranger] == [0, 0, 0]
