"""The web application on the test stores, and a client that speaks HTTP to it without a socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

import httpx
from litestar import Litestar

from app.asgi import create_app
from app.settings import Settings

BASE_URL = "http://localhost:8000"


@dataclass(frozen=True, slots=True)
class Http:
    """A client of one application."""

    app: Litestar
    client: httpx.AsyncClient

    async def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        """POST with a JSON body."""
        return await self.client.post(path, json={} if body is None else body, **options)

    async def get(self, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        """GET, with an access token where there is one."""
        return await self.client.get(path, headers=bearer(token) | options.pop("headers", {}), **options)

    async def otp(self, slug: str, verb: str, body: object = None, **options: Any) -> httpx.Response:
        """POST /api/v1/tenants/{slug}/otp/{verb}."""
        return await self.post(f"/api/v1/tenants/{slug}/otp/{verb}", body, **options)

    async def auth(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        """Any method on /api/v1/auth/{path}."""
        headers = bearer(token) | options.pop("headers", {})
        return await self.client.request(method, f"/api/v1/auth/{path}", headers=headers, **options)


def bearer(token: str | None) -> dict[str, str]:
    """The Authorization header for a token."""
    return {"Authorization": f"Bearer {token}"} if token is not None else {}


@asynccontextmanager
async def running(app: Litestar) -> AsyncIterator[None]:
    """The application's life, in a task of its own: a fixture is begun and ended by different tasks, and what
    Litestar begins must be ended by the same one.
    """
    started, stop = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            started.set()
            await stop.wait()

    life = asyncio.create_task(live())
    await asyncio.wait([life, asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        stop.set()
        await life


@asynccontextmanager
async def serve(
    settings: Settings, clock: Callable[[], datetime], *, client_address: str = "192.0.2.10", **changes: Any
) -> AsyncIterator[Http]:
    """The application with some settings changed; `changes` may also have `sleep`."""
    options = {"sleep": changes.pop("sleep")} if "sleep" in changes else {}
    app = create_app(replace(settings, **changes), clock=clock, **options)
    # Litestar and httpx type the same protocol differently.
    transport = httpx.ASGITransport(cast("Any", app), client=(client_address, 50000))
    async with running(app), httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        yield Http(app, client)
