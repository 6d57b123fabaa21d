"""PostgreSQL through asyncpg: one pool a process, tenants kept apart, outages told as `Unavailable`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from app.errors import Unavailable

# A caller learns within 2 seconds that the database is away (architecture.md, "Two stores").
_CONNECT_TIMEOUT: Final = 1.5
_COMMAND_TIMEOUT: Final = 1.7
# After a timeout asyncpg asks the server to cancel and waits for its word: a silent one gets no longer than this.
_RELEASE_TIMEOUT: Final = 0.1

# What a lost, starting, stopping or full server looks like from here.
_OUTAGES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.exceptions.QueryCanceledError,
    # PostgreSQL answers 25006 while a standby is being promoted.
    asyncpg.exceptions.ReadOnlySQLTransactionError,
)

# An asyncpg.Record: columns by name.
Row: TypeAlias = Mapping[str, Any]


async def _no_reset(_: asyncpg.Connection) -> None:
    """Every setting we make is local to its transaction, so a returned connection needs no round trip to clean."""


async def _init(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),
        decoder=lambda data: msgspec.json.decode(data[1:]),
    )
    # inet as text: it is only ever shown and stored, and ipaddress objects cost.
    await connection.set_type_codec("inet", schema="pg_catalog", format="text", encoder=str, decoder=str)


class Database:
    """A pool of connections.

    `row`, `one`, `rows` and `run` send exactly one statement and so are one round trip; statements on tenant-owned
    tables go through SQL functions that name the tenant, or through `tenant()` / `every_tenant()`. Each raises
    `Unavailable` when the server can't be reached or doesn't answer in time; nothing is then half done, because a
    lone statement is a transaction.
    """

    def __init__(self, url: str, *, size: int = 10, application: str = "gatehouse") -> None:
        self._url = url
        self._size = size
        self._application = application
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        """Makes the pool without connecting, so that a process starts (and says 503) while the server is away."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._size,
            timeout=_CONNECT_TIMEOUT,
            command_timeout=_COMMAND_TIMEOUT,
            max_inactive_connection_lifetime=300,
            init=_init,
            reset=_no_reset,
            server_settings={"application_name": self._application, "jit": "off", "timezone": "UTC"},
        )

    async def close(self) -> None:
        """Gives every connection back. Waits for running statements."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection with no tenant named: under row-level security it sees no tenant's rows."""
        if self._pool is None:
            raise Unavailable
        try:
            connection = await self._pool.acquire(timeout=_CONNECT_TIMEOUT)
            try:
                yield connection
            finally:
                # One that isn't given back in time is closed; what was answered on it stands.
                with suppress(TimeoutError):
                    await self._pool.release(connection, timeout=_RELEASE_TIMEOUT)
        except _OUTAGES as error:
            raise Unavailable from error

    @asynccontextmanager
    async def tenant(self, tenant_id: UUID) -> AsyncIterator[asyncpg.Connection]:
        """A transaction that sees one tenant's rows."""
        async with self.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.tenant_id', $1, true)", str(tenant_id))
            yield connection

    @asynccontextmanager
    async def every_tenant(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction that sees all tenants' rows: for the admin service and the worker, never for a sign-in."""
        async with self.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.scope', 'all', true)")
            yield connection

    async def row(self, sql: str, *args: Any) -> Row | None:
        """The first row of one statement, or None."""
        async with self.connection() as connection:
            row: Row | None = await connection.fetchrow(sql, *args)
            return row

    async def one(self, sql: str, *args: Any) -> Row:
        """The row of one statement that always has one, such as a function with `OUT` arguments."""
        row = await self.row(sql, *args)
        assert row is not None  # noqa: S101 - see above
        return row

    async def rows(self, sql: str, *args: Any) -> Sequence[Row]:
        """All rows of one statement."""
        async with self.connection() as connection:
            rows: Sequence[Row] = await connection.fetch(sql, *args)
            return rows

    async def run(self, sql: str, *args: Any) -> None:
        """One statement whose rows nobody needs."""
        async with self.connection() as connection:
            await connection.execute(sql, *args)
