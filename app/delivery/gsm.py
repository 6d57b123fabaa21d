"""How an SMS is counted (GSM 03.38 and 03.40): its cheapest alphabet, and the segments a text takes. Pure."""

from typing import Final

BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
# Each of these takes the room of two.
EXTENSION: Final = frozenset("^{}\\[~]|€\f")

# What one segment holds on its own, and as a part of several: there each carries a header that puts them together.
_GSM: Final = (160, 153)
_UCS2: Final = (70, 67)


def is_gsm(text: str) -> bool:
    """Whether a text can be sent without UCS-2, which halves what fits into a segment."""
    return BASIC.union(EXTENSION).issuperset(text)


def excess(text: str) -> int:
    """By how many units the text is longer than one segment; 0 when it fits."""
    widths, (alone, _) = _measure(text)
    return max(0, sum(widths) - alone)


def segments(text: str) -> int:
    """How many segments the text is sent, and paid for, as. A character is never split between two."""
    widths, (alone, part) = _measure(text)
    if sum(widths) <= alone:
        return 1
    count, filled = 1, 0
    for width in widths:
        if filled + width > part:
            count, filled = count + 1, 0
        filled += width
    return count


def _measure(text: str) -> tuple[list[int], tuple[int, int]]:
    """The room each character takes, and that of a segment: septets of the alphabet, or UTF-16 code units."""
    if is_gsm(text):
        return [1 + (character in EXTENSION) for character in text], _GSM
    return [1 + (character > "\uffff") for character in text], _UCS2
