"""The second floor, a process of its own: the SQL of logins on raw asyncpg, with no web framework around it.

`python -m bench.floor_sql PLAN` signs in once through the core and writes down each statement it sends. Then it sends
the same statements again and again, with fresh ids: what is measured is always what the core really sends, and it
can't be forgotten here when that changes. Codes are not derived or checked, mails are not written. Two more connections
stand in for the worker, which has to stand still meanwhile.
"""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import msgspec
import uvloop

from app.asgi import create_app
from app.audit.log import Client
from app.auth.asking import Realm
from app.auth.codes import read_challenge_id
from app.delivery.outbox import Outbox, Outcome
from app.settings import load
from app.web.services import Services, utc_now
from app.worker import derive
from bench.plan import SLUGS, SqlPlan, report

# As many as a web process has, and batches as the dispatcher's.
_CONNECTIONS: Final = 10
_BATCH: Final = 64
_LINGER_SECONDS: Final = 0.005
_OWNER: Final = "bench"

Statement: TypeAlias = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Script:
    """The statements of one login, step by step, and the ids that were used in it."""

    ask: Sequence[Statement]
    claim: Statement
    settle: Statement
    verify: Sequence[Statement]
    slug: str
    tenant: UUID
    challenge: UUID
    message: UUID


async def record(plan: SqlPlan) -> Script:
    """One login through the core as a web process wires it, on stores that no worker empties."""
    app = create_app(load(plan.settings, dotenv=None))
    async with app.lifespan():
        core: Services = app.state.services
        sent: list[Statement] = []

        async def statements() -> list[Statement]:
            """What was sent since the last time."""
            # The driver tells in the event loop's next turn.
            await asyncio.sleep(0)
            taken = sent.copy()
            sent.clear()
            return taken

        async with core.db.connection() as connection:
            # The pool hands out the connection that came back last: this one, as long as one at a time is needed.
            # The driver's own questions, about types, are asked once a connection and don't belong to a login.
            connection.add_query_logger(lambda it: sent.append((it.query, it.args)) if "fn." in it.query else None)
        slug, client = SLUGS.format(0), Client("api", "10.0.0.1", "bench", "bench-request")
        outbox = Outbox(core.db, _OWNER)
        issued = await core.challenges.request(Realm.of(slug), client)
        ask, challenge = await statements(), read_challenge_id(issued.challenge_id)
        mine = None
        while mine is None:
            # What the round before left in the queue comes first.
            claimed = await outbox.claim(utc_now(), limit=_BATCH, lease=timedelta(seconds=15), max_tries=5)
            (claim,) = await statements()
            mine = next((row for row in claimed if row.challenge_id == challenge), None)
            if not claimed:
                raise RuntimeError("The message of the recorded login is not in the queue.")
        done = Outcome(mine.tenant_id, mine.id, "sent", provider="smtp", provider_message_id="250 Ok", took_ms=1)
        await outbox.settle(utc_now(), [done])
        (settle,) = await statements()
        await core.challenges.verify(Realm.of(slug), issued.challenge_id, derive(core.ring, mine), client)
        return Script(ask, claim, settle, await statements(), slug, mine.tenant_id, challenge, mine.id)


