"""`gatehouse run`: embedded stores where no URL is set, migrations, web and worker, until Ctrl-C."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Final, TypeAlias

from app import embedded, logs
from app.cli.listening import listen
from app.cli.stores import needs_embedded, with_stores
from app.cli.supervisor import Child, Supervisor, stop_signals_interrupt
from app.embedded import DataDirectoryBusy, Stores
from app.errors import GatehouseError
from app.settings import Settings

_READY_SECONDS: Final = 2.0
# Puts first things into an empty database; answers with what there is to say about them.
Seed: TypeAlias = Callable[[Settings], Awaitable[list[str]]]


def run_everything(settings: Settings, seed: Seed | None = None) -> int:
    """Runs all of Gatehouse until SIGINT or SIGTERM; answers with the exit code.

    0 when it was asked to stop, 1 with one clear error on stderr when it can't start or can't go on.
    """
    logs.configure(settings)
    logs.tell_settings(settings)
    with stop_signals_interrupt():
        try:
            _run(settings, seed)
        except KeyboardInterrupt:
            return 0
        except GatehouseError as error:
            print(f"gatehouse: error: {error.detail}", file=sys.stderr)
            return 1
    return 0


def _run(settings: Settings, seed: Seed | None) -> None:
    # First what costs nothing to find out, and the likelier reason before its consequence.
    if needs_embedded(settings) and (pid := embedded.holder(settings.data_dir)):
        raise DataDirectoryBusy(settings.data_dir.resolve(), pid)
    listen(settings.host, settings.port).close()
    with ExitStack() as stack:
        stores = None
        if needs_embedded(settings):
            stores = stack.enter_context(
                embedded.start(
                    settings.data_dir, postgres=settings.database_url is None, valkey=settings.redis_url is None
                )
            )
            settings = with_stores(settings, stores)
        asyncio.run(_check_providers(settings))
        seeded = asyncio.run(_prepare(settings, seed))
        asyncio.run(_supervisor(settings, stores, seeded).run())


async def _check_providers(settings: Settings) -> None:
    """Raises `ConfigurationError` where the worker would, again and again and where few people look."""
    from app.delivery.providers import providers_for  # noqa: PLC0415 - as below

    for provider in chain.from_iterable(providers_for(settings).values()):
        await provider.close()


async def _prepare(settings: Settings, seed: Seed | None) -> list[str]:
    """Migrates and seeds; answers with what there is to say about it."""
    # Only here: the other commands and the port check don't wait for SQLAlchemy to be imported.
    from app.cli.seed import first_run  # noqa: PLC0415
    from app.storage.migrate import upgrade  # noqa: PLC0415

    owner_url = settings.database_owner_url or settings.database_url
    if owner_url is not None:
        await upgrade(owner_url, datetime.now(UTC))
    return await (seed or first_run)(settings)


def _supervisor(settings: Settings, stores: Stores | None, seeded: list[str]) -> Supervisor:
    return Supervisor(
        children=[
            Child("gatehouse web", (*gatehouse_command(), "web")),
            Child("gatehouse worker", (*gatehouse_command(), "worker")),
        ],
        environment=child_environment(settings),
        is_ready=lambda: ready(settings),
        on_ready=lambda: print(banner(settings, seeded), flush=True),
        tend=stores.tend if stores else lambda: None,
    )


def gatehouse_command() -> list[str]:
    """How to start this same program again, by its name if it is installed."""
    script = Path(sys.executable).with_name("gatehouse")
    return [str(script)] if script.exists() else [sys.executable, "-m", "app.cli.main"]


def child_environment(settings: Settings) -> dict[str, str]:
    """Our environment with the stores' addresses in it. Never the owner's: nothing that answers requests needs it."""
    addresses = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    inherited = {name: value for name, value in os.environ.items() if name != "DATABASE_OWNER_URL"}
    return inherited | {logs.TOLD: "1"} | {name: value for name, value in addresses.items() if value}


async def ready(settings: Settings) -> bool:
    """Whether the web process says that it is."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - asked, not bound
    named = settings.public_url.partition("://")[2] or f"{host}:{settings.port}"
    try:
        async with asyncio.timeout(_READY_SECONDS):
            reader, writer = await asyncio.open_connection(host, settings.port)
            writer.write(f"GET /health/ready HTTP/1.1\r\nHost: {named}\r\nConnection: close\r\n\r\n".encode())
            status_line = await reader.readline()
            writer.close()
    except (OSError, TimeoutError):
        return False
    return status_line.split()[1:2] == [b"200"]


def banner(settings: Settings, seeded: list[str]) -> str:
    """What to do now, for somebody who sees Gatehouse for the first time."""
    api = f"{settings.public_url}/api/v1/tenants"
    post = "curl -sS -H 'Content-Type: application/json'"
    mailed = "smtp" in settings.providers.get("email", ())
    lines = ["", f"Gatehouse is ready: {settings.public_url}", *(f"  {line}" for line in seeded), ""]
    lines += [f"  Portal   {settings.public_url}/login"]
    signs_in = f"   (sign in as {settings.admin_email})" if settings.admin_email else ""
    lines += [f"  Admin    {settings.public_url}/admin{signs_in}", f"  API      {settings.public_url}/docs"]
    codes = f"are mailed through {settings.smtp_host}" if mailed else "appear here, in this log"
    lines += [f"  Codes    {codes}", ""]
    if settings.environment == "development":
        answer = '{"challenge_id": "CHALLENGE_ID", "code": "CODE"}'
        lines += [
            "Sign in as the tenant `demo`: ask for a code, then send it back with the challenge_id of the answer.",
            f"  {post} {api}/demo/otp/request -d '{{}}'",
            f"  {post} {api}/demo/otp/verify -d '{answer}'",
            "",
        ]
    return "\n".join([*lines, "Stop with Ctrl-C.", ""])
