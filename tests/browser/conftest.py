"""Both portals in real Chromium: a real server on a port of its own, a worker, a mail server, and windows to look at.

`SCREENSHOTS=directory` in the environment keeps a picture of each page that is checked, at each width, by day and by
night.
"""

import asyncio
import os
import re
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn
from litestar import Litestar
from playwright.async_api import Browser, Page, Response, async_playwright

from app.asgi import create_app
from app.cli.listening import listen
from app.delivery.dispatcher import Dispatcher
from app.delivery.outbox import Outbox
from app.delivery.providers import providers_for
from app.delivery.render import Renderer
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from app.web.protocol import GuardedProtocol
from app.web.services import utc_now
from app.worker import derive
from tests.browser.axe import violations
from tests.mailserver import MailServer, mail_server
from tests.markup import faults

_QUIET: Final = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_CODE: Final = re.compile(r"^ +(\d{6,8}|[\d ]{7,9})\s*$", re.MULTILINE)
_WIDTHS: Final = (1440, 768, 320)
# What a refused form writes to the console by itself.
_EXPECTED: Final = "Failed to load resource: the server responded with a status of 4"
_WATCH_CSP: Final = """
addEventListener("securitypolicyviolation", (e) => console.error("CSP " + e.violatedDirective + " " + e.blockedURI));
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A running installation: web, worker, mail."""

    url: str
    settings: Settings
    mail: MailServer

    async def code_for(self, address: str) -> str:
        """The code in the next mail to this address, waiting for it."""
        while True:
            mail = await self.mail.next()
            if address in mail.recipients and (found := _CODE.search(mail.part("plain"))):
                return found[1].replace(" ", "")


@dataclass(slots=True)
class ClockAhead:
    """The clock on the wall, set forward by a test that can't wait."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead

    def forward(self, **span: float) -> None:
        """Moves time on: `now.forward(minutes=10)`."""
        self.ahead += timedelta(**span)


@dataclass(slots=True)
class Window:
    """One browser window with cookies of its own. `faults` has what its console complained about, CSP first of all;
    `answer` is the document that it shows.
    """

    page: Page
    url: str
    faults: list[str]
    answer: Response | None = None

    async def open(self, path: str) -> None:
        """Goes to a path of the site."""
        await self.page.goto(self.url + path)

    async def press(self, name: str) -> None:
        """Presses the button of this name, and waits for where that leads."""
        async with self.page.expect_navigation():
            await self.page.get_by_role("button", name=name, exact=True).click()

    async def challenge(self, cookie: str = "challenge") -> str:
        """The id of the challenge that this browser has under way."""
        cookies = await self.page.context.cookies()
        (value,) = [each["value"] for each in cookies if f"gh_{cookie}_" in each["name"]]
        return value.partition(".")[0]

    async def says(self) -> str:
        """The words of the page."""
        return await self.page.inner_text("body")

    async def check(self, picture: str | None = None) -> None:
        """Holds the page to the standards on wide, middling and small screens, by day and by night.

        Valid HTML, axe, nothing wider than the screen, no complaint on the console and so no CSP report. `picture`
        names the files under which SCREENSHOTS keeps what it looks like.
        """
        assert faults(await self.source()) == [], self.page.url
        size = self.page.viewport_size
        assert size is not None
        for width in _WIDTHS:
            await self.page.set_viewport_size({"width": width, "height": size["height"]})
            wide = await self.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{self.page.url} is {wide} px wide on a {width} px screen"
            for scheme in ("light", "dark"):
                await self.page.emulate_media(color_scheme=scheme)
                # Of all rules only this one can tell day from night.
                found = await violations(self.page, only="color-contrast" if scheme == "dark" else None)
                assert found == [], f"{self.page.url} in {scheme}, {width} px"
                if picture:
                    await shoot(self.page, f"{picture}-{width}-{scheme}")
        await self.page.emulate_media(color_scheme="light")
        await self.page.set_viewport_size(size)
        assert self.faults == []

    async def source(self) -> str:
        """The page as the server sent it."""
        assert self.answer is not None
        return await self.answer.text()


async def shoot(page: Page, name: str) -> None:
    """Keeps a picture, if SCREENSHOTS says where."""
    if directory := os.environ.get("SCREENSHOTS"):
        # Playwright hides the caret by a style of its own, which htmx copies and the CSP then reports.
        await page.screenshot(path=Path(directory, f"{name}.png"), full_page=True, caret="initial")


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    """Settings that a module's installation has otherwise; a module may have a fixture of this name itself."""
    return {}


