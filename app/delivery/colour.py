"""Colours of tenants, made readable where they are used. Pure.

Contrast is WCAG 2.2's (1.4.3, 4.5:1 for text), luminance as defined there for sRGB.
"""

import re
from typing import Final

TEXT_CONTRAST: Final = 4.5
_HEX: Final = re.compile(r"#([0-9a-f]{3}|[0-9a-f]{6})")
_BLACK: Final = "#000000"
_WHITE: Final = "#ffffff"
# Finer than eight bits a channel can tell.
_HALVINGS: Final = 12


def parse(text: str) -> str:
    """`#RGB` or `#RRGGBB` as `#rrggbb`. Raises `ValueError`."""
    colour = text.strip().lower()
    if not _HEX.fullmatch(colour):
        raise ValueError("This must be a colour such as #76530c.")
    return colour if len(colour) > len("#rgb") else "#" + "".join(digit * 2 for digit in colour[1:])


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, from 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def readable(colour: str, on: str, at_least: float = TEXT_CONTRAST) -> str:
    """The colour itself, or as little darkened (lightened on dark) as text of it needs to be readable on `on`.

    Black or white reach 4.5:1 on any colour; where even they don't reach `at_least`, the better of the two it is.
    """
    if contrast(colour, on) >= at_least:
        return colour
    pole = text_on(on)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if contrast(_mixed(colour, pole, middle), on) >= at_least:
            high = middle
        else:
            low = middle
    return _mixed(colour, pole, high)


def text_on(background: str) -> str:
    """Black or white, whichever is read more easily on this background."""
    return max((_BLACK, _WHITE), key=lambda colour: contrast(colour, background))


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(channel / 255) for channel in _channels(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 - sRGB


def _mixed(colour: str, pole: str, share: float) -> str:
    """`share` of the way from a colour to black or white."""
    pairs = zip(_channels(colour), _channels(pole), strict=True)
    return "#" + "".join(f"{round(one + (other - one) * share):02x}" for one, other in pairs)