class Floor:
    """Sends the script again and again."""

    def __init__(self, plan: SqlPlan, script: Script, pool: asyncpg.Pool, tenants: Mapping[str, UUID]) -> None:
        self._plan = plan
        self._script = script
        self._pool = pool
        self._tenants = tenants
        self._mailed: dict[UUID, asyncio.Future[None]] = {}
        self._asked = asyncio.Event()
        self._unsettled: list[tuple[UUID, UUID]] = []
        self._held = 0
        self._all_settled = asyncio.Event()
        self._sent = asyncio.Event()

    async def run(self) -> None:
        count, plan = 0, self._plan

        async def work(worker: int) -> None:
            nonlocal count
            while time.monotonic() < ends:
                for number in range(worker, plan.tenants, plan.at_once):
                    await self._login(SLUGS.format(number))
                    count += 1
                    if time.monotonic() >= ends:
                        return

        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(help_out()) for help_out in (self._claim_on, self._settle_on)]
            began, cpu = time.monotonic(), time.process_time()
            ends = began + plan.seconds
            await asyncio.gather(*(work(worker) for worker in range(plan.at_once)))
            seconds, spent = time.monotonic() - began, time.process_time() - cpu
            # What is still held would be sent by the worker once more, when it goes on.
            await self._all_settled.wait()
            for helper in helpers:
                helper.cancel()
        report(count, 0, seconds, spent, {})

    async def _login(self, slug: str) -> None:
        script, challenge = self._script, uuid4()
        ids = {script.tenant: self._tenants[slug], script.challenge: challenge}
        mailed = self._mailed[challenge] = asyncio.get_running_loop().create_future()
        for sql, args in script.ask:
            await self._pool.fetchrow(sql, *self._fresh(args, slug, ids))
        self._asked.set()
        await mailed
        for sql, args in script.verify:
            await self._pool.fetchrow(sql, *self._fresh(args, slug, ids))

    def _fresh(self, args: Sequence[Any], slug: str, ids: dict[UUID, UUID]) -> list[Any]:
        """The arguments with this login's ids and the present time; an id that is not known yet is made up."""
        fresh: list[Any] = []
        for arg in args:
            match arg:
                case UUID():
                    fresh.append(ids[arg] if arg in ids else ids.setdefault(arg, uuid4()))
                case datetime():
                    fresh.append(datetime.now(UTC))
                case self._script.slug:
                    fresh.append(slug)
                case _:
                    fresh.append(arg)
        return fresh

    async def _claim_on(self) -> None:
        sql, args = self._script.claim
        async with self._pool.acquire() as connection:
            while True:
                await self._asked.wait()
                self._asked.clear()
                rows = await connection.fetch(sql, *self._fresh(args, "", {}))
                if len(rows) == _BATCH:
                    self._asked.set()
                self._held += len(rows)
                self._all_settled.clear()
                for row in rows:
                    self._unsettled.append((row["tenant_id"], row["id"]))
                    self._sent.set()
                    if mailed := self._mailed.pop(row["challenge_id"], None):
                        mailed.set_result(None)

    async def _settle_on(self) -> None:
        sql, args = self._script.settle
        async with self._pool.acquire() as connection:
            while True:
                await self._sent.wait()
                await asyncio.sleep(_LINGER_SECONDS)
                self._sent.clear()
                batch, self._unsettled = self._unsettled, []
                columns = {
                    self._script.tenant: [tenant for tenant, _ in batch],
                    self._script.message: [message for _, message in batch],
                }
                await connection.fetchrow(sql, *(_column(arg, columns, len(batch)) for arg in args))
                self._held -= len(batch)
                if not self._held:
                    self._all_settled.set()


def _column(arg: Any, columns: Mapping[UUID, list[UUID]], length: int) -> Any:
    """A list of one, as it was recorded, as long as the batch."""
    if isinstance(arg, datetime):
        return datetime.now(UTC)
    if not isinstance(arg, list):
        return arg
    return columns[arg[0]] if isinstance(arg[0], UUID) else arg * length


async def _no_reset(_: asyncpg.Connection) -> None:
    """As in app.storage.db: no statement leaves anything behind."""


async def _init(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda value: msgspec.json.encode(value).decode(), decoder=str
    )


async def main(plan: SqlPlan) -> None:
    script = await record(plan)
    pool = await asyncpg.create_pool(
        plan.settings["DATABASE_URL"],
        min_size=_CONNECTIONS + 2,
        max_size=_CONNECTIONS + 2,
        init=_init,
        reset=_no_reset,
        server_settings={"application_name": "gatehouse-bench", "jit": "off", "timezone": "UTC"},
    )
    async with pool:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.scope', 'all', true)")
            tenants = {row["slug"]: row["id"] for row in await connection.fetch("SELECT slug, id FROM tenants")}
        await Floor(plan, script, pool, tenants).run()


if __name__ == "__main__":
    uvloop.run(main(msgspec.json.decode(sys.argv[1], type=SqlPlan)))
