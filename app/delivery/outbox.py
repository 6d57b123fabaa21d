"""The outbox as the worker sees it. Every call is one statement, and so one round trip; see `sql/outbox.sql`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from app.storage.db import Database

# The Valkey channel on which whoever committed a message says so.
WAKE_CHANNEL: Final = "gatehouse:outbox"

_CLAIM: Final = "SELECT * FROM fn.claim_outbox($1, $2, $3, $4, $5)"
_SETTLE: Final = "SELECT * FROM fn.settle_outbox($1, $2, $3, $4)"
_MATCH: Final = "SELECT fn.match_report($1, $2) AS outcome"
_FOLLOW_UP: Final = "SELECT fn.follow_up($1, $2, $3) AS count"
_RENEW: Final = "SELECT fn.renew_outbox($1, $2, $3, $4, $5)"
_RELEASE: Final = "SELECT fn.release_outbox($1, $2) AS count"

_FOLLOW_UP_AT_MOST: Final = 256


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row of the outbox with everything its sender needs.

    `state` is `sending`, or says that it was settled unsent: `void` (a decoy, or no longer wanted), `expired`, or
    `failed` (it took its workers down). `attempts` counts this try, but none that was put off; `refused` names
    providers not to be asked again.
    """

    state: Literal["sending", "void", "expired", "failed"]
    tenant_id: UUID
    id: UUID
    kind: str
    channel: str
    challenge_id: UUID | None
    generation: int | None
    destination: str | None = field(repr=False)
    payload: dict[str, Any] | None = field(repr=False)
    attempts: int
    last_error_class: str | None
    created_at: datetime
    expires_at: datetime
    salt: bytes | None = field(repr=False)
    key_id: str | None
    code_length: int | None
    subject_kind: str | None
    subject_id: UUID | None
    purpose: str | None
    challenge_locale: str | None
    ip: str | None = field(repr=False)
    user_agent: str | None = field(repr=False)
    asked_at: datetime | None
    tenant_slug: str | None
    tenant_name: str | None
    tenant_locale: str | None
    tenant_timezone: str | None
    refused: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class EarlierTry:
    """A provider that did not take the message before another one was asked."""

    provider: str | None
    error_class: str
    error_text: str
    took_ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try went. With `retry_at` the message is queued again, otherwise `state` is final.

    `tried` False: nobody was asked, which is no try and no step of the story. `counted` False: somebody was, and put it
    off, which is none of the five tries. `doubtful`: a copy may have arrived.
    `reports`: the provider will say what becomes of it; `bounces_as`: it may, by this name. `refused` are providers
    not to be asked again, `fallback_at` is when the next channel takes over, and `unhealthy_class` says that the
    contact is no good.
    """

    tenant_id: UUID
    id: UUID
    state: Literal["queued", "sent", "failed"]
    provider: str | None = None
    provider_message_id: str | None = None
    error_class: str | None = None
    error_text: str | None = None
    retry_at: datetime | None = None
    took_ms: int = 0
    tried: bool = True
    counted: bool = True
    doubtful: bool = False
    reports: bool = False
    bounces_as: str | None = None
    refused: Sequence[str] = ()
    fallback_at: datetime | None = None
    earlier: Sequence[EarlierTry] = ()
    unhealthy_class: str | None = None
    unhealthy_text: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """How many outcomes were written down, and how many messages another row took over."""

    written: int
    followed: int


class Outbox:
    """Claims messages for one worker and writes down what became of them. Raises `Unavailable`.

    `routes` are the names of the providers by channel: what a failed code may go on by.
    """

    def __init__(self, database: Database, owner: str, routes: Mapping[str, Sequence[str]] | None = None) -> None:
        self._database = database
        self._owner = owner
        self._routes = routes or {}

    async def claim(self, now: datetime, *, limit: int, lease: timedelta, max_tries: int) -> list[Claimed]:
        """Up to `limit` messages that are due or were lost by another worker, held for `lease`."""
        rows = await self._database.rows(_CLAIM, now, self._owner, limit, lease, max_tries)
        return [Claimed(**row) for row in rows]

    async def settle(self, now: datetime, outcomes: Sequence[Outcome]) -> Settled:
        """Writes all outcomes or none; only those this worker still has a say in."""
        row = await self._database.row(_SETTLE, now, self._owner, self._routes, outcomes)
        return Settled(**row) if row else Settled(0, 0)

    async def follow_up(self, now: datetime) -> int:
        """Writes down reports that came before their messages; then lets the next channel take over where no sign of
        delivery came in time. Answers how many messages went on.
        """
        followed = 0
        while (row := await self._database.row(_MATCH, now, self._routes)) and row["outcome"]:
            followed += row["outcome"] == "followed"
        row = await self._database.row(_FOLLOW_UP, now, self._routes, _FOLLOW_UP_AT_MOST)
        return followed + (int(row["count"]) if row else 0)

    async def renew(self, now: datetime, claimed: Iterable[Claimed], *, lease: timedelta) -> None:
        """Holds messages for another `lease` from now."""
        keys = [(c.tenant_id, c.id) for c in claimed]
        tenant_ids, ids = [key[0] for key in keys], [key[1] for key in keys]
        await self._database.run(_RENEW, now, self._owner, tenant_ids, ids, lease)

    async def release(self, now: datetime) -> int:
        """Hands back, untried, everything this worker holds. Answers how many."""
        row = await self._database.row(_RELEASE, now, self._owner)
        return int(row["count"]) if row else 0
