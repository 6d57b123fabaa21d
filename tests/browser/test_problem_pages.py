"""What a person sees when nothing else can be shown: too fast, our mistake, a part of the service away."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from typing import Final

import pytest
from litestar import get
from litestar.params import FromPath
from playwright.async_api import expect

from app.asgi import create_app
from app.cli.listening import listen
from app.errors import RateLimited, Unavailable
from tests.browser.conftest import Site, Window, served

OpenWindow = Callable[..., Awaitable[Window]]

STUMBLES: Final[dict[str, Exception]] = {
    "429": RateLimited(1234, policy="address"),
    "500": RuntimeError("what must never happen"),
    "503": Unavailable(),
}


@get("/stumble/{status:str}", include_in_schema=False)
async def stumble(status: FromPath[str]) -> None:
    """Raises what leads to that page."""
    raise STUMBLES[status]


@pytest.mark.parametrize(
    ("status", "heading", "advice"),
    [
        ("429", "Too many codes were asked for", "Try again in 21 minutes."),
        ("500", "Something went wrong on our side", "If it happens twice, tell us the request number below."),
        ("503", "We can\u2019t do this right now", "Try again in 2 seconds."),
    ],
)
async def test_a_problem_is_a_page_like_any_other(
    site: Site, open_window: OpenWindow, status: str, heading: str, advice: str
) -> None:
    """It says what happened and what to do, leads on to an explanation, and tells nothing of the fault itself."""
    listener = listen("127.0.0.1", 0)
    url = f"http://localhost:{listener.getsockname()[1]}"
    app = create_app(replace(site.settings, public_url=url, jwt_issuer=url))
    app.register(stumble)
    with closing(listener), served(app, listener):
        window = await open_window()
        window.url = url
        await window.open(f"/stumble/{status}")
        assert window.answer is not None
        assert window.answer.status == int(status)
        await expect(window.page.get_by_role("heading", level=1)).to_have_text(heading)
        said = await window.says()
        assert advice in said
        assert "must never happen" not in said
        # That the page itself answered so is all that the console may say.
        assert all(f"the server responded with a status of {status}" in each for each in window.faults)
        window.faults.clear()
        await window.check(f"problem-{status}")
        await window.page.get_by_role("link", name="About this message").click()
        await expect(window.page.get_by_role("heading", level=2)).to_have_text("For developers")
