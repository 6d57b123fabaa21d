"""Entity tags and what is asked by them (RFC 9110, sections 8.8.3 and 13): ours are versions, `"3"`.

Proxies that compress make ours weak (`W/"3"`) or longer (`"3-gzip"`); they still name the version that was read.
"""

import re
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from app.errors import FieldError, InvalidRequest

_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e]*"'
# Elements of a list may be empty (section 5.6.1.2). So many and no more: a header of 32 KiB would take its time.
_LIST: Final = re.compile(rf"(?:,[ \t]*){{0,9}}{_TAG}(?:[ \t]*,(?:[ \t]*{_TAG})?){{0,99}}")
_OPAQUE: Final = re.compile(r'"([^"]*)"')
_VERSION: Final = re.compile(r"([0-9]{1,9})(?:[-;]{1,2}(?:gzip|br|zstd|deflate))?")
# Nothing is ever at it, so it matches nothing.
_NO_VERSION: Final = -1


def etag(version: int) -> str:
    """The entity tag of a version."""
    return f'"{version}"'


async def expected_version(if_match: str | None, current: Callable[[], Awaitable[int]]) -> int | None:
    """The version that an If-Match asks for; None for `*` and for no header.

    Of a list, the one that is `current`. Raises `InvalidRequest` for what is no list of entity tags. A tag that isn't
    ours is at no version.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    versions = _versions(if_match.strip())
    if len(versions) > 1:
        found = await current()
        return found if found in versions else _NO_VERSION
    return next(iter(versions), _NO_VERSION)


def is_known(tag: str, if_none_match: str) -> bool:
    """Whether a client has this already: by the weak comparison, as RFC 9110 has it. A broken header says nothing."""
    asked = if_none_match.strip()
    return asked == "*" or (_LIST.fullmatch(asked) is not None and tag.removeprefix("W/").strip('"') in _opaque(asked))


def _versions(asked: str) -> Collection[int]:
    if not _LIST.fullmatch(asked):
        raise InvalidRequest(FieldError("", 'If-Match has entity tags, such as "3", or *.'))
    return {int(found[1]) for text in _opaque(asked) if (found := _VERSION.fullmatch(text))}


def _opaque(asked: str) -> list[str]:
    return _OPAQUE.findall(asked)
