"""Errors of PostgreSQL, made by a real one: 503 and nothing half done, readiness says why, and the log says it once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest
from asyncpg.exceptions import InternalClientError
from structlog.testing import capture_logs

from app.errors import Unavailable
from app.settings import Settings
from app.storage import trouble
from app.storage.db import Database, repeatable
from app.storage.migrate import upgrade
from tests.conftest import Clock
from tests.http import Http, serve
from tests.pages import visitor
from tests.people import SomeTenant, add_tenant
from tests.stores import StoresOfTests

_FAIL = """
CREATE SEQUENCE IF NOT EXISTS failures;
GRANT ALL ON SEQUENCE failures TO PUBLIC;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('failures') <= {times} THEN RAISE EXCEPTION 'made to fail' USING ERRCODE = '{state}'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fail BEFORE INSERT ON challenges FOR EACH ROW EXECUTE FUNCTION fail()
"""
_ALWAYS = 1_000_000


class Damaged:
    """A database of the test's own, which its owner may damage."""

    def __init__(self, name: str, settings: Settings, owner: asyncpg.Connection, outside: asyncpg.Connection) -> None:
        self.name = name
        self.settings = settings
        self.owner = owner
        # As the application, but in another database: only it may end what it has begun.
        self._outside = outside

    async def end_connections(self) -> None:
        """Ends every connection of the application to this database, whatever it is at."""
        await self._outside.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = $1 AND usename = current_user",
            self.name,
        )

    @asynccontextmanager
    async def failing(self, state: str, times: int = _ALWAYS) -> AsyncIterator[None]:
        """The first `times` challenges are refused with this SQLSTATE."""
        await self.owner.execute(_FAIL.format(state=state, times=times))
        try:
            yield
        finally:
            await self.owner.execute("DROP FUNCTION fail CASCADE; DROP SEQUENCE failures")

    async def tries(self) -> int:
        """How many challenges were tried to be written; a sequence forgets nothing when a transaction is undone."""
        tried: int = await self.owner.fetchval("SELECT last_value FROM failures")
        return tried

    async def rows(self) -> list[int]:
        """How many rows a request for a code would have left."""
        tables = ("challenges", "outbox", "quota", "audit_events")
        # Its owner is under row-level security, too.
        async with self.owner.transaction():
            await self.owner.execute("SELECT set_config('app.scope', 'all', true)")
            return [await self.owner.fetchval(f"SELECT count(*) FROM {table}") for table in tables]


@pytest.fixture
async def damaged(stores: StoresOfTests, settings: Settings) -> AsyncIterator[Damaged]:
    name = f"damaged_{uuid4().hex[:12]}"
    await stores.create_database(name)
    await upgrade(stores.owner_url_for(name), datetime.now(UTC))
    owner = await asyncpg.connect(stores.owner_url_for(name))
    outside = await asyncpg.connect(settings.database_url)
    damaged = Damaged(name, replace(settings, database_url=stores.app_url_for(name)), owner, outside)
    yield damaged
    await damaged.end_connections()
    await owner.close()
    await outside.close()
    await stores.drop_database(name)


@pytest.fixture
async def db(damaged: Damaged) -> AsyncIterator[Database]:
    database = Database(damaged.settings.database_url or "")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def tenant(db: Database, clock: Clock) -> SomeTenant:
    return await add_tenant(db, clock())


@pytest.fixture
async def http(damaged: Damaged, clock: Clock) -> AsyncIterator[Http]:
    async with serve(damaged.settings, clock) as served:
        yield served


async def readiness(http: Http) -> tuple[int, str]:
    answer = await http.get("/health/ready")
    return answer.status_code, answer.json()["checks"]["database"]


