"""What a password may be. Pure: no hash is made here."""

import time

import pytest

from app.auth.passwords import LONGEST, SHORTEST, check_new
from app.errors import InvalidRequest


@pytest.mark.parametrize(
    "chosen",
    [
        "password",
        "PassWord1",
        "P@ssw0rd",
        "p@ssword",
        "abcd1234",
        "abcdefgh",
        "87654321",
        "987654321",
        "0123456789",
        "12341234",
        "aaaabbbb",
        " " * SHORTEST,
        "ana silva",
        "Ana@Home.example",
        "x" * (SHORTEST - 1),
        "😀😃😄😁😆😅😂",
    ],
)
def test_what_is_tried_first_is_refused(chosen: str) -> None:
    """Common ones, sequences and repetitions in any case or spelling, what was told, and what is too short."""
    with pytest.raises(InvalidRequest) as refused:
        check_new(chosen, "Ana Silva", "ana@home.example", None)
    assert refused.value.errors[0].pointer == "/password"


@pytest.mark.parametrize(
    "chosen",
    [
        "xkqz wvp",
        "a window left ajar",
        "  spaced out  ",
        "q7!\0\t\u200bzzz",
        "пароль из слов",
        "😀😃😄😁" * (LONGEST // 4),
        "a1b2c3d4" * (LONGEST // 8),
    ],
)
def test_anything_else_is_welcome(chosen: str) -> None:
    """8 to 128 characters of whatever alphabet, blanks at the ends kept; no kinds of characters are asked for."""
    assert check_new(chosen, "Ana Silva") == chosen
    with pytest.raises(InvalidRequest):
        check_new(chosen.ljust(LONGEST, "~") + "~")


def test_every_keyboard_writes_the_same() -> None:
    """An accent as one character or as two, and full-width letters: the composed form is kept."""
    assert check_new("cafe\u0301 sans sucre") == check_new("caf\u00e9 sans sucre") == "caf\u00e9 sans sucre"
    assert check_new("\uff46\uff55\uff4c\uff4c width letters") == "full width letters"


@pytest.mark.parametrize("length", [SHORTEST, 12, 13, 72, LONGEST])
def test_judging_takes_nobodys_time(length: int) -> None:
    """Not even of the spellings that zxcvbn is slowest at: anybody may ask, and the event loop waits."""
    check_new("something to load the lists with")
    chosen = ("4@8({[<369!1|/7+0$5%2" * LONGEST)[:length]
    began = time.process_time()
    check_new(chosen)
    assert time.process_time() - began < 0.25
