"""Tenants to sign in as, and the eyes of their mailbox: what the worker would send, without a worker."""

import itertools
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from app.auth import codes
from app.auth.signing_in import Outcome, SignIn
from app.keys import KeyRing
from app.storage.db import Database, Row

_numbers = itertools.count(1)

# What a newcomer agrees to.
CONSENT = {"document": "terms", "version": "2026-01"}


@dataclass(frozen=True, slots=True)
class SomeTenant:
    """A tenant that exists, with a slug of its own in this run."""

    id: UUID
    slug: str
    email: str | None
    phone_number: str | None


async def add_tenant(db: Database, now: datetime, **fields: Any) -> SomeTenant:
    """Writes a tenant straight into the table; `fields` are columns."""
    slug = fields.pop("slug", None) or f"tenant-{next(_numbers)}-{uuid4().hex[:8]}"
    columns: dict[str, Any] = {
        "id": uuid4(),
        "slug": slug,
        "name": "Acme",
        "email": f"owner@{slug}.example",
        "phone_number": None,
        "created_at": now,
        "updated_at": now,
        **fields,
    }
    names = ", ".join(columns)
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    async with db.every_tenant() as connection:
        await connection.execute(f"INSERT INTO tenants ({names}) VALUES ({places})", *columns.values())
    return SomeTenant(columns["id"], slug, columns["email"], columns["phone_number"])


async def challenge_row(db: Database, challenge_id: str) -> Row:
    """The stored challenge."""
    async with db.every_tenant() as connection:
        row: Row | None = await connection.fetchrow(
            "SELECT * FROM challenges WHERE id = $1", codes.read_challenge_id(challenge_id)
        )
    assert row is not None, "no such challenge"
    return row


async def current_code(db: Database, ring: KeyRing, challenge_id: str) -> str:
    """The code of the newest generation, derived as the worker derives it."""
    row = await challenge_row(db, challenge_id)
    return codes.derive(ring.get(row["key_id"]), row["id"], row["generation"], row["salt"], row["code_length"])


async def sent_to(db: Database, challenge_id: str) -> str | None:
    """Where the worker would send the newest message of a challenge. Nothing is taken from the outbox."""
    row = await challenge_row(db, challenge_id)
    async with db.every_tenant() as connection:
        there: str | None = await connection.fetchval(
            "SELECT destination FROM fn.claim_outbox($1, 'eyes', 100000, '1 minute', 5) "
            "WHERE challenge_id = $2 AND state = 'sending' ORDER BY generation DESC LIMIT 1",
            row["sent_at"],
            row["id"],
        )
        await connection.execute("UPDATE outbox SET state = 'queued', attempts = 0 WHERE lease_owner = 'eyes'")
    return there


async def add_member(db: Database, now: datetime, tenant: SomeTenant, **fields: Any) -> UUID:
    """Writes a member straight into the table; `fields` are columns. Answers the id."""
    columns: dict[str, Any] = {
        "tenant_id": tenant.id,
        "id": uuid4(),
        "name": "Ana Silva",
        "created_at": now,
        "updated_at": now,
        **fields,
    }
    names = ", ".join(columns)
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    async with db.every_tenant() as connection:
        await connection.execute(f"INSERT INTO members ({names}) VALUES ({places})", *columns.values())
    member_id: UUID = columns["id"]
    return member_id


def whole(outcome: Outcome | None) -> SignIn:
    """A sign-in that asked for no second factor."""
    assert isinstance(outcome, SignIn), outcome
    return outcome


def wrong(code: str) -> str:
    """A code of the same length that is not this one."""
    return str((int(code) + 1) % 10 ** len(code)).zfill(len(code))


async def count(db: Database, sql: str, *args: Any) -> int:
    """What a query over all tenants counts."""
    async with db.every_tenant() as connection:
        number: int = await connection.fetchval(sql, *args)
    return number
