"""Second factors under a new key: what `gatehouse keys rotate` does with them."""

from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from app.auth.encryption import decrypt, encrypt
from app.auth.factors.service import backup_context, totp_context
from app.keys import KeyRing

_PATIENCE: Final = 60.0


async def reencrypt_apps(connection: asyncpg.Connection, ring: KeyRing, old: Sequence[str]) -> int:
    """The secrets of authenticator apps that are encrypted under an `old` key; answers how many."""
    return await _reencrypt(connection, ring, old, "factors", "secret", totp_context)


async def reencrypt_backup_codes(connection: asyncpg.Connection, ring: KeyRing, old: Sequence[str]) -> int:
    """The hashes of backup codes that are encrypted under an `old` key; answers how many."""
    return await _reencrypt(connection, ring, old, "backup_codes", "code_hash", backup_context)


async def _reencrypt(
    connection: asyncpg.Connection,
    ring: KeyRing,
    old: Sequence[str],
    table: str,
    column: str,
    context_of: Callable[[UUID, UUID, UUID], bytes],
) -> int:
    rows = await connection.fetch(
        f"SELECT tenant_id, id, subject_id, key_id, {column} AS stored FROM {table} WHERE key_id = ANY ($1) FOR UPDATE",
        old,
        timeout=_PATIENCE,
    )
    anew = []
    for row in rows:
        context = context_of(row["tenant_id"], row["subject_id"], row["id"])
        plain = decrypt(ring, row["key_id"], context, row["stored"])
        anew.append((row["tenant_id"], row["id"], *encrypt(ring, context, plain)))
    change = f"UPDATE {table} SET key_id = $3, {column} = $4 WHERE tenant_id = $1 AND id = $2"
    await connection.executemany(change, anew, timeout=_PATIENCE)
    return len(rows)
