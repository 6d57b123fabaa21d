"""The story of a tenant's codes in plain words: "why didn't I get my code?" answered without reading a log.

Told from three places: the audit log (asked, entered, changed), the delivery events (sent, refused) and the counted
refusals (limits). One query reads them; `tell` and `advise` are pure.
"""

from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from app.audit import words
from app.errors import FieldError, InvalidRequest
from app.keys import base64url
from app.storage import SYSTEM_TENANT
from app.storage.db import Database

# Each branch takes one page at most, by the primary key of its table; `ref` orders what happened at one moment.
_STORY: Final = """
SELECT s.*, coalesce(a.email, k.name) AS actor
FROM (
    (SELECT e.at, 'a' || lpad(e.id::text, 19, '0') COLLATE "C" AS ref, e.action AS what, NULL AS kind,
            e.data ->> 'channel' AS channel, NULL AS provider, NULL AS answer, NULL AS error_class,
            NULL::integer AS number, e.actor_kind, e.actor_id, host(e.ip) AS ip, e.user_agent, e.data
       FROM audit_events e
      WHERE e.tenant_id = $1
        AND ($2::timestamptz IS NULL OR (e.at <= $2 AND (e.at, 'a' || lpad(e.id::text, 19, '0') COLLATE "C") < ($2, $3)))
      ORDER BY e.at DESC, e.id DESC LIMIT $4)
    UNION ALL
    (SELECT d.at, 'd' || lpad(d.id::text, 19, '0') COLLATE "C", 'delivery.' || d.state, d.kind, d.channel, d.provider,
            coalesce(d.error_text, d.provider_message_id), d.error_class, d.took_ms, 'system', NULL, NULL, NULL, NULL
       FROM delivery_events d
      WHERE d.tenant_id = $1 AND d.kind <> 'decoy'
        AND ($2::timestamptz IS NULL OR (d.at <= $2 AND (d.at, 'd' || lpad(d.id::text, 19, '0') COLLATE "C") < ($2, $3)))
      ORDER BY d.at DESC, d.id DESC LIMIT $4)
    UNION ALL
    (SELECT r.minute, 'r' || r.reason COLLATE "C", 'refused.' || r.reason, NULL, NULL, NULL, NULL, NULL,
            sum(r.count)::integer, 'anonymous', NULL, NULL, NULL, NULL
       FROM refusals r
      WHERE r.tenant_id = $1
        AND ($2::timestamptz IS NULL OR (r.minute <= $2 AND (r.minute, 'r' || r.reason COLLATE "C") < ($2, $3)))
      GROUP BY r.minute, r.reason ORDER BY r.minute DESC, r.reason DESC LIMIT $4)
    ORDER BY at DESC, ref DESC LIMIT $4
) AS s
LEFT JOIN admins a ON s.actor_kind = 'admin' AND a.tenant_id = $5 AND a.id = s.actor_id
LEFT JOIN api_keys k ON s.actor_kind = 'api-key' AND k.tenant_id = $5 AND k.id = s.actor_id
ORDER BY s.at DESC, s.ref DESC
"""
# What the contacts were on an older page: the changes since then, taken back one by one.
_CONTACT_CHANGES: Final = """
SELECT data FROM audit_events
WHERE tenant_id = $1 AND at >= $2 AND action = 'tenant.changed'
ORDER BY at DESC, id DESC
"""
_CONTACT_OF: Final = {"email": "email", "sms": "phone_number", "whatsapp": "phone_number"}


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened, as it is stored. `what` is an audit action, `delivery.<state>` or `refused.<reason>`.

    `answer` is what a provider said, `number` milliseconds of a delivery or how often something was refused.
    """

    at: datetime
    ref: str
    what: str
    kind: str | None = None
    channel: str | None = None
    provider: str | None = None
    answer: str | None = None
    error_class: str | None = None
    number: int | None = None
    actor_kind: str = "anonymous"
    actor: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the story. `kind` says how it looks, `notes` are details, `ip` and `user_agent` whose call it was."""

    at: datetime
    kind: str
    text: str
    notes: Sequence[str] = ()
    ip: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """Some entries, newest first, and the cursor of older ones. `happenings` are what they tell of."""

    entries: Sequence[Entry]
    happenings: Sequence[Happening]
    next: str | None


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do now, and which of the buttons help."""

    text: str
    edit: bool = False
    test: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """What advice depends on beside the story. `next_code_at` is None where a code may be asked for now."""

    status: str
    reachable: bool
    method: str
    next_code_at: datetime | None
    locked: bool


class Timeline:
    """Reads stories. Raises `Unavailable` when the database is away."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def read(
        self, tenant_id: UUID, contacts: Mapping[str, str | None], *, cursor: str | None = None, limit: int = 50
    ) -> Story:
        """A page of a tenant's story. `contacts` are its present ones, masked, by field name.

        Raises `InvalidRequest` for a foreign cursor.
        """
        at, ref = _read_cursor(cursor) if cursor else (None, None)
        async with self._db.every_tenant() as connection:
            rows = await connection.fetch(_STORY, tenant_id, at, ref, limit + 1, SYSTEM_TENANT)
            later = await connection.fetch(_CONTACT_CHANGES, tenant_id, at) if at else []
        known = dict(contacts)
        for row in later:
            _take_back(known, row["data"])
        happenings = [_happening(row) for row in rows[:limit]]
        last = happenings[-1] if len(rows) > limit else None
        return Story(
            tell(happenings, known),
            happenings,
            base64url(msgspec.json.encode((last.at, last.ref))) if last else None,
        )


