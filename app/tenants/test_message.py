"""A message without a code, sent to see whether codes would arrive."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final
from uuid import UUID, uuid4

import asyncpg

from app.errors import NotFound

_LIFE: Final = timedelta(minutes=10)
_INSERT: Final = """
INSERT INTO outbox (tenant_id, id, kind, channel, available_at, expires_at, created_at, updated_at)
VALUES ($1, $2, 'test', $3, $4, $5, $4, $4)
"""
_OUTCOME: Final = "SELECT state, channel, provider, error_text FROM outbox WHERE tenant_id = $1 AND id = $2"


@dataclass(frozen=True, slots=True)
class TestMessage:
    """A queued test message: what to ask for its outcome with."""

    # Its name is no reason for pytest to run it.
    __test__: ClassVar[bool] = False

    tenant_id: UUID
    id: UUID
    channel: str


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """Where a test message stands: the outbox's `state`, by which provider, and what it said if it refused."""

    __test__: ClassVar[bool] = False

    state: str
    channel: str
    provider: str | None
    error: str | None

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.state not in {"queued", "sending"}


async def queue(connection: asyncpg.Connection, now: datetime, tenant_id: UUID, channel: str) -> TestMessage:
    """Puts it into the outbox. The worker finds the address: it stands at the tenant only."""
    message = TestMessage(tenant_id, uuid4(), channel)
    await connection.execute(_INSERT, tenant_id, message.id, channel, now, now + _LIFE)
    return message


async def outcome(connection: asyncpg.Connection, message: TestMessage) -> TestOutcome:
    """Where it stands now. Raises `NotFound` once it was cleared away, a day later."""
    row = await connection.fetchrow(_OUTCOME, message.tenant_id, message.id)
    if row is None:
        raise NotFound("This test message is no longer known.")
    return TestOutcome(row["state"], row["channel"], row["provider"], row["error_text"])