# What PostgreSQL says when the disk is full, memory is out, connections are used up, a right is lost, another
# transaction is preferred, a standby answers, somebody shuts it down, a lock or a statement takes too long, a file
# can't be read, it is broken itself, or its schema is of another release.
OUTAGES = [
    "53100", "53200", "53300", "53400", "42501", "25006", "40001", "40P01", "57014", "57P01", "57P02", "57P03",
    "55P03", "55006", "58030", "58P01", "XX000", "XX001", "42P01", "42703", "42883", "3F000", "0A000", "08006",
    "28000", "3D000", "54001", "26000", "25P02", "F0001",
]  # fmt: skip


@pytest.mark.parametrize("state", OUTAGES)
async def test_any_error_of_the_database_is_503(damaged: Damaged, http: Http, tenant: SomeTenant, state: str) -> None:
    """Whatever it is that PostgreSQL can't do: come back later. Nothing is half done, one line in the log names it."""
    before = await damaged.rows()
    async with damaged.failing(state):
        with capture_logs() as logs:
            answers = [await http.otp(tenant.slug, "request") for _ in range(3)]
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert "made to fail" not in answer.text
        assert await damaged.rows() == before
    errors = [line for line in logs if line["log_level"] == "error"]
    assert len(errors) == 1
    assert f"({state})" in errors[0]["reason"]
    assert (await http.otp(tenant.slug, "request")).status_code == 202


@pytest.mark.parametrize("state", ["22001", "23505", "23514", "42601", "P0001", "21000"])
async def test_a_mistake_of_ours_stays_one(damaged: Damaged, http: Http, tenant: SomeTenant, state: str) -> None:
    """Asking again would not help: an error that somebody has to mend is a 500 and a traceback."""
    async with damaged.failing(state):
        with capture_logs() as logs:
            answer = await http.otp(tenant.slug, "request")
    assert (answer.status_code, answer.json()["code"]) == (500, "error")
    assert any(line["event"] == "Unhandled error" for line in logs)


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_a_conflict_is_tried_once_more(damaged: Damaged, http: Http, tenant: SomeTenant, state: str) -> None:
    """Two people who are in each other's way notice nothing; a conflict that stays is tried twice and no oftener."""
    async with damaged.failing(state, times=1):
        assert (await http.otp(tenant.slug, "request")).status_code == 202
        assert await damaged.tries() == 2
    async with damaged.failing(state):
        assert (await http.otp(tenant.slug, "request")).status_code == 503
        assert await damaged.tries() == 2


async def test_other_errors_are_not_repeated(damaged: Damaged, http: Http, tenant: SomeTenant) -> None:
    """A full disk doesn't get emptier by insisting."""
    async with damaged.failing("53100"):
        await http.otp(tenant.slug, "request")
        assert await damaged.tries() == 1


@pytest.mark.parametrize("page", ["/t/{slug}/login", "/admin/sign-in"])
async def test_a_page_says_try_again(damaged: Damaged, http: Http, tenant: SomeTenant, page: str) -> None:
    """A person sees a page that says so, not a document and not a stack of words."""
    await damaged.owner.execute("REVOKE USAGE ON SCHEMA fn FROM gatehouse_app")
    async with visitor(http) as somebody:
        await somebody.open(page.format(slug=tenant.slug))
        answer = await somebody.send(page.format(slug=tenant.slug), {"email": "a@b.example"} if "admin" in page else {})
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["retry-after"]
    assert "try again" in answer.text.lower()


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("INSERT ON challenges", "insert on challenges"),
        ("UPDATE ON outbox", "update on outbox"),
        ("SELECT ON tenants", "select on tenants"),
        ("INSERT ON audit_events", "insert on audit_events"),
        ("ALL ON quota", "insert on quota"),
        ("SELECT ON factors", "select on factors"),
        ("INSERT ON half_sign_ins", "insert on half_sign_ins"),
        ("INSERT ON repeats", "insert on repeats"),
        ("SELECT ON contact_health", "select on contact_health"),
        ("USAGE ON SCHEMA fn", "fn"),
        ("SELECT ON workers", "insufficient privilege (42501)"),
        ("SELECT ON alembic_version", "insufficient privilege (42501)"),
    ],
)
async def test_a_lost_right_is_seen_by_readiness(damaged: Damaged, http: Http, lost: str, told: str) -> None:
    """Without waiting for a person to stumble over it; given back, all is well at once."""
    assert await readiness(http) == (200, "ok")
    await damaged.owner.execute(f"REVOKE {lost} FROM gatehouse_app")
    status, said = await readiness(http)
    assert (status, said.partition(":")[0]) == (503, "unavailable")
    assert told in said
    await damaged.owner.execute(f"GRANT {lost} TO gatehouse_app")
    assert await readiness(http) == (200, "ok")


