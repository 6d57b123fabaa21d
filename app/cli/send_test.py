"""`gatehouse send-test`."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Final

import click

from app.cli.output import print_json, warn
from app.cli.run import child_environment, gatehouse_command
from app.cli.services import OPERATOR, SHELL, Services, now, with_services
from app.errors import DeliveryFailed
from app.settings import Settings
from app.tenants.test_message import TestMessage, TestOutcome

_WAIT_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.1
# A worker says every few seconds that it lives.
_SILENT: Final = timedelta(seconds=30)
_LAST_SEEN: Final = "SELECT max(seen_at) AS seen_at FROM workers"


@click.command("send-test")
@click.argument("slug")
@click.option("--channel", help="email, sms, whatsapp or push; otherwise the preferred one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def send_test(slug: str, channel: str | None, as_json: bool) -> None:
    """Send a test message to a tenant's contact and wait for its outcome, 15 seconds at most."""
    outcome = with_services(lambda s: _send(s, slug, channel))
    if as_json:
        print_json({name: getattr(outcome, name) for name in ("state", "channel", "provider", "error")})
    if not outcome.settled:
        reason = f": {outcome.error}" if outcome.error else "."
        raise DeliveryFailed(f"The test message is still {outcome.state} after {_WAIT_SECONDS:.0f} seconds{reason}")
    if outcome.state not in {"sent", "delivered"}:
        raise DeliveryFailed(f"The test message {outcome.state}: {outcome.error or 'no reason was given.'}")
    if not as_json:
        print(f"The test message was {outcome.state} by {outcome.channel} through {outcome.provider}.")


async def _send(services: Services, slug: str, channel: str | None) -> TestOutcome:
    message = await services.tenants.send_test(slug, channel=channel, actor=OPERATOR, client=SHELL)
    async with AsyncExitStack() as stack:
        if not await worker_lives(services, now()):
            warn("No worker is running; one is started for this message.")
            await stack.enter_async_context(_temporary_worker(services.settings))
        return await _outcome(services, message)


async def worker_lives(services: Services, moment: datetime) -> bool:
    """Whether a worker has said so within the last 30 seconds."""
    row = await services.db.row(_LAST_SEEN)
    seen_at: datetime | None = row["seen_at"] if row else None
    return seen_at is not None and moment - seen_at < _SILENT


async def _outcome(services: Services, message: TestMessage) -> TestOutcome:
    """How it ended, or where it stands when nobody wants to wait longer. The worker tells only the database."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        outcome = await services.tenants.test_outcome(message)
        if outcome.settled or time.monotonic() >= deadline:
            return outcome
        await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def _temporary_worker(settings: Settings) -> AsyncIterator[None]:
    """A worker process of our own, which sends whatever else is due as well."""
    process = await asyncio.create_subprocess_exec(
        *gatehouse_command(), "worker", env=child_environment(settings), stdin=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
