"""Request bodies: JSON, decoded once, strictly, straight into the handler's type."""

import codecs
import json
import re
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from litestar import Request

from app.errors import FieldError, InvalidRequest
from app.web.problems import UnsupportedMediaType, in_json_words

BODY_LIMIT: Final = 16 * 1024

_JSON: Final = "application/json"
# JSON has no charset (RFC 8259, section 11), but clients like to name the one it is in.
_UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_OTHER_BOMS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FORM: Final = "application/x-www-form-urlencoded"
_PATH: Final = re.compile(r"(?s)(?P<what>.*) - at `\$(?P<path>.*)`")
_STEP: Final = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>[^\]]*)\]")
_FIELD: Final = re.compile(r"(?s)Object (?P<fault>contains unknown|missing required) field `(?P<name>.*)`")
_LONGEST_NAME: Final = 80


class StrictRequest(Request[Any, Any, Any]):
    """Litestar's request, with `data` of the handlers decoded by msgspec in one pass.

    Litestar itself decodes in two passes and converts leniently ("true" would be a boolean); here a code is a JSON
    string or it is refused.
    """

    async def json(self) -> Any:
        """The body as the type of the handler's `data`. Raises `InvalidRequest`, pointing at the field."""
        field = self.route_handler.parsed_data_field
        kind = field.annotation if field is not None else Any
        media_type, parameters = self.content_type
        body = await self.body()
        if not body and field is not None and field.is_optional:
            return None
        takes_form = "form" in self.route_handler.opt
        if media_type == _FORM and takes_form:
            return _from_form(body, kind)
        if media_type != _JSON:
            raise UnsupportedMediaType(_JSON, *([_FORM] if takes_form else []))
        if parameters.get("charset", "utf-8").lower() not in _UTF_8:
            raise UnsupportedMediaType(detail="JSON is in UTF-8; leave the charset out.")
        return decode(body, kind)


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decode(body: bytes, kind: Any) -> Any:
    """JSON as `kind`. Raises `InvalidRequest` with a JSON Pointer; broken JSON points at the whole document.

    A byte order mark may stand in front. A member that is there twice is refused: which of the two counts is anybody's
    guess, and another reader's may differ from ours.
    """
    if body.startswith(_OTHER_BOMS) or b"\0" in body:
        raise InvalidRequest(FieldError("", "The body is not in UTF-8."))
    try:
        text = body.removeprefix(codecs.BOM_UTF8)
        value = _decoder(kind).decode(text)
        # msgspec lets them pass, the last one counting. Numbers are none of this one's business.
        json.loads(text, object_pairs_hook=_unique, parse_int=len, parse_float=len)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_fault(str(error), kind)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(FieldError("", "The body is not JSON.")) from None
    return value


def _unique(pairs: list[tuple[str, object]]) -> None:
    """Raises `InvalidRequest` for an object with two members of one name."""
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidRequest(FieldError(_pointer([name[:_LONGEST_NAME]]), "This member is there twice."))
        seen.add(name)


def _from_form(body: bytes, kind: Any) -> Any:
    """A form's fields as `kind`; fields nobody knows are ignored, as OAuth has it (RFC 6749, section 3.2)."""
    try:
        given = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=20))
    except ValueError:
        raise InvalidRequest(FieldError("", "The body is not a form.")) from None
    known = {field.name: given[field.name] for field in msgspec.structs.fields(kind) if field.name in given}
    try:
        # A form has nothing but strings.
        return msgspec.convert(known, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_fault(str(error), kind)) from None


def _fault(message: str, kind: Any) -> FieldError:
    """What msgspec says of a `kind`, as a pointer (RFC 6901) and a detail."""
    located = _PATH.fullmatch(message)
    what, path = (located["what"], located["path"]) if located else (message, "")
    steps = [step["name"] or step["index"] for step in _STEP.finditer(path)]
    field = _FIELD.fullmatch(what)
    if field is None:
        words = _words(msgspec.inspect.type_info(kind), steps) if what.startswith("Invalid enum value") else []
        detail = f"This must be one of {', '.join(words)}." if words else in_json_words(what)
        return FieldError(_pointer(steps), detail)
    known = field["fault"] == "missing required"
    detail = "This field is required." if known else "There is no such field."
    return FieldError(_pointer([*steps, field["name"][:_LONGEST_NAME]]), detail)


def _words(kind: msgspec.inspect.Type, steps: list[str]) -> list[str]:
    """The words that may stand at a place in a document of this kind: msgspec names only the wrong one."""
    match kind:
        case msgspec.inspect.Metadata(type=inner):
            return _words(inner, steps)
        case msgspec.inspect.UnionType(types=several):
            return [word for one in several for word in _words(one, steps)]
        case msgspec.inspect.StructType(fields=fields) if steps:
            return [word for f in fields if f.encode_name == steps[0] for word in _words(f.type, steps[1:])]
        case msgspec.inspect.ListType(item_type=item) if steps:
            return _words(item, steps[1:])
        case msgspec.inspect.LiteralType(values=values) if not steps:
            return [str(value) for value in values]
        case _:
            return []


def _pointer(steps: list[str]) -> str:
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
