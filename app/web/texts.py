"""The few sentences an API answer carries for a person, in the languages we speak."""

import math
from typing import Final

DEFAULT_LANGUAGE: Final = "en"
# BCP 47 for "nobody said": the message is then in the tenant's language.
UNDETERMINED: Final = "und"
# The same for everybody who asks, whether a code was sent or not (api.md, "Concealed or disclosed").
_CODE_SENT: Final = {
    "en": "If we can reach you, a code is on its way. Enter it as soon as it arrives.",
    "de": "Wenn wir Sie erreichen können, ist ein Code unterwegs. Geben Sie ihn ein, sobald er da ist.",
    "fr": "Si nous pouvons vous joindre, un code est en route. Saisissez-le dès qu'il arrive.",
    "es": "Si podemos contactarle, un código está en camino. Introdúzcalo en cuanto llegue.",
    "pt": "Se pudermos contactá-lo, um código está a caminho. Introduza-o assim que chegar.",
    "ar": "إذا كان بإمكاننا الوصول إليك، فالرمز في الطريق. أدخله فور وصوله.",
    "hi": "यदि हम आप तक पहुँच सकते हैं, तो कोड भेजा जा रहा है। मिलते ही उसे दर्ज करें।",
}
LANGUAGES: Final = tuple(_CODE_SENT)
_MOST_RANGES: Final = 20
# A wait is told in seconds until there are this many.
_SECONDS_UNTIL: Final = 120


def code_sent(language: str) -> str:
    """Says that a code was asked for. `language` is one of LANGUAGES."""
    return _CODE_SENT[language]


def in_words(seconds: int) -> str:
    """A wait as people say it: "1 second", "90 seconds", "12 minutes"."""
    if seconds < _SECONDS_UNTIL:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    return f"{math.ceil(seconds / 60)} minutes"


def choose_language(accept_language: str | None) -> str | None:
    """The best of our languages for an Accept-Language header (RFC 9110, section 12.5.4), or None."""
    if not accept_language:
        return None
    best, best_weight = None, 0.0
    for text in accept_language.split(",", _MOST_RANGES)[:_MOST_RANGES]:
        tag, _, parameter = text.partition(";")
        language = tag.strip().lower().partition("-")[0]
        weight = _weight(parameter)
        if language in _CODE_SENT and weight > best_weight:
            best, best_weight = language, weight
    return best


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
