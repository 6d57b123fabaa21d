"""The schema: made, taken back and made again, and the same as the models say."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.storage.migrate import downgrade, functions_version, head, sqlalchemy_url, upgrade
from app.storage.models import metadata
from app.tenants.contacts import normalise_phone
from tests.stores import StoresOfTests

_NOW: Final = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)

# Everything our migrations can leave in a database, by kind and name.
_INVENTORY: Final = """
SELECT 'relation ' || c.relkind::text AS kind, n.nspname || '.' || c.relname AS name, c.relrowsecurity::text
       || c.relforcerowsecurity::text || coalesce(pg_get_indexdef(i.indexrelid), '') AS detail
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE n.nspname IN ('public', 'fn')
UNION ALL
SELECT 'column', a.attrelid::regclass || '.' || a.attname,
       format_type(a.atttypid, a.atttypmod) || a.attnotnull || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'policy', polrelid::regclass || '.' || polname, polcmd::text || pg_get_expr(polqual, polrelid) FROM pg_policy
UNION ALL
SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function', p.oid::regprocedure::text, md5(p.prosrc) FROM pg_proc p
WHERE p.pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'fn'))
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT 'grant', table_name || ' ' || grantee, string_agg(privilege_type, ',' ORDER BY privilege_type)
FROM information_schema.role_table_grants WHERE table_schema = 'public' GROUP BY table_name, grantee
"""
# These belong to no tenant. A table without `tenant_id` is listed here on purpose or is a mistake.
_NOBODYS: Final = {
    "alembic_version",
    "workers",
    "audit_seals",
    "audit_checkpoints",
    "provider_reports",
    "send_counts",
    "delivery_counts",
}
_TABLES: Final = """
SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS forced, (
    SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = c.oid AND i.indisprimary) AS leads
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""


@pytest.fixture
async def empty(stores: StoresOfTests, worker_id: str) -> AsyncIterator[str]:
    """The owner's URL of a database in which nothing was ever migrated."""
    name = f"migrations_{worker_id}"
    await stores.create_database(name)
    yield stores.owner_url_for(name)
    await stores.drop_database(name)


async def inventory(owner_url: str) -> set[tuple[str, ...]]:
    connection = await asyncpg.connect(owner_url)
    try:
        return {tuple(row.values()) for row in await connection.fetch(_INVENTORY)}
    finally:
        await connection.close()


