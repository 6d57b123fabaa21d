"""Where a page of somebody's history ends, as an opaque text for the next request."""

from base64 import urlsafe_b64decode
from datetime import datetime

from app.auth.sessions import Event
from app.errors import FieldError, InvalidRequest
from app.keys import base64url


def show_cursor(last: Event) -> str:
    """The cursor of the page after this event."""
    return base64url(f"{last.at.isoformat()} {last.id}".encode())


def read_cursor(cursor: str) -> tuple[datetime, int]:
    """The time and id in a cursor. Raises `InvalidRequest`."""
    try:
        at, _, event_id = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().rpartition(" ")
        moment, number = datetime.fromisoformat(at), int(event_id)
        if moment.tzinfo is None or not 0 <= number < 2**63:
            raise ValueError(cursor)
    except ValueError:
        raise InvalidRequest(FieldError("/cursor", "This is not a cursor of ours.")) from None
    return moment, number
