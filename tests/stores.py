"""PostgreSQL and Valkey for the tests: the embedded ones, or those named by TEST_DATABASE_URL and TEST_REDIS_URL.

One pair serves all processes of one test run. Whoever needs it first starts it and, at its own end, waits for the
others. Nothing waits for the disk: the data need not survive a crash of the machine.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app import embedded
from app.embedded import APP_ROLE, OWNER_ROLE

_WAIT_FOR_OTHERS: Final = 110.0
# On an outside server, which is the tester's own, the roles get a password nobody has to guess.
_OUTSIDE_PASSWORD: Final = "gatehouse-tests"
_ROLES_LOCK: Final = 7342999


@dataclass(frozen=True, slots=True)
class StoresOfTests:
    """Servers that are up. The database that `owner_url` and `app_url` lead to is nobody's: make your own."""

    owner_url: str
    app_url: str
    admin_url: str
    redis_url: str
    stop: Callable[[], None]
    """Lets go of the servers; who started them stops them once nobody needs them any more."""

    def owner_url_for(self, database: str) -> str:
        """Where the owner, who migrates, finds a database."""
        return _address(self.owner_url, database)

    def app_url_for(self, database: str) -> str:
        """Where the application, which is under row-level security, finds a database."""
        return _address(self.app_url, database)

    async def create_database(self, name: str, *, template: str = "template1") -> None:
        """Makes a fresh database of the owner's, replacing one of that name.

        Nobody may be connected to `template` at that moment.
        """
        await self.drop_database(name)
        await _execute(self.admin_url, f'CREATE DATABASE "{name}" OWNER {OWNER_ROLE} TEMPLATE "{template}"')

    async def drop_database(self, name: str) -> None:
        """Removes a database, whoever is connected to it."""
        await _execute(self.admin_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def start_test_stores() -> StoresOfTests:
    """The servers of this test run. On an outside PostgreSQL it makes the two roles, as the role in its URL."""
    database_url, redis_url = os.environ.get("TEST_DATABASE_URL"), os.environ.get("TEST_REDIS_URL")
    if database_url:
        await _execute(database_url, _make_roles())
    if database_url and redis_url:
        return _outside(database_url, redis_url, stop=lambda: None)
    # Not pytest's own directory: as root the servers run as a user who can't enter it.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    directory = Path(tempfile.gettempdir(), f"gatehouse-tests-{os.geteuid()}-{run}")
    servers = embedded.share(directory, postgres=not database_url, valkey=not redis_url, unsafe_for_tests=True)

    def stop() -> None:
        servers.stop(wait_for_users=_WAIT_FOR_OTHERS)
        if embedded.holder(directory) is None:
            shutil.rmtree(directory, ignore_errors=True)

    redis_url = redis_url or servers.redis_url
    assert redis_url is not None
    if database_url:
        return _outside(database_url, redis_url, stop=stop)
    assert servers.owner_url is not None
    assert servers.database_url is not None
    return StoresOfTests(servers.owner_url, servers.database_url, servers.owner_url, redis_url, stop)


def _outside(database_url: str, redis_url: str, *, stop: Callable[[], None]) -> StoresOfTests:
    name = urlsplit(database_url).path.removeprefix("/") or "postgres"
    owner_url, app_url = (_address(database_url, name, role=role) for role in (OWNER_ROLE, APP_ROLE))
    return StoresOfTests(owner_url, app_url, database_url, redis_url, stop)


def _address(url: str, database: str, *, role: str | None = None) -> str:
    parts = urlsplit(url)
    login = f"{role}:{_OUTSIDE_PASSWORD}@{parts.netloc.rpartition('@')[2]}" if role else parts.netloc
    return urlunsplit(parts._replace(netloc=login, path=f"/{database}"))


def _make_roles() -> str:
    """One script and so one transaction, in which the processes of a run take turns."""
    statements = [f"SELECT pg_advisory_xact_lock({_ROLES_LOCK})"]
    for role in (OWNER_ROLE, APP_ROLE):
        unless = f"IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
        statements += [
            f"DO $$ BEGIN {unless} THEN CREATE ROLE {role}; END IF; END $$",
            f"ALTER ROLE {role} LOGIN PASSWORD '{_OUTSIDE_PASSWORD}'",
        ]
    return "; ".join(statements)


async def _execute(url: str, script: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()
