"""A User-Agent header in words for lists: "Chrome on Windows". A hint for people; nothing relies on it."""

from app.delivery.client import browser_and_system


def describe(user_agent: str | None) -> str:
    """The browser and its system, as far as they are known."""
    browser, system = browser_and_system(user_agent)
    if browser is None or system is None:
        return browser or system or "Unknown device"
    return f"{browser} on {system}"
