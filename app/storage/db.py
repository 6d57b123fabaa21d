"""PostgreSQL through asyncpg: one pool a process, tenants kept apart, outages told as `Unavailable`."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar
from uuid import UUID

import asyncpg
import msgspec
import structlog

from app.errors import Unavailable
from app.storage import trouble

P = ParamSpec("P")
T = TypeVar("T")

# A caller learns within 2 seconds that the database is away (architecture.md, "Two stores").
_CONNECT_TIMEOUT: Final = 1.5
_COMMAND_TIMEOUT: Final = 1.7
# After a timeout asyncpg asks the server to cancel and waits for its word: a silent one gets no longer than this.
_RELEASE_TIMEOUT: Final = 0.1

# An error is told once in so many seconds, however many requests meet it.
_TELL_SECONDS: Final = 60.0
# So long after the last statement that met it, a lasting trouble counts as over until the next one meets it again.
_TROUBLE_SECONDS: Final = 10.0

# An asyncpg.Record: columns by name.
Row: TypeAlias = Mapping[str, Any]


# How many transactions the piece of work under way has committed, for `repeatable`; None outside of one.
_commits: ContextVar[list[None] | None] = ContextVar("commits", default=None)


def repeatable(work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Does a piece of work once more when PostgreSQL ended its transaction for the sake of another's.

    For what changes nothing but the database: a deadlock or a serialization failure rolls all of it back. Where part
    of it was committed before, it isn't ours to repeat and the caller gets `Unavailable` at once, as after the second
    time. A lone statement (`row`, `rows`, `run`) needs no such care: the database repeats it by itself.
    """

    @wraps(work)
    async def done(*args: P.args, **kwargs: P.kwargs) -> T:
        commits: list[None] = []
        outer = _commits.get()
        token = _commits.set(commits)
        try:
            return await work(*args, **kwargs)
        except Unavailable as error:
            if commits or not trouble.is_conflict(error):
                raise
        finally:
            _commits.reset(token)
            if outer is not None:
                outer.extend(commits)
        return await work(*args, **kwargs)

    return done


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
    `Unavailable` when the server can't be reached, doesn't answer in time or can't do it now (app.storage.trouble);
    nothing is then half done, because a lone statement is a transaction. Which error it was is logged, once a minute.
    """

    def __init__(self, url: str, *, size: int = 10, application: str = "gatehouse", logs: bool = True) -> None:
        """A command, which tells what it met itself, wants no `logs`."""
        self._logs = logs
        self._url = url
        self._size = size
        self._application = application
        self._pool: asyncpg.Pool | None = None
        self._told: dict[str, float] = {}
        self._trouble: tuple[str, float] | None = None

    @property
    def trouble(self) -> str | None:
        """The lasting error that statements of this process have met lately, such as `disk full (53100)`."""
        if self._trouble is None or time.monotonic() - self._trouble[1] > _TROUBLE_SECONDS:
            return None
        return self._trouble[0]

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
            except Exception as error:
                if trouble.ends_connection(error):
                    connection.terminate()
                raise
            finally:
                # One that can't be given back, or not in time, is closed; what was answered on it stands.
                with suppress(Exception):
                    await self._pool.release(connection, timeout=_RELEASE_TIMEOUT)
        except Exception as error:
            if not trouble.is_outage(error):
                raise
            await self._take_note(error)
            raise Unavailable from error
        if (commits := _commits.get()) is not None:
            commits.append(None)

    async def renew_connections(self) -> None:
        """Makes none of the present connections be used again: they lead to a server that can't write any more."""
        if self._pool is not None:
            await self._pool.expire_connections()

    async def _take_note(self, error: Exception) -> None:
        found = trouble.name(error)
        now = time.monotonic()
        if trouble.lasts(error):
            self._trouble = (found, now)
        if trouble.ends_all_connections(error):
            await self.renew_connections()
        if self._logs and now - self._told.get(found, float("-inf")) >= _TELL_SECONDS:
            self._told[found] = now
            structlog.get_logger().error(
                "The database can't do its work",
                error_class=type(error).__name__,
                reason=found,
                detail=trouble.told(error),
            )

    @asynccontextmanager
    async def _transaction(self, setting: str, value: str) -> AsyncIterator[asyncpg.Connection]:
        async with self.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config($1, $2, true)", setting, value)
            yield connection

    @asynccontextmanager
    async def tenant(self, tenant_id: UUID) -> AsyncIterator[asyncpg.Connection]:
        """A transaction that sees one tenant's rows."""
        async with self._transaction("app.tenant_id", str(tenant_id)) as connection:
            yield connection

    @asynccontextmanager
    async def every_tenant(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction that sees all tenants' rows: for the admin service and the worker, never for a sign-in."""
        async with self._transaction("app.scope", "all") as connection:
            yield connection

    async def row(self, sql: str, *args: Any) -> Row | None:
        """The first row of one statement, or None."""

        async def fetch(connection: asyncpg.Connection) -> Row | None:
            row: Row | None = await connection.fetchrow(sql, *args)
            return row

        return await self._alone(fetch)

    async def one(self, sql: str, *args: Any) -> Row:
        """The row of one statement that always has one, such as a function with `OUT` arguments."""
        row = await self.row(sql, *args)
        assert row is not None  # noqa: S101 - see above
        return row

    async def rows(self, sql: str, *args: Any) -> Sequence[Row]:
        """All rows of one statement."""

        async def fetch(connection: asyncpg.Connection) -> Sequence[Row]:
            rows: Sequence[Row] = await connection.fetch(sql, *args)
            return rows

        return await self._alone(fetch)

    async def run(self, sql: str, *args: Any) -> None:
        """One statement whose rows nobody needs."""

        async def execute(connection: asyncpg.Connection) -> None:
            await connection.execute(sql, *args)

        await self._alone(execute)

    async def _alone(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """One statement, which is a whole transaction: repeated once when another's was preferred."""
        try:
            async with self.connection() as connection:
                return await work(connection)
        except Unavailable as error:
            if not trouble.is_conflict(error):
                raise
        async with self.connection() as connection:
            return await work(connection)
