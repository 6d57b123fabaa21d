"""Forms as browsers send them, decoded strictly: urlencoded, or with a file (RFC 7578). Whether one may be read at all
is for `app.web.browser` to say.
"""

from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import parse_qsl

from litestar.datastructures import UploadFile

from app.errors import FieldError, InvalidRequest
from app.web.problems import UnsupportedMediaType
from app.web.services import AnyRequest

_URLENCODED: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_MOST_FIELDS: Final = 1000
_LONGEST_NAME: Final = 80


class Form(dict[str, str]):
    """The fields of a form by name. `many` has those that may be there more than once, each as all its values; `file`
    what is in the file that was chosen, nothing where none was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.many: dict[str, list[str]] = {}
        self.file = b""

    def only(self, allowed: Collection[str]) -> None:
        """Raises `InvalidRequest` for the first field that is not on the list."""
        for name in (*self, *self.many):
            if name not in allowed:
                raise InvalidRequest(FieldError(f"/{name[:_LONGEST_NAME]}", "There is no such field."))


async def read_form(request: AnyRequest, repeatable: Collection[str] = (), file: str | None = None) -> Form:
    """The form in the body, with a file only where the form has a field for one, `file`.

    Raises `UnsupportedMediaType`, and `InvalidRequest` for broken encoding, a NUL, a repeated field.
    """
    media_type = request.content_type[0]
    accepted = (_URLENCODED, _MULTIPART) if file else (_URLENCODED,)
    if media_type not in accepted:
        raise UnsupportedMediaType(*accepted, detail="Send the body as a form.")
    form = Form()
    pairs = await _parts(request, form) if media_type == _MULTIPART else _pairs(await request.body())
    for name, value in pairs:
        pointer = f"/{name[:_LONGEST_NAME]}"
        if "\0" in name + value:
            raise InvalidRequest(FieldError(pointer, "A NUL character is not allowed."))
        if name in repeatable:
            form.many.setdefault(name, []).append(value)
        elif name in form:
            raise InvalidRequest(FieldError(pointer, "This field is there twice."))
        else:
            form[name] = value
    return form


def _pairs(body: bytes) -> Sequence[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise InvalidRequest(FieldError("", "The body is not a form.")) from None


async def _parts(request: AnyRequest, form: Form) -> Sequence[tuple[str, str]]:
    """The fields; a file goes into the form, and its name counts for nothing."""
    pairs = []
    for name, value in (await request.form()).multi_items():
        if isinstance(value, UploadFile):
            form.file = await value.read()
            await value.close()
            pairs.append((name, ""))
        else:
            pairs.append((name, str(value)))
    return pairs