async def value(owner_url: str, sql: str) -> Any:
    connection = await asyncpg.connect(owner_url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def execute(owner_url: str, script: str) -> None:
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


async def test_up_down_and_up_again_is_the_same_schema(empty: str) -> None:
    """Down to base leaves nothing of ours behind; the way up from there ends where the first one did."""
    before = await inventory(empty)
    await upgrade(empty, _NOW)
    first = await inventory(empty)
    assert await value(empty, "SELECT version_num FROM alembic_version") == head()
    assert await value(empty, "SELECT obj_description('fn'::regnamespace)") == functions_version()

    await downgrade(empty, "base", _NOW)
    left = {entry for entry in await inventory(empty) - before if "alembic_version" not in entry[1]}
    assert left == set()

    await upgrade(empty, _NOW)
    assert await inventory(empty) == first


async def test_migrating_twice_changes_nothing_and_keeps_the_data(empty: str) -> None:
    """`gatehouse migrate` on a migrated database is a no-op."""
    await upgrade(empty, _NOW)
    before = await inventory(empty)
    seen = "SELECT xmin::text FROM workers"
    await value(empty, "INSERT INTO workers VALUES ('w', now(), now())")
    row = await value(empty, seen)
    await upgrade(empty, _NOW)
    assert await inventory(empty) == before
    assert await value(empty, seen) == row


async def test_only_wrong_addresses_stay_marked(empty: str) -> None:
    """Marks of earlier versions for what is no contact's fault are taken off; the others stay."""
    await upgrade(empty, _NOW)
    await downgrade(empty, "0014", _NOW)
    connection = await asyncpg.connect(empty)
    try:
        await connection.execute("SELECT set_config('app.scope', 'all', false)")
        for channel, error_class, text in (
            ("email", "recipient", "550 5.1.1 <[hidden]>: no such user"),
            ("email", "recipient", "550 No such user here"),
            ("email", "recipient", "5.1.1 smtp; 550 5.1.1 unknown"),
            ("sms", "recipient", "Twilio: 400 not a valid number"),
            ("email", "address", "The address can't be used for email."),
            ("email", "recipient", "550 5.7.1 client host blocked"),
            ("email", "recipient", "450 4.2.0 Greylisted"),
            ("email", "recipient", "552 5.2.2 over quota"),
            ("sms", "opted-out", "Twilio: unsubscribed"),
        ):
            await connection.execute(
                "INSERT INTO contact_health VALUES (gen_random_uuid(), gen_random_uuid(), $1, $2, $3, $4)",
                channel,
                _NOW,
                error_class,
                text,
            )
    finally:
        await connection.close()
    await upgrade(empty, _NOW)
    connection = await asyncpg.connect(empty)
    try:
        await connection.execute("SELECT set_config('app.scope', 'all', false)")
        kept = {row["error_text"] for row in await connection.fetch("SELECT error_text FROM contact_health")}
    finally:
        await connection.close()
    assert kept == {
        "550 5.1.1 <[hidden]>: no such user",
        "550 No such user here",
        "5.1.1 smtp; 550 5.1.1 unknown",
        "Twilio: 400 not a valid number",
        "The address can't be used for email.",
    }


async def test_numbers_written_two_ways_become_one(empty: str) -> None:
    """Rows of before are found by the form that is looked up now; one whose new form is taken stays as it was."""
    tenant, old = (
        "00000000-0000-4000-8000-000000000001",
        ("+541123456789", "+551187654321", "+22507123456", "+22997123456"),
    )
    await upgrade(empty, _NOW)
    await downgrade(empty, "0014", _NOW)
    people = ", ".join(
        f"('{tenant}', gen_random_uuid(), 'Ana', '{number}', now(), now())"
        for number in (*old, "+541123456780", "+5491123456780", "+447700900123")
    )
    await execute(
        empty,
        f"""
        SELECT set_config('app.scope', 'all', false);
        INSERT INTO tenants (id, slug, name, phone_number, created_at, updated_at)
        VALUES ('{tenant}', 'acme', 'Acme', '{old[0]}', now(), now());
        INSERT INTO members (tenant_id, id, name, phone_number, created_at, updated_at) VALUES {people};
        """,
    )
    await upgrade(empty, _NOW)
    kept = "SELECT array_agg(phone_number ORDER BY phone_number) FROM members WHERE tenant_id = $1"
    connection = await asyncpg.connect(empty)
    try:
        await connection.execute("SELECT set_config('app.scope', 'all', false)")
        assert await connection.fetchval("SELECT phone_number FROM tenants WHERE slug = 'acme'") == normalise_phone(
            old[0]
        )
        assert await connection.fetchval(kept, tenant) == sorted(
            [*map(normalise_phone, old), "+541123456780", "+5491123456780", "+447700900123"]
        )
    finally:
        await connection.close()


async def test_models_and_migrations_agree(urls: tuple[str, str]) -> None:
    """Tables, columns, types, defaults and indexes of the models are those that the migrations make."""

    def compare(connection: Connection) -> list[Any]:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            # Partitions are made as time goes by; the models know their parents.
            "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
        }
        differences: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return differences

    engine = create_async_engine(sqlalchemy_url(urls[0]), poolclass=NullPool)
    async with engine.connect() as connection:
        assert await connection.run_sync(compare) == []
    await engine.dispose()
    tables = (
        "SELECT array_agg(relname::text) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'alembic_version'"
    )
    assert set(await value(urls[0], tables)) == set(metadata.tables)


async def test_every_tenant_owned_table_is_led_by_its_tenant_and_guarded(urls: tuple[str, str]) -> None:
    """`tenant_id` leads each primary key, so tables can be distributed; row-level security binds their owner too."""
    connection = await asyncpg.connect(urls[0])
    try:
        found = {row["relname"]: (row["leads"], row["forced"]) for row in await connection.fetch(_TABLES)}
    finally:
        await connection.close()
    assert found.pop("tenants") == ("id", True)
    owned = found.keys() - _NOBODYS
    assert {name: found[name] for name in owned} == dict.fromkeys(owned, ("tenant_id", True))
    assert len(owned) >= 9
