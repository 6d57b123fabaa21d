"""Where a page of somebody's history ends, as an opaque text for the next request."""

from datetime import datetime

from app import cursors
from app.auth.sessions import Event


def show_cursor(last: Event) -> str:
    """The cursor of the page after this event."""
    return cursors.show_cursor((last.at, last.id))


def read_cursor(cursor: str) -> tuple[datetime, int]:
    """The time and id in a cursor. Raises `InvalidRequest`."""
    return cursors.read_cursor(cursor, tuple[cursors.Moment, cursors.Number])
