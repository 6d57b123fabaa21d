"""`gatehouse web` and `gatehouse worker` as processes of their own, on the tests' stores, with their logs in files."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import httpx

from app.settings import Settings

WEB: Final = "from app.settings import load; from app.cli.web import serve; serve(load(dotenv=None))"
WORKER: Final = "from app.settings import load; from app.worker import main; main(load(dotenv=None))"
_ROOT: Final = Path(__file__).parent.parent
_LONGEST_START: Final = 30.0


def environment(settings: Settings, **changes: str) -> dict[str, str]:
    """What a process is told: concealed, as in production, without limits on the one address tests call from."""
    assert settings.database_url
    assert settings.redis_url
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(_ROOT),
        "ENVIRONMENT": "test",
        "DATA_DIR": str(settings.data_dir),
        # All processes of an installation have one, whatever their ports: it is the issuer of tokens.
        "PUBLIC_URL": "http://localhost:8000",
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "OTP_DISCLOSE_ERRORS": "false",
        "OTP_IP_HOURLY_LIMIT": "1000000",
        "SMTP_ENABLED": "true",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_USE_TLS": "false",
        "SMTP_FROM_EMAIL": "codes@gatehouse.example",
        **changes,
    }


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def running(program: str, log: Path, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python program as a process of its own; asked to end afterwards, and killed if it won't."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env=env, cwd=env["DATA_DIR"], stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            process.kill()
            await process.wait()


async def until_it_answers(process: asyncio.subprocess.Process, url: str) -> None:
    """A process announces its readiness by answering, so asking is all there is."""
    async with httpx.AsyncClient() as client, asyncio.timeout(_LONGEST_START):
        while True:
            assert process.returncode is None, "it ended: see its log"
            with suppress(httpx.TransportError):
                await client.get(f"{url}/health")
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def web_process(settings: Settings, log: Path, *, program: str = WEB, **changes: str) -> AsyncIterator[str]:
    """A web process that answers; its base URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with running(program, log, environment(settings, PORT=str(port), **changes)) as process:
        await until_it_answers(process, url)
        yield url
