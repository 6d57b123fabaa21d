"""`gatehouse doctor`: what an operator would look at first, in one table."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import aiosmtplib
import asyncpg
import click
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.cli.output import print_json, print_table
from app.cli.stores import open_stores
from app.delivery.providers import providers_for
from app.errors import ConfigurationError, GatehouseError
from app.settings import Settings, load
from app.storage.migrate import functions_version, head
from app.storage.redis import FORGOTTEN_PROXY
from app.storage.rights import CAN_WRITE

_TIMEOUT: Final = 5.0
_POSTGRES: Final = 15
_REDIS: Final = 7
_VALKEY: Final = 8
_WORKER_SILENT: Final = timedelta(seconds=30)
# Codes live minutes: a second or two between two clocks is nothing, half a minute is a fault.
_SKEW_WARNS: Final = 2.0
_SKEW_FAILS: Final = 30.0

_FACTS: Final = """
SELECT current_setting('server_version_num')::integer / 10000 AS major, current_setting('server_version') AS version,
       rolname, rolsuper, rolbypassrls, clock_timestamp() AS now
FROM pg_roles WHERE rolname = current_user
"""
_UNGUARDED: Final = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND (c.relname = 'tenants' OR EXISTS (
      SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped))
  AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. A warning fails nothing."""

    check: str
    state: Literal["ok", "warning", "failed"]
    detail: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> int:
    """Check settings, database, schema, Valkey, worker and mail server. Exit code 1 if a check fails."""
    checks = examine()
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(["check", "state", "detail"], [(c.check, c.state, c.detail) for c in checks])
    return int(any(check.state == "failed" for check in checks))


def examine() -> list[Check]:
    """All checks that can be made. Embedded stores that aren't running are started for it."""
    try:
        settings = load()
    except ConfigurationError as error:
        return [Check("settings", "failed", fault) for fault in error.faults]
    checks = [Check("settings", "warning", sentence) for sentence in settings.warnings] or [
        Check("settings", "ok", f"{settings.environment}, codes by {', '.join(settings.providers)}")
    ]
    try:
        with open_stores(settings) as filled:
            return checks + asyncio.run(_examine(filled))
    except GatehouseError as error:
        return [*checks, Check("stores", "failed", error.detail)]


async def _examine(settings: Settings) -> list[Check]:
    checks = [check async for check in _database(settings)]
    checks += [check async for check in _valkey(settings)]
    return [*checks, await _providers(settings), await _smtp(settings)]


async def _database(settings: Settings) -> AsyncIterator[Check]:
    try:
        connection = await asyncpg.connect(settings.database_url, timeout=_TIMEOUT, command_timeout=_TIMEOUT)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        yield Check("database", "failed", f"{_place(settings.database_url)} can't be reached: {error}")
        return
    try:
        asked = datetime.now(UTC)
        facts = await connection.fetchrow(_FACTS)
        took = datetime.now(UTC) - asked
        yield _at_least("database", f"PostgreSQL {facts['version']}", facts["major"], _POSTGRES)
        yield _role(facts)
        yield _clock((asked + took / 2 - facts["now"]).total_seconds())
        unguarded = [row["relname"] for row in await connection.fetch(_UNGUARDED)]
        yield await _schema(connection)
        if unguarded:
            yield Check("isolation", "failed", f"Row-level security isn't forced on {', '.join(unguarded)}.")
        else:
            yield Check("isolation", "ok", "row-level security is forced on every tenant-owned table")
        yield await _worker(connection)
        async for check in _sign_in(connection, settings):
            yield check
    finally:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=_TIMEOUT)


def _role(facts: Any) -> Check:
    name = facts["rolname"]
    if facts["rolsuper"] or facts["rolbypassrls"]:
        power = "a superuser" if facts["rolsuper"] else "BYPASSRLS"
        detail = f"{name} is {power}, so nothing keeps tenants apart: put another role into DATABASE_URL."
        return Check("role", "failed", detail)
    return Check("role", "ok", f"{name} is neither superuser nor BYPASSRLS")


def _clock(skew: float) -> Check:
    """`skew` is how many seconds we are ahead of the database."""
    detail = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the database"
    if abs(skew) >= _SKEW_FAILS:
        return Check("clock", "failed", f"{detail}: codes would expire at the wrong time.")
    return Check("clock", "warning" if abs(skew) >= _SKEW_WARNS else "ok", detail)


async def _schema(connection: asyncpg.Connection) -> Check:
    try:
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
        functions = await connection.fetchval("SELECT obj_description(to_regnamespace('fn'), 'pg_namespace')")
    except asyncpg.PostgresError:
        revision = functions = None
    if revision is None:
        return Check("schema", "failed", "The database has no tables yet: run `gatehouse migrate`.")
    if revision != head():
        return Check(
            "schema", "failed", f"It is at revision {revision}, this version needs {head()}: `gatehouse migrate`."
        )
    if functions != functions_version():
        return Check("schema", "failed", "Its SQL functions are of another version: run `gatehouse migrate`.")
    return Check("schema", "ok", f"revision {revision}, functions {functions}")


