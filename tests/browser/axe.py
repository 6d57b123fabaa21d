"""axe-core on a page: what it finds against WCAG 2.2 AA, one line each."""

from typing import Any, Final

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

_OPTIONS: Final[dict[str, Any]] = {
    "resultTypes": ["violations"],
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
}


async def violations(page: Page) -> list[str]:
    """Each rule that is broken and where; an empty list is a pass."""
    found = (await Axe().run(page, options=_OPTIONS)).response["violations"]
    return [
        f"{rule['id']}: {rule['help']} at {', '.join(str(node['target']) for node in rule['nodes'])}" for rule in found
    ]
