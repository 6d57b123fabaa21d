"""What a User-Agent header says, in words for lists: "Chrome on Windows". A hint for people; nothing relies on it."""

from functools import lru_cache
from typing import Final

# The first that occurs counts: most browsers also name those that they want to be taken for.
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("FxiOS", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
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
_LONGEST_NAME: Final = 40
UNKNOWN: Final = "Unknown device"


@lru_cache(4096)
def describe(user_agent: str | None) -> str:
    """The browser and its system; of other programs the name they give themselves."""
    if not user_agent:
        return UNKNOWN
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), None)
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), None)
    if browser is None:
        return user_agent.partition("/")[0].partition(" ")[0][:_LONGEST_NAME] or UNKNOWN
    return f"{browser} on {system}" if system else browser
