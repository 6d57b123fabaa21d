"""Whether this process is alive, and whether it can sign people in."""

from datetime import timedelta
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import msgspec
from litestar import Response, Router, get

from app import resources
from app.errors import Unavailable
from app.storage import trouble
from app.storage.db import Row
from app.storage.redis import AcceleratorDown
from app.storage.rights import CAN_WRITE
from app.web.services import AnyRequest, Services, services

Verdict: TypeAlias = Literal["ok", "degraded", "unavailable"]

# No row in `alembic_version` reads as NULL, no such table as an error: neither is migrated. Whether a sign-in could be
# written is asked of the catalogue, so that a probe writes nothing.
_PROBE: Final = f"""
SELECT (SELECT version_num FROM alembic_version) AS revision, (SELECT max(seen_at) FROM workers) AS seen, writing.*
FROM ({CAN_WRITE}) AS writing
"""
_NOT_MIGRATED: Final = frozenset({"42P01", "3F000"})
_WORKER_SEEN_WITHIN: Final = timedelta(seconds=30)


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the process is; `checks` says why, one sentence each."""

    status: Verdict
    checks: dict[str, str] = {}


@cache
def expected_revision() -> str:
    """The newest revision in the tree, by its file's number: Alembic knows too, but costs a web process its memory."""
    return max(path.name.partition("_")[0] for path in (resources.MIGRATIONS / "versions").glob("[0-9]*_*.py"))


async def readiness(core: Services) -> Health:
    """Unavailable without a migrated database; degraded where only something slower or later is missing."""
    database, schema, worker = await _ask_database(core)
    try:
        await core.accelerator.ping()
        accelerator = "ok"
    except AcceleratorDown:
        accelerator = "degraded: not reachable; limits are kept by the database and this process"
    checks = {"database": database, "schema": schema, "valkey": accelerator, "worker": worker}
    verdicts: set[Any] = {text.partition(":")[0] for text in checks.values()}
    status: Verdict = next((verdict for verdict in ("unavailable", "degraded") if verdict in verdicts), "ok")
    return Health(status, checks)


async def _ask_database(core: Services) -> tuple[str, str, str]:
    """What is to be said about the database, its schema and the worker."""
    unknown = "degraded: unknown without the database"
    try:
        row = await core.db.row(_PROBE)
    except Unavailable as error:
        state = trouble.sqlstate(error)
        if state is None:
            return "unavailable: not reachable", unknown, unknown
        if state not in _NOT_MIGRATED:
            return f"unavailable: {trouble.name(error.__cause__ or error)}", unknown, unknown
        row = None
    revision = row["revision"] if row else None
    database = await _can_write(core, row) if row else "ok"
    if revision is None or revision < expected_revision():
        return database, f"unavailable: at {revision or 'nothing'}, run `gatehouse migrate`", unknown
    # A newer process has migrated: the old ones go on until they are replaced.
    schema = "ok" if revision == expected_revision() else f"degraded: at {revision}, newer than this process"
    seen = row["seen"] if row else None
    if seen is None or core.clock() - seen > _WORKER_SEEN_WITHIN:
        return database, schema, "degraded: none seen in the last 30 seconds; codes wait in the outbox"
    return database, schema, "ok"


async def _can_write(core: Services, row: Row) -> str:
    """Whether a sign-in could be written down, and if not, why."""
    if row["read_only"]:
        # After a failover the old connections may still lead to what is a standby now.
        await core.db.renew_connections()
        return "unavailable: it is read-only"
    lacking = [*(() if row["calls"] else ("usage on schema fn",)), *row["lacking"]]
    if lacking:
        return f"unavailable: our role lacks {', '.join(lacking)}; `gatehouse migrate` grants it"
    if core.db.trouble:
        return f"unavailable: {core.db.trouble}"
    return "ok"


@get(["/", "/live"])
async def live() -> Health:
    """Asks nothing of anybody: the process answers."""
    return Health("ok")


@get("/ready")
async def ready(request: AnyRequest) -> Response[Health]:
    """503 while nobody could sign in; degraded is 200 and says so."""
    health = await readiness(services(request))
    return Response(health, status_code=503 if health.status == "unavailable" else 200)


router: Final = Router("/health", route_handlers=[live, ready], tags=["Operations"], include_in_schema=False)
