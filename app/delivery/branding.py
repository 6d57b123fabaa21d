"""How a tenant's messages look and whom they come from: read by the worker, changed by admins.

The worker asks for the tenants of a whole batch at once and keeps what it was told for half a minute. A change shows
after that at the latest, and a message never waits for it: when the database is away the last known look serves.
"""

import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import asyncpg

from app.audit.log import Actor, Client, record
from app.delivery import colour, logo
from app.delivery.brand_rules import check_branding
from app.errors import EditConflict, TenantNotFound, Unavailable
from app.keys import KeyRing, Keys, base64url, keyed_hash
from app.masking import mask_email
from app.storage.db import Database, Row, repeatable

BRASS: Final = "#76530c"
_BRASS_AT_NIGHT: Final = "#dcb45c"
# What the accent is read on in the email layout.
_PAPER: Final = "#faf6ee"
_NIGHT: Final = "#1c2127"

_FRESH_SECONDS: Final = 30.0
_MOST_KNOWN: Final = 20_000
_VERSION_BYTES: Final = 12
_PROOF_BYTES: Final = 16

_MANY: Final = "SELECT * FROM fn.brandings($1)"
_LOGO: Final = "SELECT * FROM fn.tenant_logo($1)"
_ADD: Final = "INSERT INTO tenant_branding (tenant_id, updated_at) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_LOCK: Final = "SELECT * FROM tenant_branding WHERE tenant_id = $1 FOR UPDATE"
_TEXTS: Final = ("sender_name", "reply_to", "colour", "code_in_subject", "email_intro", "sms_text")


@dataclass(frozen=True, slots=True)
class Logo:
    """What is known of a logo without its bytes. Its `version` is unguessable and changes with it; pixels."""

    version: str
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Branding:
    """One tenant's. What is None is as the operator has it."""

    sender_name: str | None = None
    reply_to: str | None = field(default=None, repr=False)
    colour: str | None = None
    logo: Logo | None = None
    code_in_subject: bool = True
    email_intro: str | None = None
    sms_text: str | None = None
    version: int = 0

    @property
    def accents(self) -> Mapping[str, str]:
        """The colour as text on the email's light and on its dark sheet: `accent`, `accent_dark`."""
        return _accents(self.colour)


PLAIN: Final = Branding()


