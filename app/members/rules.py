"""What a member's data may be. Pure: values in, normalised values out, or InvalidRequest that points at the field."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal, TypeAlias

from app.errors import ContactMissing, FieldError, InvalidRequest
from app.tenants.rules import check_name, normalise_email, normalise_locale, normalise_phone

MemberStatus: TypeAlias = Literal["active", "suspended", "pending"]
STATUSES: Final[tuple[MemberStatus, ...]] = ("active", "suspended", "pending")
METHODS: Final = ("email", "sms", "whatsapp")
_UNREACHABLE: Final = "A member has an email address or a phone number."


def check_member(fields: Mapping[str, object], *, create: bool, region: str | None = None) -> dict[str, Any]:
    """Checks and normalises the fields of a new member, or those a change names.

    `region` is the tenant's country, for phone numbers in national notation. None or "" clears a contact and the
    preferred method. Raises InvalidRequest with every fault.
    """
    faults: list[FieldError] = []
    values: dict[str, Any] = {}
    if create and "name" not in fields:
        faults.append(FieldError("/name", "name is required."))
    for name, value in fields.items():
        check = _CHECKS.get(name)
        try:
            if name == "phone_number":
                values[name] = _optional(partial(normalise_phone, region=region), "/phone_number", value)
            elif check is not None:
                values[name] = check(value)
            else:
                faults.append(FieldError(f"/{name}", "There is no such field, or it can't be set."))
        except InvalidRequest as error:
            faults += error.errors
    if create and not faults and values.get("email") is None and values.get("phone_number") is None:
        faults.append(FieldError("/email", _UNREACHABLE))
    if faults:
        raise InvalidRequest(*faults)
    return values


def check_whole(email: str | None, phone: str | None, preferred_method: str | None) -> None:
    """A member can be reached, and the preferred way has its contact. Raises `ContactMissing`, with the pointer to the
    field to fill in in `extra`.
    """
    if preferred_method is not None and (email if preferred_method == "email" else phone) is None:
        needed = "email" if preferred_method == "email" else "phone_number"
        raise ContactMissing(f"Delivery by {preferred_method} needs {needed}.", pointer=f"/{needed}")
    if email is None and phone is None:
        raise ContactMissing(_UNREACHABLE, pointer="/email")


def _string(check: Callable[[str, str], object], pointer: str, value: object) -> object:
    if not isinstance(value, str):
        raise InvalidRequest(FieldError(pointer, "This must be a string."))
    return check(value, pointer)


def _optional(check: Callable[[str, str], object], pointer: str, value: object) -> object:
    return None if value is None or value == "" else _string(check, pointer, value)


def _choice(choices: tuple[str, ...], pointer: str, value: object) -> object:
    if value not in choices:
        raise InvalidRequest(FieldError(pointer, f"This must be one of {', '.join(choices)}."))
    return value


def _method(value: object) -> object:
    return None if value is None or value == "" else _choice(METHODS, "/preferred_method", value)


def _switch(pointer: str, value: object) -> object:
    if not isinstance(value, bool):
        raise InvalidRequest(FieldError(pointer, "This must be true or false."))
    return value


_CHECKS: Final[Mapping[str, Callable[[object], object]]] = {
    "name": partial(_string, check_name, "/name"),
    "email": partial(_optional, normalise_email, "/email"),
    "preferred_method": _method,
    "locale": partial(_string, normalise_locale, "/locale"),
    "status": partial(_choice, STATUSES, "/status"),
    "codes_enabled": partial(_switch, "/codes_enabled"),
    "must_verify": partial(_switch, "/must_verify"),
}
SETTABLE: Final = ("name", "email", "phone_number", *(name for name in _CHECKS if name not in {"name", "email"}))