@pytest.fixture(scope="module")
def now() -> Callable[[], datetime]:
    """The clock of a module's installation, the one on the wall; a module may have a fixture of this name itself."""
    return utc_now


@pytest.fixture(scope="module")
async def site(settings: Settings, changes: dict[str, Any], now: Callable[[], datetime]) -> AsyncIterator[Site]:
    """The installation that the tests of a module share, on the database of this process."""
    async with mail_server() as mail:
        listener = listen("127.0.0.1", 0)
        url = f"http://localhost:{listener.getsockname()[1]}"
        running = replace(
            settings,
            public_url=url,
            jwt_issuer=url,
            smtp_port=mail.port,
            **{"otp_resend_cooldown_seconds": 0, "otp_hourly_limit": 10} | changes,
        )
        async with _worker(running, now):
            with closing(listener), served(create_app(running, clock=now), listener):
                yield Site(url, running, mail)


@contextmanager
def served(app: Litestar, listener: Any) -> Iterator[None]:
    """The server as `gatehouse web` runs it, in a thread. Whoever connects early waits in the listener's queue."""
    config = uvicorn.Config(
        app, http=GuardedProtocol, ws="none", lifespan="on", log_config=None, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@asynccontextmanager
async def _worker(settings: Settings, now: Callable[[], datetime]) -> AsyncIterator[None]:
    """The worker's dispatcher with the providers of the settings."""
    assert settings.database_url
    assert settings.redis_url
    ring = KeyRing(settings.secret_keys)
    providers = providers_for(settings)
    database = Database(settings.database_url, size=4, application="browser tests' worker")
    accelerator = Accelerator(settings.redis_url)
    await database.open()
    dispatcher = Dispatcher(
        Outbox(database, "browser-tests"),
        accelerator,
        providers,
        Renderer(settings.public_url),
        clock=now,
        derive=lambda claimed: derive(ring, claimed),
    )
    running = asyncio.create_task(dispatcher.run())
    try:
        yield
    finally:
        dispatcher.stop()
        await running
        for channel in providers.values():
            for provider in channel:
                await provider.close()
        await accelerator.close()
        await database.close()


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium, headless."""
    executable = shutil.which("chromium")
    assert executable, "the browser tests need chromium on the PATH"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=list(_QUIET))
        yield browser
        await browser.close()


@pytest.fixture
async def open_window(chromium: Browser, site: Site) -> AsyncIterator[Callable[..., Any]]:
    """Opens fresh browsers; with `javascript=False` one without. At the end no console may have complained."""
    windows: list[Window] = []

    async def open_one(*, javascript: bool = True, width: int = 1280, height: int = 900) -> Window:
        context = await chromium.new_context(
            java_script_enabled=javascript,
            viewport={"width": width, "height": height},
            locale="en-GB",
            timezone_id="Europe/Zurich",
        )
        page = await context.new_page()
        page.set_default_timeout(15_000)
        window = Window(page, site.url, [])
        await page.add_init_script(_WATCH_CSP)
        page.on("pageerror", lambda error: window.faults.append(str(error)))
        page.on("console", lambda message: _note(window, message.type, message.text))
        page.on("response", lambda response: _arrive(window, response))
        windows.append(window)
        return window

    yield open_one
    for window in windows:
        await window.page.context.close()
    assert [window.faults for window in windows if window.faults] == []


def _arrive(window: Window, response: Response) -> None:
    if response.request.is_navigation_request() and response.frame == window.page.main_frame:
        window.answer = response


def _note(window: Window, kind: str, text: str) -> None:
    if kind in {"error", "warning"} and not text.startswith(_EXPECTED):
        window.faults.append(text)