class Brandings:
    """Of all tenants. Reading for messages raises nothing; the rest raises `Unavailable` with the database away."""

    def __init__(self, db: Database, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._monotonic = monotonic
        # Oldest first: what is looked up again moves to the end.
        self._known: dict[UUID, tuple[Branding, float]] = {}

    async def prepare(self, tenant_ids: Iterable[UUID]) -> None:
        """Looks up whoever isn't known freshly enough, in one round trip or none."""
        now = self._monotonic()
        wanted = {i for i in tenant_ids if i not in self._known or now - self._known[i][1] >= _FRESH_SECONDS}
        if not wanted:
            return
        try:
            rows = await self._db.rows(_MANY, list(wanted))
        except Unavailable:
            return
        found = {row["tenant_id"]: _branding(row) for row in rows}
        for tenant_id in wanted:
            self._known.pop(tenant_id, None)
            self._known[tenant_id] = (found.get(tenant_id, PLAIN), now)
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def known(self, tenant_id: UUID) -> Branding:
        """As last looked up; plain for a tenant that never was."""
        return self._known.get(tenant_id, (PLAIN, 0.0))[0]

    async def get(self, tenant_id: UUID) -> Branding:
        """As it is now; plain for a tenant that never changed it."""
        row = await self._db.row(_MANY, [tenant_id])
        return _branding(row) if row else PLAIN

    @repeatable
    async def set(
        self,
        tenant_id: UUID,
        changes: Mapping[str, object],
        *,
        now: datetime,
        actor: Actor,
        client: Client,
        expected_version: int | None = None,
    ) -> Branding:
        """Changes what is named (see `brand_rules.RULES`; `logo` is the file's bytes); None clears.

        One transaction with its audit event. What changes nothing is no change. Raises `InvalidRequest` with every
        fault, `TenantNotFound`, and `EditConflict` if `expected_version` is not the stored one.
        """
        values = check_branding(changes)
        async with self._db.every_tenant() as connection:
            try:
                await connection.execute(_ADD, tenant_id, now)
            except asyncpg.ForeignKeyViolationError:
                raise TenantNotFound from None
            stored = await connection.fetchrow(_LOCK, tenant_id)
            before = _branding(stored)
            if expected_version is not None and expected_version != before.version:
                raise EditConflict(before.version)
            columns = {name: value for name, value in values.items() if stored[name] != value}
            if not columns:
                return before
            if "logo" in columns:
                columns |= _logo_columns(columns["logo"])
            columns |= {"version": before.version + 1, "updated_at": max(now, stored["updated_at"])}
            after = _branding({**stored, **columns})
            places = ", ".join(f"{name} = ${n}" for n, name in enumerate(columns, 2))
            update = f"UPDATE tenant_branding SET {places} WHERE tenant_id = $1"
            await connection.execute(update, tenant_id, *columns.values())
            data = {"changes": _shown_changes(before, after), "version": after.version}
            subject = ("tenant", tenant_id)
            await record(connection, now, tenant_id, "tenant.branded", actor, client, subject=subject, data=data)
        self._known.pop(tenant_id, None)
        return after


def logo_address(ring: KeyRing, slug: str, version: str) -> str:
    """The path under which we serve a tenant's logo: signed, so that only what we wrote leads to the database."""
    return f"/t/{slug}/logo?v={version}.{_logo_proof(ring.current, slug, version)}"


async def logo_file(db: Database, ring: KeyRing, slug: str, presented: str) -> tuple[str, bytes] | None:
    """Media type and bytes of a tenant's logo; None unless `presented` is the `v` of its present address.

    What we didn't sign is refused before anything is looked up: whether a slug is somebody's, and whether they have a
    logo, can show neither in the answer nor in its time.
    """
    version, _, proof = presented.rpartition(".")
    given = proof.encode()
    if not any(
        hmac.compare_digest(_logo_proof(keys, slug, version).encode(), given) for keys in ring.by_thumbprint.values()
    ):
        return None
    row = await db.row(_LOGO, slug)
    if row is None or row["logo_version"] != version:
        return None
    return row["logo_type"], row["logo"]


def _logo_proof(keys: Keys, slug: str, version: str) -> str:
    return base64url(keyed_hash(keys.cookie, "logo", slug.encode(), version.encode())[:_PROOF_BYTES])


def _branding(row: Row) -> Branding:
    texts = {name: row[name] for name in _TEXTS}
    return Branding(**texts, logo=_logo_of(row), version=row["version"])


def _logo_of(row: Row) -> Logo | None:
    if row["logo_version"] is None:
        return None
    return Logo(row["logo_version"], row["logo_type"], row["logo_width"], row["logo_height"])


def _logo_columns(data: bytes | None) -> dict[str, Any]:
    if data is None:
        return dict.fromkeys(("logo_version", "logo_type", "logo_width", "logo_height"))
    image = logo.inspect(data)
    return {
        "logo_version": secrets.token_urlsafe(_VERSION_BYTES),
        "logo_type": image.media_type,
        "logo_width": image.width,
        "logo_height": image.height,
    }


def _shown_changes(before: Branding, after: Branding) -> list[dict[str, object]]:
    """The differences as the audit log keeps them; an address masked, a logo described."""
    old, new = (_shown(branding) for branding in (before, after))
    return [
        {"field": f"branding.{name}", "before": old[name], "after": new[name]} for name in old if old[name] != new[name]
    ]


def _shown(branding: Branding) -> dict[str, object]:
    reply_to = mask_email(branding.reply_to) if branding.reply_to else None
    mark = branding.logo
    shown = f"{mark.media_type}, {mark.width} x {mark.height}, version {mark.version[:4]}" if mark else None
    masked = replace(branding, reply_to=reply_to)
    return {**{name: getattr(masked, name) for name in _TEXTS}, "logo": shown}


@lru_cache(maxsize=4096)
def _accents(chosen: str | None) -> Mapping[str, str]:
    if chosen is None:
        return {"accent": BRASS, "accent_dark": _BRASS_AT_NIGHT}
    return {"accent": colour.readable(chosen, _PAPER), "accent_dark": colour.readable(chosen, _NIGHT)}
