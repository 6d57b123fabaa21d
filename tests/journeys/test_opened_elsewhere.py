"""PUBLIC_URL and the address in the browser: what works on a plain http name, and what a page says when they differ."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import FORGOTTEN_PROXY, Accelerator
from tests.conftest import Clock
from tests.http import serve
from tests.markup import faults
from tests.pages import Visitor
from tests.people import add_tenant

Opened = Callable[..., AbstractAsyncContextManager[Visitor]]


@pytest.fixture
def opened(settings: Settings, clock: Clock) -> Opened:
    """A browser at one address of an installation that believes to be at `public_url`."""

    @asynccontextmanager
    async def open_at(address: str, public_url: str, **changes: Any) -> AsyncIterator[Visitor]:
        async with (
            serve(settings, clock, public_url=public_url, **changes) as http,
            httpx.AsyncClient(transport=http.client._transport, base_url=address) as client,
        ):
            client.headers["Accept"] = "text/html"
            yield Visitor(client, address)

    return open_at


@pytest.mark.parametrize("url", ["http://portal.lan", "http://portal.lan:8000", "http://10.0.0.7:8000", "http://pi"])
async def test_plain_http_on_a_name_works_in_development(opened: Opened, db: Database, clock: Clock, url: str) -> None:
    """Browsers send no Sec-Fetch-Site there and keep no Secure cookie: the forms work all the same."""
    tenant = await add_tenant(db, clock())
    async with opened(url, url, environment="development") as person:
        await person.open("/login")
        data = {"csrf_token": person.token, "slug": tenant.slug}
        answer = await person.client.post("/login", data=data, headers={"Origin": url})
    assert answer.status_code == 303
    assert "Secure" not in person.page.headers["set-cookie"]
    assert "__Host-" not in person.page.headers["set-cookie"]


ELSEWHERE = [
    ("http://localhost:8000", "https://login.example", {"Sec-Fetch-Site": "same-origin"}),
    ("http://portal.lan:8000", "http://portal.lan", {}),
    ("http://10.0.0.7:8000", "http://portal.lan", {}),
    ("http://login.example", "https://login.example", {}),
    ("https://www.login.example", "https://login.example", {"Sec-Fetch-Site": "same-origin"}),
    ("http://127.0.0.1:8000", "http://portal.lan:8000", {}),
    # A proxy that puts its own name into Host.
    ("https://login.example:8443", "https://login.example", {"Sec-Fetch-Site": "same-origin", "Host": "web:8000"}),
]


@pytest.mark.parametrize(("address", "public_url", "headers"), ELSEWHERE)
async def test_a_page_opened_elsewhere_says_so(
    opened: Opened, address: str, public_url: str, headers: dict[str, str]
) -> None:
    """Not that it had been open for too long: where it was opened, and where to go."""
    async with opened(address, public_url) as person:
        await person.open("/login")
        person.client.cookies.clear()
        data = {"csrf_token": person.token, "slug": "acme"}
        answer = await person.client.post("/login", data=data, headers={"Origin": address, **headers})
    assert answer.status_code == 403
    assert faults(answer.text) == []
    assert f"This page was opened at {address}, and this installation is at {public_url}." in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8001"},
        {"Origin": "http://localhost:8000.evil.example"},
    ],
)
async def test_a_form_of_another_site_gets_no_advice(opened: Opened, headers: dict[str, str]) -> None:
    """It wasn't opened here at all, and a page of ours names nobody else's address."""
    async with opened("http://localhost:8000", "https://login.example") as person:
        await person.open("/login")
        data = {"csrf_token": person.token, "slug": "acme"}
        answer = await person.client.post("/login", data=data, headers=headers)
    assert answer.status_code == 403
    assert "opened at" not in answer.text


PROXIED = [
    ({"X-Forwarded-For": "198.51.100.7"}, "10.0.0.7", "TRUSTED_PROXIES=10.0.0.7."),
    ({"X-Forwarded-Proto": "https"}, "10.0.0.7", "TRUSTED_PROXIES=10.0.0.7."),
    ({"Forwarded": "for=198.51.100.7"}, "fd00::7", "TRUSTED_PROXIES=fd00::7."),
    ({"X-Real-IP": "198.51.100.7"}, "127.0.0.1", "TRUSTED_PROXIES=127.0.0.1."),
    ({"X-Forwarded-Host": "login.example"}, "9.9.9.9", "arrived from 9.9.9.0/24"),
]


@pytest.mark.parametrize(("headers", "peer", "told"), PROXIED)
async def test_forwarded_headers_without_a_trusted_proxy_are_said_once(
    settings: Settings, clock: Clock, headers: dict[str, str], peer: str, told: str
) -> None:
    """Once in the log, and left for doctor; believed never: the next one of the same address counts like the first."""
    assert settings.redis_url
    accelerator = Accelerator(settings.redis_url, timeout=5)
    await accelerator.script("redis.call('DEL', KEYS[1])", [FORGOTTEN_PROXY], [])
    with capture_logs() as logs:
        async with serve(settings, clock, client_address=peer) as http:
            for _ in range(3):
                await http.get("/health", headers=headers)
            edge: Any = http.app.asgi_handler
            await edge._forwarded._noting
    said = [line for line in logs if line["event"] == "Forwarded headers from an untrusted peer"]
    assert [told in line["detail"] for line in said] == [True]
    note = await accelerator.script("return redis.call('GET', KEYS[1])", [FORGOTTEN_PROXY], [])
    assert note.decode() == said[0]["detail"]
    assert "198.51.100.7" not in note.decode()
    await accelerator.close()


@pytest.mark.parametrize(
    ("changes", "headers"),
    [({"trusted_proxies": True}, {"X-Forwarded-For": "198.51.100.7"}), ({}, {"Accept": "text/html"})],
)
async def test_nothing_is_said_where_nothing_is_amiss(
    settings: Settings, clock: Clock, changes: dict[str, Any], headers: dict[str, str]
) -> None:
    """A proxy that is named, and requests that come without one."""
    if changes:
        changes = {"trusted_proxies": (ip_network("10.0.0.0/8"),)}
    with capture_logs() as logs:
        async with serve(settings, clock, client_address="10.0.0.7", **changes) as http:
            await http.get("/health", headers=headers)
    assert [line for line in logs if "Forwarded" in line["event"]] == []