async def test_a_full_disk_is_seen_by_readiness(damaged: Damaged, http: Http, tenant: SomeTenant) -> None:
    """A probe writes nothing, so it goes by what the process has just met."""
    async with damaged.failing("53100"):
        await http.otp(tenant.slug, "request")
        assert await readiness(http) == (503, "unavailable: disk full (53100)")


async def test_one_conflict_is_no_reason_to_be_unready(damaged: Damaged, http: Http, tenant: SomeTenant) -> None:
    """What one request met and the next need not must not take a process out of service."""
    for state in ("40P01", "55P03", "57014", "42883", "53300"):
        async with damaged.failing(state):
            await http.otp(tenant.slug, "request")
            assert await readiness(http) == (200, "ok"), state


async def test_after_a_failover_the_old_connections_go(damaged: Damaged, http: Http, tenant: SomeTenant) -> None:
    """Read-only is 503 and said by readiness; once it is over, no connection is left that believes otherwise."""
    await damaged.owner.execute(f"ALTER DATABASE {damaged.name} SET default_transaction_read_only = on")
    await damaged.end_connections()
    before = await damaged.rows()
    assert (await http.otp(tenant.slug, "request")).status_code == 503
    assert await readiness(http) == (503, "unavailable: it is read-only")
    assert await damaged.rows() == before
    await damaged.owner.execute(f"ALTER DATABASE {damaged.name} RESET default_transaction_read_only")
    assert (await http.otp(tenant.slug, "request")).status_code == 202
    assert await readiness(http) == (200, "ok")


async def test_connections_that_are_ended_all_the_time(
    damaged: Damaged, http: Http, clock: Clock, db: Database
) -> None:
    """`pg_terminate_backend` in a storm: answers are 202 or 503, never 500, and it ends with the storm."""
    tenants = [await add_tenant(db, clock()) for _ in range(30)]

    async def storm() -> None:
        while True:
            await damaged.end_connections()

    blowing = asyncio.create_task(storm())
    answers = await asyncio.gather(*(http.otp(each.slug, "request") for each in tenants))
    probes = [await http.get("/health/ready") for _ in range(5)]
    blowing.cancel()
    await asyncio.gather(blowing, return_exceptions=True)
    assert {answer.status_code for answer in answers} <= {202, 503}
    assert {probe.status_code for probe in probes} <= {200, 503}
    again = [await http.otp(each.slug, "request") for each in tenants]
    assert {answer.status_code for answer in again[1:]} <= {202, 429}


async def test_a_lock_that_is_not_let_go(damaged: Damaged, http: Http, tenant: SomeTenant) -> None:
    """Somebody's ALTER TABLE stands in the way: 503 in time, and nothing is done later behind the caller's back."""
    async with damaged.owner.transaction():
        await damaged.owner.execute("LOCK TABLE challenges IN ACCESS EXCLUSIVE MODE")
        assert (await http.otp(tenant.slug, "request")).status_code == 503
    assert (await damaged.rows())[0] == 0


