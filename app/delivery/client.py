"""Which browser and system a User-Agent header names, in words a person knows. Pure.

Only names from these lists are ever shown: the header is whatever a stranger wrote. Order matters, because most
browsers also claim to be the ones they want to be taken for.
"""

from typing import Final

_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("CriOS", "Chrome"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "Mac"),
    ("Linux", "Linux"),
)


def browser_and_system(user_agent: str | None) -> tuple[str | None, str | None]:
    """Such as `("Firefox", "Linux")`; None for what isn't known."""
    return _first(_BROWSERS, user_agent or ""), _first(_SYSTEMS, user_agent or "")


def _first(names: tuple[tuple[str, str], ...], text: str) -> str | None:
    return next((name for token, name in names if token in text), None)
