"""The audit log: who did what to whom, when, from where. Append-only; read by the admin portal.

Sign-in writes its events inside its own SQL functions, in the statement that does the thing. Everything else calls
`record` inside the transaction of the change, so that neither can be without the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg

_INSERT = """
INSERT INTO audit_events (tenant_id, at, action, actor_kind, actor_id, subject_kind, subject_id, source, ip,
                          user_agent, request_id, data)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::inet, $10, $11, $12)
"""


@dataclass(frozen=True, slots=True)
class Client:
    """Where a call comes from. `ip` is the address after trusted proxies; `user_agent` is cut to 200 characters.

    `for_many`: a server calls, with an API key, for people whose addresses it doesn't tell.
    """

    source: Literal["api", "page", "cli"]
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    for_many: bool = False

    @property
    def limited_by(self) -> str | None:
        """The address that pays for what one address may do; None where it is no one person's or office's."""
        return None if self.for_many else self.ip

    def as_json(self) -> dict[str, str | None]:
        """As the SQL functions take it."""
        return {
            "source": self.source,
            "ip": self.ip,
            "user_agent": self.user_agent,
            "request_id": self.request_id,
        }


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a tenant or admin by session, an API key, or somebody at the command line (no id)."""

    kind: Literal["tenant", "member", "admin", "api-key", "operator"]
    id: UUID | None = None


async def record(
    connection: asyncpg.Connection,
    now: datetime,
    tenant_id: UUID,
    action: str,
    actor: Actor,
    client: Client,
    *,
    subject: tuple[str, UUID] | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Writes one event in the caller's transaction. Values in `data` are masked by the caller."""
    await connection.execute(
        _INSERT,
        tenant_id,
        now,
        action,
        actor.kind,
        actor.id,
        subject[0] if subject else None,
        subject[1] if subject else None,
        client.source,
        client.ip,
        client.user_agent,
        client.request_id,
        data or {},
    )


async def record_many(
    connection: asyncpg.Connection,
    now: datetime,
    tenants: Sequence[tuple[UUID, dict[str, Any]]],
    action: str,
    actor: Actor,
    client: Client,
) -> None:
    """Writes an event of each tenant with its data, as `record` does."""
    source, ip, agent, request_id = client.source, client.ip, client.user_agent, client.request_id
    await connection.executemany(
        _INSERT,
        [
            (tenant, now, action, actor.kind, actor.id, "tenant", tenant, source, ip, agent, request_id, data)
            for tenant, data in tenants
        ],
    )
