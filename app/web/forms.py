"""Forms as browsers send them, decoded strictly. Whether one may be read at all is for `app.web.browser` to say."""

from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qsl

from app.errors import FieldError, InvalidRequest
from app.web.problems import UnsupportedMediaType
from app.web.services import AnyRequest

_URLENCODED: Final = "application/x-www-form-urlencoded"
_MOST_FIELDS: Final = 1000
_LONGEST_NAME: Final = 80


class Form(dict[str, str]):
    """The fields of a form by name. `many` has those that may be there more than once, each as all its values."""

    def __init__(self) -> None:
        super().__init__()
        self.many: dict[str, list[str]] = {}

    def only(self, allowed: Collection[str]) -> None:
        """Raises `InvalidRequest` for the first field that is not on the list."""
        for name in (*self, *self.many):
            if name not in allowed:
                raise InvalidRequest(FieldError(f"/{name[:_LONGEST_NAME]}", "There is no such field."))


async def read_form(request: AnyRequest, repeatable: Collection[str] = ()) -> Form:
    """The form in the body.

    Raises `InvalidRequest` for another media type, broken encoding, a NUL, a repeated field.
    """
    if request.content_type[0] != _URLENCODED:
        raise UnsupportedMediaType(detail="Send the body as a form.")
    body = await request.body()
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise InvalidRequest(FieldError("", "The body is not a form.")) from None
    form = Form()
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
