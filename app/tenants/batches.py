"""Rows of a file, read off the event loop: whoever sent it, the others are answered meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

# Some milliseconds of work, and some megabytes if each is as long as a row may be.
_ROWS: Final = 50


async def batches(rows: Iterable[T]) -> AsyncIterator[Sequence[T]]:
    """All rows, some at a time. Raises what reading them raises."""
    left = iter(rows)
    while batch := await asyncio.to_thread(lambda: list(islice(left, _ROWS))):
        yield batch


async def one_by_one(rows: Iterable[T]) -> AsyncIterator[T]:
    """All rows, one at a time."""
    async for batch in batches(rows):
        for row in batch:
            yield row
