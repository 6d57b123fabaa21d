"""The database itself keeps tenants apart: what a query that forgets its tenant gets, over every table there is."""

from collections.abc import AsyncIterator, Sequence
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.storage.db import Database
from tests.rows import TENANT_TABLES, insert, values_for

# The fleet's own row of a table, which is no tenant's and which every tenant may read.
_FLEET: Final = UUID(int=0)


class Rows:
    """One row in every tenant-owned table, for each of two tenants."""

    def __init__(self, tables: dict[str, str]) -> None:
        self.tables = tables
        self.ours, self.theirs = uuid4(), uuid4()


@pytest.fixture(scope="module")
async def rows(db: Database) -> AsyncIterator[Rows]:
    async with db.connection() as connection:
        made = Rows(dict(await connection.fetch(TENANT_TABLES)))
    async with db.every_tenant() as connection:
        for owner in (made.ours, made.theirs):
            # Tenants first: admins and keys refer to them.
            for table in sorted(made.tables, key=lambda name: name != "tenants"):
                await insert(connection, table, await values_for(connection, table, made.tables[table], owner))
    yield made
    async with db.every_tenant() as connection:
        for table in sorted(made.tables, key=lambda name: name == "tenants"):
            if table != "audit_events":
                await connection.execute(f"DELETE FROM {table} WHERE {made.tables[table]} = ANY ($1)", _both(made))


def _both(rows: Rows) -> Sequence[UUID]:
    return [rows.ours, rows.theirs]


async def test_a_query_that_forgets_its_tenant_gets_no_rows(db: Database, rows: Rows) -> None:
    """As the application's role, without a tenant named, every tenant-owned table is empty, though none is."""
    assert {"tenants", "admins", "challenges", "quota", "outbox", "sessions", "audit_events"} <= rows.tables.keys()
    async with db.connection() as connection:
        assert await connection.fetchval("SELECT current_user") == "gatehouse_app"
        counts = {t: await connection.fetchval(f"SELECT count(*) FROM {t}") for t in rows.tables}
    assert counts == dict.fromkeys(rows.tables, 0)
    async with db.every_tenant() as connection:
        present = {t: await connection.fetchval(f"SELECT count(*) >= 2 FROM {t}") for t in rows.tables}
    assert present == dict.fromkeys(rows.tables, True)


async def test_a_setting_does_not_outlive_its_transaction(db: Database, rows: Rows) -> None:
    """A connection that named a tenant, or all, sees nothing again in its next transaction."""
    async with db.connection() as connection:
        for setting, value in (("app.tenant_id", str(rows.ours)), ("app.scope", "all")):
            async with connection.transaction():
                await connection.execute("SELECT set_config($1, $2, true)", setting, value)
                assert await connection.fetchval("SELECT count(*) FROM sessions") >= 1
            assert await connection.fetchval("SELECT count(*) FROM sessions") == 0


async def test_one_tenant_sees_only_its_own_rows(db: Database, rows: Rows) -> None:
    """In a tenant's scope every table shows that tenant's rows and no other's."""
    async with db.tenant(rows.ours) as connection:
        for table, owner_column in rows.tables.items():
            owners = await connection.fetch(
                f"SELECT DISTINCT {owner_column} AS owner FROM {table} WHERE {owner_column} <> $1",
                _FLEET,
            )
            assert [row["owner"] for row in owners] == [rows.ours], table


async def test_one_tenant_changes_nothing_of_another(db: Database, rows: Rows) -> None:
    """UPDATE and DELETE aimed at another tenant find no row; INSERT and giving rows away are refused."""
    for table, owner_column in rows.tables.items():
        async with db.every_tenant() as connection:
            values = await values_for(connection, table, owner_column, rows.theirs)
        if table == "tenants":
            values |= {"id": uuid4(), "slug": f"t{uuid4().hex}"}
        async with db.tenant(rows.ours) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with connection.transaction():
                    await insert(connection, table, values)
            if table == "audit_events":
                continue  # nobody changes that one: see below
            theirs = f"WHERE {owner_column} = $1"
            assert await connection.execute(f"DELETE FROM {table} {theirs}", rows.theirs) == "DELETE 0"
            change = f"UPDATE {table} SET {owner_column} = {owner_column} {theirs}"
            assert await connection.execute(change, rows.theirs) == "UPDATE 0"
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with connection.transaction():
                    await connection.execute(f"UPDATE {table} SET {owner_column} = $1", uuid4())


async def test_a_slug_opens_one_tenant_for_reading_only(db: Database, rows: Rows) -> None:
    """Naming a slug, as a sign-in begins, shows that one row of `tenants` and nothing else; it can't be changed."""
    slug = f"t{rows.ours.hex}"
    async with db.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.tenant_slug', $1, true)", slug)
        assert [row["id"] for row in await connection.fetch("SELECT id FROM tenants")] == [rows.ours]
        assert await connection.execute("UPDATE tenants SET name = 'mine'") == "UPDATE 0"
        assert await connection.execute("DELETE FROM tenants") == "DELETE 0"
        for table in rows.tables.keys() - {"tenants"}:
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_partitions_have_no_side_door(db: Database) -> None:
    """A partition named directly would not be under its parent's policies, so nobody may name it."""
    partitions = "SELECT oid::regclass::text AS name FROM pg_class WHERE relispartition AND relkind = 'r'"
    async with db.every_tenant() as connection:
        names = [row["name"] for row in await connection.fetch(partitions)]
        assert {"audit_events_default", "delivery_events_default"} <= set(names)
        assert len(names) > 2, "months are made ahead"
        for name in names:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with connection.transaction():
                    await connection.fetch(f"SELECT * FROM {name}")


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_events SET action = 'x'", "DELETE FROM audit_events", "TRUNCATE audit_events"]
)
async def test_the_audit_log_only_grows(db: Database, rows: Rows, statement: str) -> None:
    """The application's role can neither change nor remove what was written, not even in the all-tenants scope."""
    assert rows.tables
    async with db.every_tenant() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            async with connection.transaction():
                await connection.execute(statement)


@pytest.mark.parametrize("statement", ["UPDATE audit_events SET action = 'x'", "DELETE FROM audit_events"])
async def test_not_even_the_owner_changes_the_audit_log_by_accident(
    urls: tuple[str, str], rows: Rows, statement: str
) -> None:
    """A trigger stands in the way where no right is missing."""
    connection = await asyncpg.connect(urls[0])
    try:
        await connection.execute("SELECT set_config('app.tenant_id', $1, false)", str(rows.ours))
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_owner_of_the_tables_is_held_to_it_too(urls: tuple[str, str], rows: Rows) -> None:
    """Where one role does everything (no DATABASE_OWNER_URL), forgetting the tenant gives no rows either."""
    connection = await asyncpg.connect(urls[0])
    try:
        for table in rows.tables:
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    finally:
        await connection.close()
