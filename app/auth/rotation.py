"""Changing the secret: what still needs an old one, and bringing over what can be.

A key is in use as long as a row names it or, for what carries its key outside, a token from its time is in force. Its
time is read off the audit chain, which is sealed under the first key of the ring every few seconds.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from app.auth.encryption import decrypt, encrypt
from app.auth.factors.rekeying import reencrypt_apps, reencrypt_backup_codes
from app.auth.idempotency import context_of
from app.keys import KeyRing
from app.storage.db import Database

# Every table that names keys, from the catalogue: a new one keeps its keys in use without anybody's doing.
_TABLES: Final = """
SELECT c.relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attname = 'key_id' AND NOT a.attisdropped AND c.relnamespace = 'public'::regnamespace
  AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname
"""
_NAMED: Final = "SELECT key_id, count(*) FROM {table} WHERE key_id IS NOT NULL AND {still} GROUP BY key_id"
# An ended challenge keeps nothing that a key is needed for.
_STILL: Final[Mapping[str, str]] = {"challenges": "ended_at IS NULL AND expires_at > $1"}
_KINDS: Final[Mapping[str, str]] = {
    "challenges": "open codes",
    "idempotency_keys": "kept answers",
    "factors": "authenticator apps",
}
# When each key was the first of the ring.
_TIMES: Final = "SELECT key_id, min(sealed_at) AS since, max(sealed_at) AS until FROM audit_seals GROUP BY key_id"
# Tokens that are out and carry their key themselves: in force at $1, made from $2 to $3.
_CARRIED: Final[Mapping[str, str]] = {
    "sessions": """
        SELECT count(*) FROM sessions
        WHERE kind = 'api' AND ended_at IS NULL AND expires_at > $1 AND created_at BETWEEN $2 AND $3
    """,
    "known devices": """
        SELECT count(*) FROM devices WHERE revoked_at IS NULL AND expires_at > $1 AND seen_at BETWEEN $2 AND $3
    """,
}
# A seal comes a little after what it seals.
_SEALED_WITHIN: Final = timedelta(minutes=1)
_PATIENCE: Final = 60.0

_OLD_ANSWERS: Final = """
SELECT tenant_id, caller, key, key_id, answer FROM idempotency_keys
WHERE answer IS NOT NULL AND key_id = ANY ($1) FOR UPDATE
"""
_NEW_ANSWER: Final = """
UPDATE idempotency_keys SET key_id = $4, answer = $5 WHERE tenant_id = $1 AND caller = $2 AND key = $3
"""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """One key: whether it is the first of the ring, whether it is in it at all, and what needs it, by kind."""

    key_id: str
    first: bool
    present: bool
    uses: Mapping[str, int]


async def key_uses(db: Database, ring: KeyRing, now: datetime) -> Sequence[KeyUse]:
    """The keys of the ring, first one first, and then those that are needed but not there. Raises `Unavailable`."""
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    async with db.every_tenant() as connection:
        for (table,) in await connection.fetch(_TABLES):
            sql = _NAMED.format(table=table, still=_STILL.get(table, "$1::timestamptz IS NOT NULL"))
            for key_id, count in await connection.fetch(sql, now, timeout=_PATIENCE):
                found[key_id][_KINDS.get(table, table.replace("_", " "))] = count
        for key_id, since, until in await connection.fetch(_TIMES, timeout=_PATIENCE):
            if key_id == ring.current.id:
                continue
            for kind, sql in _CARRIED.items():
                if count := await connection.fetchval(sql, now, since - _SEALED_WITHIN, until, timeout=_PATIENCE):
                    found[key_id][kind] = count
    present = [keys.id for keys in ring.by_thumbprint.values()]
    missing = sorted(found.keys() - set(present))
    return [
        KeyUse(key_id, key_id == ring.current.id, key_id in present, found.get(key_id, {}))
        for key_id in (*present, *missing)
    ]


async def reencrypt(db: Database, ring: KeyRing) -> int:
    """Encrypts under the first key whatever is encrypted under another one of the ring; answers how many values.

    Raises `Unavailable`.
    """
    old = [keys.id for keys in ring.by_thumbprint.values() if keys.id != ring.current.id]
    async with db.every_tenant() as connection:
        return sum([await step(connection, ring, old) for step in _STEPS])


async def _reencrypt_answers(connection: asyncpg.Connection, ring: KeyRing, old: Sequence[str]) -> int:
    rows = await connection.fetch(_OLD_ANSWERS, old)
    for row in rows:
        context = context_of(row["caller"], row["key"])
        plain = decrypt(ring, row["key_id"], context, row["answer"])
        key_id, stored = encrypt(ring, context, plain)
        await connection.execute(_NEW_ANSWER, row["tenant_id"], row["caller"], row["key"], key_id, stored)
    return len(rows)


# Whoever encrypts something adds how it is encrypted anew.
_STEPS: Final[Sequence[Callable[[asyncpg.Connection, KeyRing, Sequence[str]], Awaitable[int]]]] = (
    _reencrypt_answers,
    reencrypt_apps,
    reencrypt_backup_codes,
)
