"""What a tenant's data may be. Pure: values in, normalised values out, or InvalidRequest that points at the field."""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Final, Literal, TypeAlias, TypedDict, cast
from zoneinfo import available_timezones

import phonenumbers
from babel.core import Locale, UnknownLocaleError, get_global

from app import cleaning
from app.errors import ChannelUnavailable, ContactMissing, FieldError, InvalidRequest
from app.tenants.contacts import normalise_email, normalise_phone
from app.tenants.policy import (
    POLICY_KEYS,
    Policy,
    effective_policy,
    merge_policy,
    operator_policy,
    parse_policy,
    parse_policy_assignments,
    pointer,
)

__all__ = [
    "CHANNELS",
    "POLICY_KEYS",
    "SLUG",
    "STATUSES",
    "Channel",
    "Policy",
    "Status",
    "TenantFields",
    "check_delivery",
    "check_name",
    "check_slug",
    "check_tenant",
    "contact_for",
    "effective_policy",
    "merge_policy",
    "normalise_email",
    "normalise_locale",
    "normalise_phone",
    "normalise_timezone",
    "operator_policy",
    "parse_policy",
    "parse_policy_assignments",
    "region_of",
]

Channel: TypeAlias = Literal["email", "sms", "whatsapp", "push"]
Status: TypeAlias = Literal["active", "suspended"]
CHANNELS: Final[tuple[Channel, ...]] = ("email", "sms", "whatsapp", "push")
STATUSES: Final[tuple[Status, ...]] = ("active", "suspended")
# A DNS label in lower case. The reserved system tenant's slug, `_system`, can't be addressed: it doesn't match.
SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

_NAME_LENGTH: Final = 120
_NAME_LENGTHS: Final = f"A name has 1 to {_NAME_LENGTH} characters."
# Looking at each of a million would take long.
_MOST_PASTED: Final = 1000
_LOCALE_LENGTH: Final = 35  # BCP 47, section 4.4.1
# Younger than the tables of Babel.
_LATER_ZONES: Final = {"America/Coyhaique": "CL"}
# Control, surrogate, line and paragraph separator.
_FORBIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


class TenantFields(TypedDict, total=False):
    """The fields of a tenant that can be set, in their normal form. None clears a contact."""

    slug: str
    name: str
    status: Status
    email: str | None
    phone_number: str | None
    otp_delivery_method: Channel
    fallback_methods: list[Channel]
    locale: str
    timezone: str
    policy: dict[str, object]


def check_slug(value: str, pointer: str = "/slug") -> str:
    """The slug itself. It is refused or taken, never folded: two spellings must not lead to one tenant."""
    if not SLUG.fullmatch(value):
        raise _fault(pointer, "A slug is 1 to 63 lower-case letters, digits and hyphens, no hyphen at an end.")
    return value


def check_name(value: str, pointer: str = "/name") -> str:
    """The name as `cleaning` has it: composed, without the spaces around it, 1 to 120 characters of which one shows.

    Line breaks and other control characters are refused, not removed: the name goes into mail headers.
    """
    if len(value) > _MOST_PASTED:
        raise _fault(pointer, _NAME_LENGTHS)
    if any(unicodedata.category(c) in _FORBIDDEN_CATEGORIES for c in value):
        raise _fault(pointer, "A name has no line breaks and no control characters.")
    name = cleaning.name(value)
    if not 1 <= len(name) <= _NAME_LENGTH:
        raise _fault(pointer, _NAME_LENGTHS)
    if not cleaning.is_seen(name):
        raise _fault(pointer, "A name has characters that can be seen.")
    return name


def normalise_locale(value: str, pointer: str = "/locale") -> str:
    """A BCP 47 tag that Babel knows, such as `de` or `de-CH`."""
    try:
        if len(value) > _LOCALE_LENGTH:
            raise ValueError(value)
        return _tag(value.replace("_", "-"))
    except (ValueError, UnknownLocaleError):
        raise _fault(pointer, "This language is not known; write it as de or de-CH.") from None


def normalise_timezone(value: str, pointer: str = "/timezone") -> str:
    """A zone of the IANA database, such as `Europe/Zurich`."""
    if value not in _timezones():
        raise _fault(pointer, "This time zone is not known; write it as Europe/Zurich.")
    return value


@lru_cache(maxsize=1024)
def region_of(locale: str, timezone: str | None) -> str | None:
    """The country (ISO 3166-1) a tenant dials from: its locale's, else its time zone's; None if neither tells."""
    try:
        territory = Locale.parse(locale, sep="-").territory
    except (ValueError, UnknownLocaleError):
        territory = None
    zone = get_global("zone_aliases").get(timezone or "", timezone or "")
    candidates = (territory, _LATER_ZONES.get(zone) or get_global("zone_territories").get(zone))
    # A territory can also be a part of the world, as in es-419.
    return next((region for region in candidates if region in phonenumbers.SUPPORTED_REGIONS), None)


