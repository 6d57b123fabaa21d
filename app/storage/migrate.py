"""Brings a database to the newest schema, and takes it back.

Tables change by numbered Alembic revisions. The SQL functions of the hot paths are code, not state: they stand in
`.sql` files beside the Python that calls them and are put in place anew after each upgrade, in the same transaction.
"""

import hashlib
import re
from datetime import datetime
from pathlib import Path
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from app import resources

APP_ROLE: Final = "gatehouse_app"
_APP_PACKAGE = Path(__file__).parent.parent
# One migration at a time, however many processes start at once.
_MIGRATION_LOCK: Final = 7342000


def sqlalchemy_url(url: str) -> str:
    """The same database address in SQLAlchemy's spelling, on asyncpg."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+asyncpg://", url)


def run_script(connection: Connection, script: str) -> None:
    """Runs many statements at once in the connection's open transaction."""
    driver: asyncpg.Connection = connection.connection.driver_connection
    await_only(driver.execute(script))


def functions() -> str:
    """Every SQL function of the application as one script, in a stable order."""
    return "\n".join(path.read_text("utf-8") for path in sorted(_APP_PACKAGE.glob("*/sql/*.sql")))


def functions_version() -> str:
    """A fingerprint of the functions; the database carries the one it has."""
    return hashlib.sha256(functions().encode()).hexdigest()[:16]


def head() -> str:
    """The newest revision this code knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None  # noqa: S101 - there is always a first revision in the tree
    return revision


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def _run(connection: Connection, target: str, now: datetime, *, down: bool) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
    config = _config()
    config.attributes["connection"] = connection
    (command.downgrade if down else command.upgrade)(config, target)
    if not down:
        run_script(connection, functions())
        run_script(connection, f"COMMENT ON SCHEMA fn IS '{functions_version()}'")
        run_script(connection, _grants())
        run_script(connection, f"SELECT fn.ensure_partitions('{now.isoformat()}')")


def _grants() -> str:
    """The application's role may read and write rows, may only add to the audit log, and owns nothing.

    Partitions get no grant of their own: reached directly they would not be under their parent's policies.
    """
    return f"""
    DO $$
    DECLARE v_table regclass;
    BEGIN
        IF current_user = '{APP_ROLE}' OR NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP_ROLE}') THEN
            RETURN;
        END IF;
        GRANT USAGE ON SCHEMA public, fn TO {APP_ROLE};
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {APP_ROLE};
        FOR v_table IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace
                AND relkind IN ('r', 'p') AND NOT relispartition LOOP
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO {APP_ROLE}', v_table);
        END LOOP;
        REVOKE UPDATE, DELETE ON audit_events, audit_seals, audit_checkpoints FROM {APP_ROLE};
        REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {APP_ROLE};
    END $$
    """


async def upgrade(owner_url: str, now: datetime) -> None:
    """Migrates to the newest schema and puts the functions in place. Safe to run at any time, by many at once."""
    await _with_connection(owner_url, "head", now, down=False)


async def downgrade(owner_url: str, target: str, now: datetime) -> None:
    """Takes the schema back to `target`; `base` removes everything, data included."""
    await _with_connection(owner_url, target, now, down=True)


async def _with_connection(owner_url: str, target: str, now: datetime, *, down: bool) -> None:
    engine = create_async_engine(sqlalchemy_url(owner_url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run, target, now, down=down)
    finally:
        await engine.dispose()
