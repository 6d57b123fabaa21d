"""Query parameters: the ones a route declares, each once. A typo must never act: `?dryrun=true` is no dry run.

Held for every route by one guard of the application, so a new route is strict by itself:

- Calls of the APIs (what the OpenAPI document has), pages of the admin portal, and whatever may change something refuse
  unknown names, names that are there twice, and values that would have to be read as something else.
- Other pages and files are only looked at, and people reach them by links that mail programs and scanners add to: what
  they don't declare is not there for them.
- Providers' callbacks take the query as it comes; it may be signed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from litestar.connection import ASGIConnection
from litestar.enums import ParamType
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import ParameterKwarg
from litestar.typing import FieldDefinition

from app.errors import FieldError, InvalidRequest

# Of a route that reads its query by itself, whatever is in it.
ANY_QUERY: Final = {"query": None}

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# What every page understands: its language, what the step before did, and a second look at a link from elsewhere.
_OF_PAGES: Final = frozenset({"lang", "done", "again"})
# Of no meaning to us: how newsletters, mail programs and advertisers mark the links that people follow.
_MARKS: Final = ("utm_", "mc_", "pk_", "mtm_", "hsa_", "_hs", "oly_")
_CLICKS: Final = frozenset(
    {"fbclid", "gclid", "dclid", "wbraid", "gbraid", "msclkid", "twclid", "ttclid", "yclid", "mkt_tok", "vero_id"}
)
_LONGEST_NAME: Final = 80


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a value looks like, in words too, and whether there may be several."""

    fits: Callable[[str], object]
    words: str = ""
    several: bool = False


def _is_time(value: str) -> bool:
    try:
        msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return False
    return True


_TEXT: Final = _Kind(lambda _: True)
# By itself Litestar takes 5.0 for a whole number, and a number for a time.
_KINDS: Final[Mapping[type, _Kind]] = {
    bool: _Kind({"true", "false"}.__contains__, "true or false"),
    int: _Kind(re.compile("-?[0-9]{1,18}").fullmatch, "a whole number"),
    datetime: _Kind(_is_time, "a time such as 2026-03-14T09:26:53Z"),
}


def reads(*names: str, repeatable: str | None = None) -> dict[str, Any]:
    """As part of the `opt` of a page that reads these parameters by itself, where wrong values count for nothing;
    `repeatable` may be there several times.
    """
    return {"query": names, "repeatable": repeatable}


def known_query(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """The guard. Raises `InvalidRequest` naming the first parameter that is unknown, doubled or unreadable."""
    raw: bytes = connection.scope["query_string"]
    if not raw or handler.opt.get("query", ()) is None:
        return
    page = not (isinstance(handler, HTTPRouteHandler) and handler.resolve_include_in_schema())
    if page and "least_role" not in handler.opt and connection.scope.get("method") in _SAFE:
        return
    own = parameters_of(handler)
    seen = set()
    for name, value in _pairs(raw):
        if name not in own and not (page and (name in _OF_PAGES or name in _CLICKS or name.startswith(_MARKS))):
            known = f"Known are {', '.join(sorted(own))}." if own else "This call takes none."
            raise _fault(name, f"There is no query parameter {_shown(name)} here. {known}")
        kind = own.get(name, _TEXT)
        if name in seen and not kind.several:
            raise _fault(name, f"The query parameter {_shown(name)} is there twice.")
        if "\0" in value:
            raise _fault(name, "A NUL character is not allowed.")
        if not kind.fits(value):
            raise _fault(name, f"This must be {kind.words}.")
        seen.add(name)


def parameters_of(handler: BaseRouteHandler) -> Mapping[str, _Kind]:
    """The query parameters that a route declares, by name."""
    own = dict.fromkeys(handler.opt.get("query") or (), _TEXT)
    if repeatable := handler.opt.get("repeatable"):
        own[repeatable] = replace(_TEXT, several=True)
    for name, field in handler.parsed_fn_signature.parameters.items():
        definition = field.kwarg_definition
        if isinstance(definition, ParameterKwarg) and definition.param_type is ParamType.QUERY:
            own[definition.name or name] = _kind_of(field)
    return own


def _kind_of(field: FieldDefinition) -> _Kind:
    alternatives = field.inner_types if field.is_union else (field,)
    kind = next((_KINDS[one.annotation] for one in alternatives if one.annotation in _KINDS), _TEXT)
    return replace(kind, several=field.is_non_string_sequence)


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise InvalidRequest(FieldError("", "The query is not percent-encoded UTF-8.")) from None


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:_LONGEST_NAME]) or "without a name"


def _fault(name: str, detail: str) -> InvalidRequest:
    pointer = _shown(name).replace("~", "~0").replace("/", "~1")
    return InvalidRequest(FieldError(f"/{pointer}", detail))
