"""Many tenants, and one that has been here for years: lists and histories read what they show, and little else."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.tenants import history, search
from app.tenants.search import Filters
from tests.conftest import Clock
from tests.people import add_tenant
from tests.plans import plan_of

_TENANTS = """
INSERT INTO tenants (id, slug, name, created_at, updated_at)
SELECT gen_random_uuid(), 'size-' || n, md5(n::text), $1, $1 FROM generate_series(1, 20000) AS n
"""
# One tenant of a thousand has a bad contact, and every tenant a member whose contact is bad.
_BAD = """
INSERT INTO contact_health (tenant_id, subject_id, channel, since, error_class)
SELECT id, id, 'email', $1::timestamptz, 'recipient' FROM tenants WHERE slug LIKE 'size-%000'
UNION ALL
SELECT id, gen_random_uuid(), 'email', $1::timestamptz, 'recipient' FROM tenants
"""
_EVENTS = """
INSERT INTO audit_events (tenant_id, at, action, actor_kind, subject_kind, subject_id, source, data)
SELECT $1, $2::timestamptz - n * interval '1 minute',
       CASE n % 2000 WHEN 0 THEN 'tenant.changed' ELSE 'code.requested' END, 'anonymous', 'tenant', $1, 'api', '{}'
FROM generate_series(1, 20000) AS n
"""


@pytest.fixture
async def many(db: Database, clock: Clock, urls: tuple[str, str]) -> AsyncIterator[None]:
    """20,000 tenants and a planner that knows of them; gone again afterwards, as the database is every test's."""
    async with db.every_tenant() as connection:
        await connection.execute(_TENANTS, clock(), timeout=60)
        await connection.execute(_BAD, clock(), timeout=60)
    await _look_again(urls[0], "tenants", "contact_health")
    yield
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM contact_health")
        # Each deletion looks into every table that refers to tenants.
        await connection.execute("DELETE FROM tenants WHERE slug LIKE 'size-%'", timeout=60)
    await _look_again(urls[0], "tenants", "contact_health")


async def _look_again(owner_url: str, *tables: str) -> None:
    owner = await asyncpg.connect(owner_url)
    for table in tables:
        await owner.execute(f"VACUUM ANALYZE {table}")
    await owner.close()


async def test_failing_tenants_are_read_off_an_index(db: Database, many: None) -> None:
    """The few that are shown and counted, and neither all tenants nor the bad contacts of members."""
    query = search.build(Filters(contacts=True, failing=True), sort="name", cursor=None, limit=25)
    for sql, args in ((query.sql, query.args), search.build_count(Filters(contacts=True, failing=True), 10_000)):
        async with db.every_tenant() as connection:
            plan = await plan_of(connection, sql, args)
        assert "ix_contact_health_own" in {node.get("Index Name") for node in plan}
        read = [node for node in plan if node.get("Relation Name") in {"tenants", "contact_health"}]
        assert sum(node["Actual Rows"] * node["Actual Loops"] for node in read) < 100
        assert "Seq Scan" not in {node["Node Type"] for node in read}


async def test_a_history_is_read_off_an_index(db: Database, clock: Clock, urls: tuple[str, str]) -> None:
    """Ten changes among 20,000 events of the same tenant: those that are shown are read, and no other."""
    tenant = await add_tenant(db, clock())
    async with db.every_tenant() as connection:
        await connection.execute(_EVENTS, tenant.id, clock(), timeout=60)
    await _look_again(urls[0], "audit_events")
    async with db.every_tenant() as connection:
        plan = await plan_of(connection, history._HISTORY, [tenant.id, SYSTEM_TENANT, None, None, 6])
    read = [node for node in plan if node.get("Relation Name", "").startswith("audit_events")]
    assert sum(node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0) for node in read) < 20
