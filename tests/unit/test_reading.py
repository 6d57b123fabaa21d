"""What a faulty body is told: where the fault is and what would have been right."""

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from app.errors import InvalidRequest
from app.web.reading import decode


class _Inner(Struct, forbid_unknown_fields=True):
    ways: list[Annotated[Literal["sms", "email"], Meta(description="A way.")]] = []


class _Body(Struct, forbid_unknown_fields=True):
    channel: Literal["email", "sms"] | None = None
    inner: _Inner | None = None


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        (b'{"channel": "pigeon"}', "/channel", "This must be one of email, sms."),
        (b'{"inner": {"ways": ["sms", "x"]}}', "/inner/ways/1", "This must be one of email, sms."),
        (b'{"channel": 7}', "/channel", "Expected `string | null`, got `integer`."),
        (b'{"chanel": "sms"}', "/chanel", "There is no such field."),
        (b'{"inner": {"ways": {}}}', "/inner/ways", "Expected `array`, got `object`."),
        (b"{", "", "The body is not JSON."),
    ],
)
def test_a_fault_is_told_in_words_that_help(body: bytes, pointer: str, detail: str) -> None:
    """A pointer to the field, and the words that are allowed there instead of only the wrong one."""
    with pytest.raises(InvalidRequest) as refusal:
        decode(body, _Body)
    fault: Any = refusal.value.errors[0]
    assert (fault.pointer, fault.detail) == (pointer, detail)
