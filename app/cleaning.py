"""What people paste, read as what they meant. Pure: text in, text out; cleaning twice changes nothing more.

One step for every door: `plain` for codes, phone numbers, email addresses and searches, `name` for names. Nothing is
refused here, and nothing that carries a meaning is dropped: whoever reads on refuses what is left over.
"""

import re
import unicodedata
from typing import Final

import email_validator

# Names that only an organisation's own servers know are addresses like any other; whether a mail arrives there is for
# its mail server to say. This is how the library wants to be told.
email_validator.SPECIAL_USE_DOMAIN_NAMES[:] = ["invalid", "localhost", "onion", "test"]

# A flag of a part of a country is a black flag and tags. Every other mark here shows nothing: soft hyphen, combining
# grapheme joiner, Arabic letter mark, Mongolian vowel separator, zero widths, bidi marks, embeddings and isolates,
# invisible operators, annotations, byte order mark, tags.
_UNSEEN: Final = re.compile(
    "(?P<flag>\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)|[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# Joiners shape letters and emoji, and variation selectors pick a look; beside digits they do nothing.
_SHAPING: Final = re.compile("[\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# After a letter of a script that doesn't join, or after none.
_IDLE_JOINER: Final = re.compile("(?:^|(?<=[\0-\u05ff\u1e00-\u206f\u3000]))[\u200c\u200d]+")
_SPACE: Final = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
_HYPHEN: Final = re.compile("[\u2010\u2011]")
# Letters with a code point of their own for their look alone: ligatures, Arabic in its four forms, full and half width.
# The whole of NFKC would put a space into a name with an accent for an apostrophe, and make x2 of x².
_LOOK: Final = re.compile(
    "[\ufb00-\ufb17\ufb50-\ufbb1\ufbd3-\ufc5d\ufe80-\ufefc\uff01-\uff60\uff65-\uffdc\uffe0-\uffe6]"
)
# As a digit a note would be a digit of the number it stands beside ("0123²").
_NOTES: Final = ("<super>", "<sub>", "<fraction>")
# A minus, a bullet, a rule, and the long vowel mark that Japanese keyboards put between digits.
_DASHES: Final = frozenset("\u2212\u2043\u02d7\u2500\u30fc")
# Fillers and blanks that count as letters or symbols.
_BLANK: Final = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufffc")


def plain(text: str) -> str:
    """Letters, digits and punctuation as ASCII has them, where it has them; any dash and any space is its own."""
    text = _SHAPING.sub("", _UNSEEN.sub("", text)).replace("\t", " ")
    if text.isascii():
        return text
    folded = "".join(
        c if unicodedata.decomposition(c).startswith(_NOTES) else unicodedata.normalize("NFKC", c) for c in text
    )
    return unicodedata.normalize("NFC", "".join(map(_plain, folded)))


def name(text: str) -> str:
    """A name without what shows nothing, in Unicode's composed form, without the spaces around it.

    Joiners stay where they shape: in scripts that join, and in emoji. Digits and dashes of other scripts, superscripts
    and symbols stay what they are.
    """
    text = _UNSEEN.sub(lambda mark: mark["flag"] or "", text)
    text = _LOOK.sub(lambda look: unicodedata.normalize("NFKC", look[0]), text)
    text = unicodedata.normalize("NFC", _HYPHEN.sub("-", _SPACE.sub(" ", text)))
    return unicodedata.normalize("NFC", _IDLE_JOINER.sub("", text)).strip()


def is_seen(text: str) -> bool:
    """Whether it shows anything: not only controls, combining marks, spaces and blanks."""
    return any(c not in _BLANK and unicodedata.category(c)[0] not in "CMZ" for c in text)


def _plain(char: str) -> str:
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(char)
    if category == "Zs":
        return " "
    return "-" if category == "Pd" or char in _DASHES else char
