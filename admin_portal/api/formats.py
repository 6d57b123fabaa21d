"""Answers that may also be a file: which form the caller wants, and how a file is streamed."""

from collections.abc import AsyncIterator
from typing import Annotated, Final, Literal, TypeAlias

from litestar.params import QueryParameter
from litestar.response import Stream

from app.sheets import BOM
from app.web.services import AnyRequest

Format: TypeAlias = Literal["json", "csv", "jsonl"]
FormatParameter: TypeAlias = Annotated[
    Format | None, QueryParameter(description="json, csv or jsonl; otherwise the Accept header says it.")
]

_MEDIA_TYPES: Final[dict[str, Format]] = {
    "application/json": "json",
    "text/csv": "csv",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
}
_CONTENT_TYPES: Final = {"csv": "text/csv", "jsonl": "application/jsonl"}


def wanted(request: AnyRequest, named: Format | None, default: Format) -> Format:
    """The form that was named, else the first in Accept that we have."""
    if named is not None:
        return named
    ranges = (part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(","))
    return next((_MEDIA_TYPES[media] for media in ranges if media in _MEDIA_TYPES), default)


async def download(chunks: AsyncIterator[bytes], form: Format, name: str) -> Stream:
    """A file of any length, sent as it is read; CSV with a byte order mark, for spreadsheets.

    What goes wrong before the first chunk is still a refusal.
    """
    first = await anext(chunks, b"")
    return Stream(
        _joined(BOM + first if form == "csv" else first, chunks),
        media_type=_CONTENT_TYPES[form],
        headers={"Content-Disposition": f'attachment; filename="{name}.{form}"'},
    )


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
