"""Tenants' rows as the catalogue knows them: one made up for any table, all of a tenant's, and what became of them."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import asyncpg

from app.storage.db import Database

_NOW: Final = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)

# Every table with a tenant's rows, from the catalogue: a new one takes part without anybody's doing.
TENANT_TABLES: Final = """
SELECT c.relname, CASE c.relname WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END AS owner_column
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND (c.relname = 'tenants' OR EXISTS (
      SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped))
ORDER BY c.relname
"""
_COLUMNS: Final = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type FROM pg_attribute a
WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped
  AND ((a.attnotnull AND NOT a.atthasdef) OR a.attname = ANY ($2))
"""
# What a value of each type may look like; where a table is choosier, its column is named.
_BY_TYPE: Final[dict[str, Any]] = {
    "uuid": UUID(int=7),
    "text": "x",
    "bytea": b"x",
    "integer": 1,
    "smallint": 1,
    "boolean": False,
    "timestamp with time zone": _NOW,
    "timestamp with time zone[]": [_NOW],
    "text[]": ["x"],
    "inet": "192.0.2.1",
}
_BY_COLUMN: Final[dict[tuple[str, str], Any]] = {
    ("admins", "role"): "owner",
    ("api_keys", "role"): "owner",
    ("challenges", "code_length"): 6,
    ("half_sign_ins", "kind"): "api",
    ("half_sign_ins", "next"): "totp",
    ("outbox", "kind"): "code",
    ("sessions", "kind"): "api",
    ("sessions", "subject_kind"): "tenant",
}
# What strangers write by asking for codes and typing wrong ones: new rows here, and counts in the last three.
_EVIDENCE: Final = {"challenges", "outbox", "audit_events", "claims", "quota", "refusals", "activity", "door_refusals"}
_COUNTERS: Final = {"quota", "refusals", "activity", "door_refusals"}

Dump: TypeAlias = dict[str, set[str]]


async def values_for(connection: asyncpg.Connection, table: str, owner_column: str, owner: UUID) -> dict[str, Any]:
    """A row that passes the table's checks."""
    values: dict[str, Any] = {}
    for name, type_ in await connection.fetch(_COLUMNS, table, [owner_column]):
        values[name] = _BY_COLUMN.get((table, name), _BY_TYPE.get(type_))
        if name == "id" and type_ == "uuid":
            values[name] = uuid4()
    if table == "tenants":
        values["slug"] = f"t{owner.hex}"
    return {**values, owner_column: owner}


async def insert(connection: asyncpg.Connection, table: str, values: dict[str, Any]) -> None:
    """Writes a row."""
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    sql = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})"
    await connection.execute(sql, *values.values())


async def dump_of(db: Database, tenant: UUID) -> Dump:
    """All rows of a tenant, each as JSON, by table."""
    async with db.every_tenant() as connection:
        return {
            table: {
                row["as_text"]
                for row in await connection.fetch(
                    f"SELECT to_jsonb(t)::text AS as_text FROM {table} t WHERE {owner} = $1", tenant
                )
            }
            for table, owner in await connection.fetch(TENANT_TABLES)
        }


def changes(before: Dump, after: Dump) -> list[str]:
    """What became of a tenant's rows between two dumps, but for the evidence that anybody leaves."""
    found = []
    for table, rows in before.items():
        if table not in _COUNTERS:
            found += [f"{table}: changed or gone: {row}" for row in rows - after[table]]
        if table not in _EVIDENCE:
            found += [f"{table}: changed or new: {row}" for row in after[table] - rows]
    return found


def texts(dump: Dump) -> set[bytes]:
    """Everything in somebody's rows by which it could be known again: ids, names, addresses, hashes, pictures."""
    found: set[bytes] = set()
    for rows in dump.values():
        for row in rows:
            for text in _strings(json.loads(row)):
                if text.startswith("\\x"):
                    raw = bytes.fromhex(text[2:])
                    found |= {raw, raw.hex().encode()}
                elif not re.match(r"\d{4}-\d\d-\d\dT", text):
                    found |= {text.encode(), text.replace("-", "").encode()}
    return {text for text in found if len(text) >= 8}


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner)