async def test_a_real_deadlock_is_tried_once_more(damaged: Damaged, db: Database, clock: Clock) -> None:
    """Two transactions that each hold what the other wants: ours is ended, and succeeds the second time."""
    first, second = await add_tenant(db, clock()), await add_tenant(db, clock())
    rename = "UPDATE tenants SET name = 'ours' WHERE id = $1"
    have_first, go_on = asyncio.Event(), asyncio.Event()
    tries = 0

    @repeatable
    async def ours() -> None:
        nonlocal tries
        tries += 1
        async with db.every_tenant() as connection:
            await connection.execute(rename, first.id)
            have_first.set()
            await go_on.wait()
            await connection.execute(rename, second.id)

    other = await asyncpg.connect(damaged.settings.database_url)
    working = asyncio.create_task(ours())
    await have_first.wait()
    async with other.transaction():
        await other.execute("SELECT set_config('app.scope', 'all', true)")
        await other.execute(rename.replace("ours", "theirs"), second.id)
        go_on.set()
        # Whoever waits first looks for a deadlock first, and is the one to be ended.
        while not await damaged.owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await other.execute(rename.replace("ours", "theirs"), first.id)
    await working
    await other.close()
    assert tries == 2


async def test_what_was_committed_before_is_not_repeated(db: Database, damaged: Damaged, tenant: SomeTenant) -> None:
    """Only a piece of work of which nothing is done yet is ours to do again."""
    tries = 0

    @repeatable
    async def twofold() -> None:
        nonlocal tries
        tries += 1
        await db.run("SELECT 1")
        async with db.every_tenant() as connection:
            await connection.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$")

    with pytest.raises(Unavailable):
        await twofold()
    assert tries == 1

    outer = repeatable(twofold)
    with pytest.raises(Unavailable):
        await outer()
    assert tries == 2


async def test_a_connection_in_disorder_is_not_used_again(db: Database) -> None:
    """Two statements at once on one connection are refused by asyncpg itself; that connection goes."""
    seen = []

    async def disorder() -> None:
        async with db.connection() as connection:
            seen.append(await connection.fetchval("SELECT pg_backend_pid()"))
            await asyncio.gather(connection.execute("SELECT pg_sleep(0.1)"), connection.execute("SELECT 1"))

    with pytest.raises(Unavailable):
        await disorder()
    assert (await db.one("SELECT pg_backend_pid() AS pid"))["pid"] not in seen


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (InternalClientError("cannot switch to state 15; another operation (2) is in progress"), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (asyncpg.exceptions.OutdatedSchemaCacheError("x"), True),
        (asyncpg.exceptions.ClientConfigurationError("no such host"), True),
        (asyncpg.UniqueViolationError("x"), False),
        (ZeroDivisionError(), False),
        (ValueError(), False),
    ],
)
def test_what_counts_as_an_outage(error: Exception, outage: bool) -> None:
    """Errors of the client library are the database's, those of our own code aren't."""
    assert trouble.is_outage(error) is outage


async def test_a_value_that_does_not_fit_is_our_mistake(db: Database) -> None:
    """The client library refuses it before anything is sent: that is no outage."""
    with pytest.raises(asyncpg.DataError):
        await db.run("SELECT $1::integer", "eight")


async def test_the_log_holds_no_values(damaged: Damaged, http: Http, tenant: SomeTenant) -> None:
    """What PostgreSQL quotes of a row in DETAIL, HINT or CONTEXT stays out; the table's name does not."""
    await damaged.owner.execute("REVOKE INSERT ON challenges FROM gatehouse_app")
    with capture_logs() as logs:
        await http.otp(tenant.slug, "request", {"identifier": tenant.email})
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert line["detail"] == "permission denied for table challenges"
    assert str(tenant.email) not in str(logs)


async def test_readiness_without_tables_is_503(damaged: Damaged, http: Http) -> None:
    """An empty, a half-made and a strange database: unavailable with a reason, and never a 500."""
    await damaged.owner.execute("ALTER TABLE workers RENAME TO labourers")
    status, _ = await readiness(http)
    assert status == 503
    await damaged.owner.execute("ALTER TABLE alembic_version RENAME COLUMN version_num TO num")
    await damaged.owner.execute("ALTER TABLE labourers RENAME TO workers")
    status, said = await readiness(http)
    assert (status, said) == (503, "unavailable: undefined column (42703)")
