"""The load client, a process of its own: `python -m bench.load PLAN` signs in as tenants do.

A login is: ask for a code, wait until it is in the mail, send it back, get tokens. Those that a machine with too much
to do refuses with 503 are counted apart. Anything else ends the process: a rate with errors in it says nothing.
"""

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, cast

import msgspec
import uvloop

from bench.http1 import Connection, Refused, Unexpected
from bench.plan import DOMAIN, SLUGS, Plan, report

_MAIL_SECONDS: Final = 30.0
_FILL_AT_ONCE: Final = 16
_READ: Final = msgspec.json.Decoder().decode


class Mailbox(asyncio.Protocol):
    """Every mail the sink takes: its code and when it came. One code at a time is awaited for each address."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._rest = b""
        self._awaited: dict[str, asyncio.Future[tuple[str, float]]] = {}

    @classmethod
    async def open(cls, port: int) -> "Mailbox":
        _, mailbox = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return mailbox

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            recipient, code, arrived = line.decode().split()
            if awaited := self._awaited.pop(recipient, None):
                awaited.set_result((code, float(arrived)))

    def next_to(self, recipient: str) -> asyncio.Future[tuple[str, float]]:
        """Code and moment of the next mail to an address."""
        awaited = self._awaited[recipient] = asyncio.get_running_loop().create_future()
        return awaited

    def one_mail_per_connection(self, wanted: bool) -> None:
        self._transport.write(b"one\n" if wanted else b"many\n")


class Tenant:
    """One tenant's person, with an address of their own behind a proxy."""

    def __init__(self, number: int) -> None:
        slug = SLUGS.format(number)
        self.email = f"contact@{slug}.{DOMAIN}"
        self.headers = f"X-Forwarded-For: 10.0.{number >> 8 & 255}.{number & 255}\r\nAccept-Language: en\r\n"
        self.request = f"/api/v1/tenants/{slug}/otp/request"
        self.verify = f"/api/v1/tenants/{slug}/otp/verify"


class Load:
    """Carries out one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tenants = [Tenant(number) for number in range(plan.tenants)]
        self._samples: defaultdict[str, list[float]] = defaultdict(list)
        self._refused = 0
        self._mailbox: Mailbox

    async def run(self) -> None:
        if self._plan.mailbox:
            self._mailbox = await Mailbox.open(self._plan.mailbox)
        match self._plan.work:
            case "logins":
                await self._for_a_while(self._login)
            case "calls":
                await self._for_a_while(self._two_calls)
            case "paced":
                await self._paced()
            case "backlog":
                await self._backlog()

    async def _for_a_while(self, login: Callable[[Connection, Tenant], Coroutine[Any, Any, None]]) -> None:
        """Each worker has tenants of its own: two logins of one person would take each other's mail."""
        plan, done = self._plan, 0
        connections = [await Connection.open(plan.port) for _ in range(plan.at_once)]

        async def work(worker: int) -> None:
            nonlocal done
            number = worker
            while time.monotonic() < ends:
                await login(connections[worker], self._tenants[number])
                done += 1
                number = number + plan.at_once if number + plan.at_once < plan.tenants else worker

        began, cpu = time.monotonic(), time.process_time()
        ends = began + plan.seconds
        await _all(work(worker) for worker in range(plan.at_once))
        self._report(done, time.monotonic() - began, time.process_time() - cpu)

    def _report(self, done: int, seconds: float, cpu: float) -> None:
        report(done - self._refused, self._refused, seconds, cpu, self._samples)

    async def _login(self, connection: Connection, tenant: Tenant) -> None:
        try:
            await self._sign_in(connection, tenant)
        except Refused:
            self._refused += 1

    async def _sign_in(self, connection: Connection, tenant: Tenant) -> None:
        mail = self._mailbox.next_to(tenant.email)
        began = time.monotonic()
        challenge = await self._ask(connection, tenant)
        accepted = time.monotonic()
        async with asyncio.timeout(_MAIL_SECONDS):
            code, handed_over = await mail
        # A quick worker is done before the answer is here.
        self._samples["delivery"].append(max(0.0, handed_over - accepted))
        arrived = time.monotonic()
        await self._answer(connection, tenant, challenge, code)
        ended = time.monotonic()
        self._samples["request"].append(accepted - began)
        self._samples["verify"].append(ended - arrived)
        self._samples["login"].append(ended - began)

    async def _ask(self, connection: Connection, tenant: Tenant) -> str:
        answer: dict[str, Any] = _READ(await connection.post(tenant.request, b"{}", tenant.headers))
        return str(answer["challenge_id"])

    async def _answer(self, connection: Connection, tenant: Tenant, challenge: str, code: str) -> None:
        body = msgspec.json.encode({"challenge_id": challenge, "code": code})
        if "access_token" not in _READ(await connection.post(tenant.verify, body, tenant.headers)):
            raise Unexpected("No token.")

    async def _two_calls(self, connection: Connection, tenant: Tenant) -> None:
        """As many calls and bytes as a login sends."""
        began = time.monotonic()
        await connection.post("/", b"{}", tenant.headers)
        body = msgspec.json.encode({"challenge_id": "0123456789abcdefghijkl", "code": "012345"})
        await connection.post("/", body, tenant.headers)
        self._samples["login"].append(time.monotonic() - began)

    async def _paced(self) -> None:
        plan, idle = self._plan, [await Connection.open(self._plan.port)]

        async def login(number: int) -> None:
            await asyncio.sleep(began + number / plan.rate - time.monotonic())
            connection = idle.pop() if idle else await Connection.open(plan.port)
            await self._login(connection, self._tenants[number % plan.tenants])
            idle.append(connection)

        began, cpu = time.monotonic(), time.process_time()
        count = max(1, int(plan.rate * plan.seconds))
        await _all(login(number) for number in range(count))
        self._report(count, time.monotonic() - began, time.process_time() - cpu)

    async def _backlog(self) -> None:
        """The worker stands still until we say that all is asked for; the codes are then used up, as people do."""
        self._mailbox.one_mail_per_connection(self._plan.one_mail)
        connections = [await Connection.open(self._plan.port) for _ in range(_FILL_AT_ONCE)]
        mails = [self._mailbox.next_to(tenant.email) for tenant in self._tenants]
        challenges: dict[int, str] = {}

        async def fill(worker: int) -> None:
            for number in range(worker, len(self._tenants), _FILL_AT_ONCE):
                challenges[number] = await self._ask(connections[worker], self._tenants[number])

        async def use(worker: int) -> None:
            for number in range(worker, len(self._tenants), _FILL_AT_ONCE):
                await self._answer(connections[worker], self._tenants[number], challenges[number], arrived[number][0])

        await _all(fill(worker) for worker in range(_FILL_AT_ONCE))
        print("true", flush=True)
        async with asyncio.timeout(_MAIL_SECONDS):
            arrived = await asyncio.gather(*mails)
        self._mailbox.one_mail_per_connection(False)
        moments = sorted(moment for _, moment in arrived)
        await _all(use(worker) for worker in range(_FILL_AT_ONCE))
        # The first mail starts the watch, so it doesn't count.
        report(len(moments) - 1, 0, moments[-1] - moments[0], time.process_time(), {})


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at once; the first failure ends them."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)


if __name__ == "__main__":
    uvloop.run(Load(msgspec.json.decode(sys.argv[1], type=Plan)).run())
