"""Where a browser may be sent after sign-in."""

import pytest

from tenant_portal.returns import allowed_return

ALLOWED = ("https://app.example/in", "https://shop.example", "myapp://signed-in")


@pytest.mark.parametrize(
    "wanted",
    [
        "https://app.example/in",
        "https://app.example/in/",
        "https://app.example/in?order=5&x=%2F#top",
        "https://app.example/in/deep/er",
        "https://shop.example",
        "https://shop.example/any/where",
        "myapp://signed-in",
        "myapp://signed-in/home",
    ],
)
def test_what_is_named_or_lies_below_is_allowed(wanted: str) -> None:
    """The URL itself comes back, unchanged."""
    assert allowed_return(wanted, ALLOWED) == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        "",
        "/t/acme/",
        "//evil.example/in",
        "https://app.example",
        "https://app.example/inside",
        "https://app.example/in/../admin",
        "https://app.example/in/%2e%2e/admin",
        "https://app.example/in/..%5cadmin",
        "https://app.example.evil.example/in",
        "https://app.example@evil.example/in",
        "https://evil.example\\@app.example/in",
        "https://app.example:444/in",
        "http://app.example/in",
        "https://app.example/in\nSet-Cookie: a=b",
        " https://app.example/in",
        "https://app.example/in\x00",
        "https://app.example/\u2025/in",
        "https://[app.example/in",
        "javascript://app.example/in%0aalert(1)",
        "myapp://elsewhere",
        "https://app.example/in/" + "a" * 1000,
    ],
)
def test_everything_else_is_not(wanted: str | None) -> None:
    """Open redirects (CWE-601), with the tricks by which parsers are told apart."""
    assert allowed_return(wanted, ALLOWED) is None


def test_without_the_setting_nothing_is_allowed() -> None:
    """The safe default."""
    assert allowed_return("https://app.example/in", ()) is None
