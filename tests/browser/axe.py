"""axe-core on a page: what it finds against WCAG 2.2 AA, one line each."""

import json
from typing import Any, Final

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Page

_RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
# A frame holds a mail, which has tests of its own; what is preloaded serves rules that we don't ask for.
_OPTIONS: Final[dict[str, Any]] = {"resultTypes": ["violations"], "iframes": False, "preload": False}


async def violations(page: Page, *, only: str | None = None) -> list[str]:
    """Each rule that is broken and where; an empty list is a pass. `only` names the one rule that is asked for."""
    # The script is as large as a page takes long to read: once for each document.
    if await page.evaluate("typeof axe === 'undefined'"):
        await page.evaluate(AXE_SCRIPT)
    rules = {"type": "rule", "values": [only]} if only else {"type": "tag", "values": _RULES}
    found = await page.evaluate(f"axe.run({json.dumps(_OPTIONS | {'runOnly': rules})}).then((all) => all.violations)")
    return [
        f"{rule['id']}: {rule['help']} at {', '.join(str(node['target']) for node in rule['nodes'])}" for rule in found
    ]
