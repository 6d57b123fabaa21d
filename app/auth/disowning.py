"""What "it wasn't me" does: the recipient of a code makes it useless, without signing in."""

from datetime import datetime
from typing import Final, Literal, cast

from app.audit.log import Client
from app.delivery.disowning import read_token
from app.errors import CodeExpired
from app.keys import KeyRing
from app.storage.db import Database

# How the code stood: still open, used by somebody, over anyway, or so old that nothing is known of it.
Stood = Literal["open", "used", "over", "gone"]

_DISOWN: Final = "SELECT fn.disown_challenge($1, $2, $3, $4) AS stood"


def check_link(ring: KeyRing, token: str) -> None:
    """Raises `CodeExpired` unless the link is one of ours. Changes nothing."""
    if read_token(ring, token) is None:
        raise CodeExpired("This link is not valid any more.")


async def disown(db: Database, ring: KeyRing, token: str, now: datetime, client: Client) -> Stood:
    """Ends the challenge that the link names, and nothing else; the tenant's admins see an event, once.

    One round trip. Raises `CodeExpired` for a link that isn't ours, `Unavailable`.
    """
    ids = read_token(ring, token)
    if ids is None:
        raise CodeExpired("This link is not valid any more.")
    row = await db.row(_DISOWN, now, *ids, client.as_json())
    return cast("Stood", row["stood"] if row else "gone")
