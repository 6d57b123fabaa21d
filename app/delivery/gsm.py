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


# Typographic marks and what they are in the cheap alphabet: one of them would make the whole text UCS-2.
_SISTERS: Final = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u2035\u2039\u203a\u02b9\u02bb\u02bc\u00b4`", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\ufe58\ufe63", "-")
    | dict.fromkeys("\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))), " ")
    # What shows nothing.
    | dict.fromkeys("\u00ad\u200b\u2060\ufeff", "")
)
_ELLIPSIS: Final = "\u2026"


def plain(text: str) -> str:
    """The text with typographic quotes, dashes and spaces as the cheap alphabet has them."""
    sisters = text.translate(_SISTERS)
    # Three for one: only where it makes the text cheap.
    spelled = sisters.replace(_ELLIPSIS, "...")
    return spelled if is_gsm(spelled) else sisters


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