async def _sign_in(connection: asyncpg.Connection, settings: Settings) -> AsyncIterator[Check]:
    """Whether a sign-in could be written, as readiness asks; and whether there is who DEFAULT_TENANT names."""
    try:
        facts = await connection.fetchrow(CAN_WRITE)
        if facts["read_only"]:
            yield Check("writing", "failed", "The database is read-only: a standby, or default_transaction_read_only.")
        if lacking := [*(() if facts["calls"] else ("usage on schema fn",)), *facts["lacking"]]:
            yield Check("rights", "failed", f"The role lacks {', '.join(lacking)}: run `gatehouse migrate`.")
        if settings.default_tenant:
            async with connection.transaction(readonly=True):
                await connection.execute("SELECT set_config('app.scope', 'all', true)")
                found = await connection.fetchval("SELECT 1 FROM tenants WHERE slug = $1", settings.default_tenant)
            if not found:
                detail = f"DEFAULT_TENANT is {settings.default_tenant}, and there is no such tenant."
                yield Check("default tenant", "warning", detail)
    except asyncpg.PostgresError as error:
        if not isinstance(error, asyncpg.UndefinedTableError | asyncpg.InvalidSchemaNameError):  # `schema` tells
            yield Check("rights", "failed", f"A sign-in could not be written: {error}")


async def _worker(connection: asyncpg.Connection) -> Check:
    try:
        seen_at = await connection.fetchval("SELECT max(seen_at) FROM workers")
    except asyncpg.PostgresError:
        seen_at = None
    if seen_at is None:
        return Check("worker", "warning", "none is running: codes wait until one does")
    silent = datetime.now(UTC) - seen_at
    if silent > _WORKER_SILENT:
        return Check("worker", "warning", f"none was heard of for {silent.total_seconds():.0f} s: codes wait")
    return Check("worker", "ok", "alive")


async def _valkey(settings: Settings) -> AsyncIterator[Check]:
    assert settings.redis_url is not None  # noqa: S101 - open_stores has filled it in
    client = Redis.from_url(settings.redis_url, socket_connect_timeout=_TIMEOUT, socket_timeout=_TIMEOUT)
    try:
        info: dict[str, Any] = await client.info("server")
        forgotten: Any = await client.get(FORGOTTEN_PROXY)
    except (RedisError, OSError) as error:
        # Sign-in works without it, within every cap.
        yield Check("valkey", "warning", f"{_place(settings.redis_url)} can't be reached: {error}")
        return
    finally:
        with suppress(RedisError, OSError):
            await client.aclose()
    if version := info.get("valkey_version"):
        yield _at_least("valkey", f"Valkey {version}", _major(version), _VALKEY)
    else:
        version = info.get("redis_version", "0")
        yield _at_least("valkey", f"Redis {version}", _major(version), _REDIS)
    if forgotten:
        yield Check("proxies", "warning", forgotten.decode(errors="replace"))


async def _providers(settings: Settings) -> Check:
    """Whether the worker would start with them. Nobody is called: what a vendor charges for is `send-test`'s."""
    try:
        made = providers_for(settings)
    except ConfigurationError as error:
        return Check("providers", "failed", " ".join(error.faults))
    for provider in chain.from_iterable(made.values()):
        await provider.close()
    if not settings.sms_allowed_countries and set(settings.providers.get("sms", ())) - {"console"}:
        return Check("providers", "warning", "SMS go to every country: name yours in SMS_ALLOWED_COUNTRIES.")
    named = (f"{channel} by {', '.join(names)}" for channel, names in settings.providers.items())
    return Check("providers", "ok", "; ".join(named))


async def _smtp(settings: Settings) -> Check:
    """Says hello and signs in as a mail would, and sends none."""
    if not settings.smtp_enabled:
        return Check("smtp", "ok", "switched off" if settings.production else "switched off: codes appear in the log")
    server = f"{settings.smtp_host}:{settings.smtp_port}"
    client = aiosmtplib.SMTP(
        hostname=settings.smtp_host,
        port=settings.smtp_port,
        use_tls=settings.smtp_use_ssl,
        start_tls=settings.smtp_use_tls,
        username=settings.smtp_username,
        password=settings.smtp_password,
        timeout=min(_TIMEOUT, settings.smtp_timeout_seconds),
        local_hostname=settings.smtp_ehlo_name,
    )
    try:
        async with client:
            await client.ehlo()
    except (aiosmtplib.SMTPException, OSError) as error:
        return Check("smtp", "failed", f"{server}: {error}")
    secured = "TLS" if settings.smtp_use_ssl or settings.smtp_use_tls else "no TLS"
    return Check("smtp", "ok", f"{server} answers, {secured}")


def _at_least(check: str, found: str, major: int, needed: int) -> Check:
    if major < needed:
        return Check(check, "failed", f"{found} is too old: {needed} or later is needed.")
    return Check(check, "ok", found)


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _place(url: str | None) -> str:
    """Where a URL leads, without the password in it."""
    parts = urlsplit(url or "")
    return f"{parts.hostname or parts.path}{f':{parts.port}' if parts.port else ''}"
