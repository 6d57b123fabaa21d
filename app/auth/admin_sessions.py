"""How long an admin stays signed in, and how fresh a sign-in must be for what is dangerous (ASVS 5.0, 7.3 and 7.5)."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from app.audit.log import Client
from app.auth.sessions import LiveSession
from app.storage.db import Database

IDLE: Final = timedelta(minutes=15)
LONGEST: Final = timedelta(hours=12)
# Editing contacts, admins or keys, and letting somebody in by a link, takes a sign-in younger than this.
STEP_UP: Final = timedelta(minutes=60)

# `seen_at` is exact to this, so that a page seldom costs a write.
_NOTED_EVERY: Final = timedelta(minutes=1)
_TOUCH: Final = "SELECT fn.touch_admin_session($1, $2, $3, $4, $5) AS goes_on"


def is_fresh(session: LiveSession, now: datetime) -> bool:
    """Whether the person proved who they are recently enough to edit contacts, admins or keys."""
    return now - session.authenticated_at < STEP_UP


class AdminSessions:
    """The extra rules of admins' sessions, on top of `Sessions`."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock

    async def goes_on(self, session: LiveSession, client: Client) -> bool:
        """Whether an admin's live session may be used now: 15 minutes idle or 12 hours in all end it.

        Costs nothing for a session that was noted as used within the last minute, otherwise one statement. Raises
        `Unavailable`.
        """
        now = self._clock()
        if now - session.seen_at < _NOTED_EVERY and now - session.created_at < LONGEST:
            return True
        row = await self._db.row(_TOUCH, now, session.session_id, IDLE, LONGEST, client.as_json())
        return row is not None and bool(row["goes_on"])
