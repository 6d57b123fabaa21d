"""The alphabet an SMS is cheapest in (GSM 03.38, default alphabet with its extension table). Pure."""

from typing import Final

BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
# Each of these takes the room of two.
EXTENSION: Final = frozenset("^{}\\[~]|€\f")


def is_gsm(text: str) -> bool:
    """Whether a text can be sent without UCS-2, which halves what fits into a segment."""
    return BASIC.union(EXTENSION).issuperset(text)