def contact_for(channel: str, email: str | None, phone: str | None) -> str | None:
    """The contact a channel sends to. Push has none here: it goes to devices, not to an address."""
    return {"email": email, "sms": phone, "whatsapp": phone}.get(channel)


def check_delivery(
    method: str,
    fallbacks: Sequence[str],
    email: str | None,
    phone: str | None,
    available_channels: Collection[str],
) -> None:
    """The preferred method needs its contact and a provider that is switched on.

    Fallbacks may lack either: routing passes over them until they have both. Raises ContactMissing or
    ChannelUnavailable, with the pointer to the field to change in `extra`; InvalidRequest if the preferred
    method is among the fallbacks.
    """
    if method in fallbacks:
        place = pointer("fallback_methods", str(fallbacks.index(method)))
        raise _fault(place, f"{method} is the preferred method already.")
    if method not in available_channels:
        raise ChannelUnavailable(f"Delivery by {method} is switched off.", pointer="/otp_delivery_method")
    if method != "push" and contact_for(method, email, phone) is None:
        field = "email" if method == "email" else "phone_number"
        raise ContactMissing(f"Delivery by {method} needs {field}.", pointer=f"/{field}")


def check_tenant(fields: Mapping[str, object], *, create: bool, region: str | None = None) -> TenantFields:
    """Check and normalise the fields of a new tenant, or those a change names.

    `region` is the stored tenant's, for phone numbers in national notation; a locale or time zone among the
    fields overrules it. None or "" clears a contact; a policy key with None asks to clear that key (see
    `merge_policy`). Raises InvalidRequest with every fault: wrong type or form, unknown field, and on
    creation a slug or name that is missing.
    """
    faults: list[FieldError] = []
    values: dict[str, object] = {}
    if create:
        faults += [FieldError(f"/{name}", f"{name} is required.") for name in ("slug", "name") if name not in fields]
    # The phone number last: how it is read depends on locale and time zone.
    for name in sorted(fields, key=lambda name: name == "phone_number"):
        try:
            if name == "phone_number":
                own = region_of(str(values.get("locale", "")), cast("str | None", values.get("timezone")))
                values[name] = _contact(partial(normalise_phone, region=own or region), "/phone_number", fields[name])
            elif name in _FIELDS:
                values[name] = _FIELDS[name](fields[name])
            else:
                faults.append(FieldError(pointer(name), "There is no such field, or it can't be set."))
        except InvalidRequest as error:
            faults += error.errors
    if faults:
        raise InvalidRequest(*faults)
    return cast("TenantFields", values)


def _string(check: Callable[[str, str], object], pointer: str, value: object) -> object:
    if not isinstance(value, str):
        raise _fault(pointer, "This must be a string.")
    return check(value, pointer)


def _contact(check: Callable[[str, str], object], pointer: str, value: object) -> object:
    return None if value is None or value == "" else _string(check, pointer, value)


def _choice(choices: Sequence[str], pointer: str, value: object) -> object:
    if value not in choices:
        raise _fault(pointer, f"This must be one of {', '.join(choices)}.")
    return value


def _fallbacks(value: object) -> object:
    if not isinstance(value, list):
        raise _fault("/fallback_methods", "This must be a list.")
    for index, method in enumerate(value):
        _choice(CHANNELS, place := pointer("fallback_methods", str(index)), method)
        if method in value[:index]:
            raise _fault(place, f"{method} is listed twice.")
    return value


def _policy(value: object) -> object:
    if not isinstance(value, Mapping):
        raise _fault("/policy", "This must be an object.")
    return parse_policy(value)


_FIELDS: Final[Mapping[str, Callable[[object], object]]] = {
    "slug": partial(_string, check_slug, "/slug"),
    "name": partial(_string, check_name, "/name"),
    "status": partial(_choice, STATUSES, "/status"),
    "email": partial(_contact, normalise_email, "/email"),
    "otp_delivery_method": partial(_choice, CHANNELS, "/otp_delivery_method"),
    "fallback_methods": _fallbacks,
    "locale": partial(_string, normalise_locale, "/locale"),
    "timezone": partial(_string, normalise_timezone, "/timezone"),
    "policy": _policy,
}


@lru_cache(maxsize=1024)
def _tag(value: str) -> str:
    """As Babel writes it. Raises what Babel does. Babel looks it up on disk, and a file names the same few."""
    return str(Locale.parse(value, sep="-")).replace("_", "-")


@cache
def _timezones() -> frozenset[str]:
    # Reading the directory takes 20 ms; the zones don't change while a process lives.
    return frozenset(available_timezones())


def _fault(pointer: str, detail: str) -> InvalidRequest:
    return InvalidRequest(FieldError(pointer, detail))