def tell(happenings: Iterable[Happening], contacts: Mapping[str, str | None]) -> list[Entry]:
    """The story of these happenings, newest first as they come; `contacts` are those after the newest."""
    known = dict(contacts)
    entries = []
    for happening in happenings:
        contact = known.get(_CONTACT_OF.get(happening.channel or "", ""))
        entries.append(_entry(happening, contact))
        if happening.what == "tenant.changed":
            _take_back(known, happening.data)
    return entries


def advise(happenings: Sequence[Happening], situation: Situation) -> Advice | None:
    """What to tell the person on the phone; None where nothing is wrong. The first thing that stops codes wins."""
    if situation.status != "active":
        return Advice("The tenant is suspended: nobody can sign in until somebody resumes it.")
    if not situation.reachable:
        return Advice("There is no contact that codes could go to. Ask for one, save it, send a test.", edit=True)
    if situation.locked:
        return Advice("Too many wrong codes: unknown devices are locked out for a while. Unlock it if it was them.")
    newest = next((h for h in happenings if h.what in words.SETTLED and h.kind in {"code", "test"}), None)
    if newest is not None and newest.what == "delivery.failed":
        return words.failure_advice(newest, Advice)
    if situation.next_code_at is not None:
        return Advice("The codes of this hour are used up. The newest one may still work; unlock it to allow more.")
    if newest is not None and newest.what == "delivery.queued":
        return Advice("The last message isn't through yet; we keep trying until the code expires.", test=True)
    return _unused(happenings)


def _unused(happenings: Sequence[Happening]) -> Advice | None:
    """Sent, but nobody came: the message lies where they don't look."""
    sent = 0
    for happening in happenings:
        if happening.what in {"session.started", "code.wrong", "tenant.changed"}:
            break
        sent += happening.what in {"delivery.sent", "delivery.delivered"} and happening.kind == "code"
    if sent < words.SUSPICIOUS_SENDS:
        return None
    return Advice(
        f"{sent} codes were sent and none was entered. Ask them to look into the spam folder, and whether the contact "
        "is right.",
        edit=True,
        test=True,
    )


def _entry(happening: Happening, contact: str | None) -> Entry:
    kind, text, notes = words.put(happening, contact)
    return Entry(happening.at, kind, text, tuple(note for note in notes if note), happening.ip, happening.user_agent)


def _happening(row: Mapping[str, Any]) -> Happening:
    values = {name: row[name] for name in Happening.__slots__}
    return Happening(**(values | {"data": row["data"] or {}}))


def _take_back(contacts: dict[str, str | None], data: Mapping[str, Any]) -> None:
    """The contacts as they were before a change."""
    for change in data.get("changes", ()):
        if change["field"] in contacts:
            contacts[change["field"]] = change["before"]


def _read_cursor(text: str) -> tuple[datetime, str]:
    try:
        packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        at, ref = msgspec.json.decode(packed, type=tuple[datetime, str])
        if at.tzinfo is None or "\0" in ref:
            raise ValueError(text)
    except ValueError:
        raise InvalidRequest(FieldError("/cursor", "This is not a cursor of this list.")) from None
    return at, ref
