"""What is measured: embedded stores, a mail server, one web process, one worker, and the empty-handler floor."""

import asyncio
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec

from app import embedded
from app.audit.log import Actor, Client
from app.settings import load
from app.storage.db import Database
from app.storage.migrate import upgrade
from app.tenants.service import Tenants
from bench.plan import DOMAIN, SLUGS
from bench.processes import Child, ProcessFailed, start

_START_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.002
_TOLD_CHARACTERS: Final = 4000


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything is up. `settings` is the environment of web and worker; the numbers are process ids and ports."""

    settings: Mapping[str, str]
    directory: Path
    postgres: int | None
    valkey: int | None
    web: Child
    worker: Child
    sink: Child
    floor: Child
    web_port: int
    mailbox_port: int
    floor_port: int

    def run(self, module: str, plan: str) -> Child:
        """Starts a load client."""
        return start(module, module, plan, environment={}, directory=self.directory)

    def start_seconds(self) -> float:
        """How long one more web process takes, from its fork to its first 200 on /health/ready."""
        began = time.monotonic()
        child, _ = _start_web(self.settings, self.directory)
        seconds = time.monotonic() - began
        child.stop()
        return seconds

    async def let_an_hour_pass(self) -> None:
        """Empties the quotas. Otherwise each tenant's would hold hundreds of sends, where real ones hold three."""
        db = Database(self.settings["DATABASE_URL"], size=1, application="gatehouse-bench")
        await db.open()
        async with db.every_tenant() as connection:
            await connection.execute("DELETE FROM quota")
        await db.close()


@contextmanager
def stack(*, tenants: int, unsafe_for_tests: bool = False) -> Iterator[Stack]:
    """Starts all of it in a new directory below the system's temporary one; stops it and removes that at the end.

    `unsafe_for_tests` doesn't wait for the disk; for a measurement the stores are as safe as in production. When a
    process fails, the ends of the logs are on stderr.
    """
    # Not mkdtemp's 0700: as root the servers run as a user who couldn't enter it.
    data_dir = Path(tempfile.gettempdir(), f"gatehouse-bench-{uuid4().hex[:12]}")
    with ExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-bench-logs-")))
        undo.callback(shutil.rmtree, data_dir, ignore_errors=True)
        stores = undo.enter_context(embedded.start(data_dir, unsafe_for_tests=unsafe_for_tests))
        assert stores.owner_url is not None
        asyncio.run(upgrade(stores.owner_url, datetime.now(UTC)))
        pids = msgspec.json.decode((data_dir / "runtime.json").read_bytes())["servers"]

        sink = _child(undo, start("mail sink", "bench.sink", environment={}, directory=directory))
        ports = sink.read()
        floor = _child(undo, start("empty handler", "bench.floor_http", environment={}, directory=directory))
        settings = _settings(stores, data_dir, ports["smtp"])
        asyncio.run(_add_tenants(settings, tenants))
        web, web_port = _start_web(settings, directory)
        _child(undo, web)
        log = undo.enter_context((directory / "worker.log").open("w"))
        worker = start("worker", "app.cli.main", "worker", environment=settings, directory=directory, log=log)
        _child(undo, worker)
        running = Stack(
            settings=settings,
            directory=directory,
            postgres=pids["PostgreSQL"],
            valkey=pids["Valkey"],
            web=web,
            worker=worker,
            sink=sink,
            floor=floor,
            web_port=web_port,
            mailbox_port=ports["mailbox"],
            floor_port=floor.read(),
        )
        try:
            yield running
        except ProcessFailed:
            for path in sorted(directory.glob("*.log")):
                print(f"{path.name} ends with:", path.read_text()[-_TOLD_CHARACTERS:], sep="\n", file=sys.stderr)
            raise


def _child(undo: ExitStack, child: Child) -> Child:
    undo.callback(child.stop)
    return child


def _settings(stores: embedded.Stores, data_dir: Path, smtp_port: int) -> dict[str, str]:
    """As in production behind a proxy, but with limits that a benchmark doesn't run into: raised, not removed."""
    assert stores.database_url is not None
    assert stores.redis_url is not None
    return {
        "ENVIRONMENT": "test",
        "LOG_FORMAT": "json",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "DATA_DIR": str(data_dir),
        "DATABASE_URL": stores.database_url,
        "REDIS_URL": stores.redis_url,
        "TRUSTED_PROXIES": "127.0.0.1",
        "OTP_HOURLY_LIMIT": "1000",
        "OTP_IP_HOURLY_LIMIT": "1000000",
        "SMTP_ENABLED": "true",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(smtp_port),
        "SMTP_USE_TLS": "false",
        "SMTP_FROM_EMAIL": f"codes@{DOMAIN}",
    }


async def _add_tenants(environment: Mapping[str, str], count: int) -> None:
    settings = load(environment, dotenv=None)
    assert settings.database_url is not None
    db = Database(settings.database_url, size=1, application="gatehouse-bench")
    await db.open()
    tenants = Tenants(db, settings, lambda: datetime.now(UTC))
    for slug in map(SLUGS.format, range(count)):
        values = {"slug": slug, "name": f"Tenant {slug}", "email": f"contact@{slug}.{DOMAIN}"}
        await tenants.create(values, actor=Actor("operator"), client=Client("cli"))
    await db.close()


def _start_web(settings: Mapping[str, str], directory: Path) -> tuple[Child, int]:
    """A web process that is ready, and its port."""
    port = _free_port()
    environment = {**settings, "PORT": str(port)}
    with (directory / f"web-{port}.log").open("w") as log:
        child = start("web", "app.cli.main", "web", environment=environment, directory=directory, log=log)
    deadline = time.monotonic() + _START_SECONDS
    while not _ready(port):
        if child.process.poll() is not None or time.monotonic() > deadline:
            child.stop()
            raise ProcessFailed(f"The web process did not start: {Path(log.name).read_text()}")
        time.sleep(_POLL_SECONDS)
    return child, port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False
