"""Where a page of a list ends, as a text for the next request. Opaque to whoever carries it, and nothing that they
could not see on the page: times, ids, names, never a contact.
"""

from base64 import urlsafe_b64decode
from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec

from app.errors import FieldError, InvalidRequest
from app.keys import base64url

Kind = TypeVar("Kind")
# Only what the database can be asked for: whoever changes a cursor is refused here, not there.
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Text: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]*\Z")]
Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]

_LONGEST: Final = 2000


def show_cursor(place: object) -> str:
    """The cursor of a place: a tuple, dataclass or Struct of what orders the list."""
    return base64url(msgspec.json.encode(place))


def read_cursor(text: str, kind: type[Kind]) -> Kind:
    """The place in a cursor. Raises `InvalidRequest` for what isn't a cursor of this kind."""
    try:
        if len(text) > _LONGEST:
            raise ValueError(text)
        place = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
        _check_moments(place)
    except (ValueError, RecursionError):
        raise InvalidRequest(FieldError("/cursor", "This is not a cursor of this list.")) from None
    return place


def _check_moments(place: object) -> None:
    """Ours are in UTC; in another zone a time may lie outside of what there is."""
    for value in place if isinstance(place, tuple) else ():
        if isinstance(value, datetime) and value.tzinfo is not UTC:
            raise ValueError(value)
