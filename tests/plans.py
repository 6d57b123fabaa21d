"""How PostgreSQL runs a statement: what a list reads, seen from its plan."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's node and all below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


async def plan_of(connection: asyncpg.Connection, sql: str, args: Sequence[object]) -> list[dict[str, Any]]:
    """How the connection's role runs a statement, node by node, with what it read."""
    found = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *args)
    return list(_nodes((found if isinstance(found, list) else json.loads(found))[0]["Plan"]))
