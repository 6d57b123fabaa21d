"""From the text of an environment variable to a typed value.

Each parser takes non-empty text and raises ValueError with the end of a sentence that starts with the name of
the setting: "must be a whole number from 1 to 65535". The caller adds what was given, unless it is a secret.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias, TypeVar
from urllib.parse import SplitResult, urlsplit

from email_validator import EmailNotValidError, validate_email

from app.cleaning import plain

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# Targets of a redirect that would run or read something here instead of going somewhere.
_UNSAFE_SCHEMES: Final = frozenset({"javascript", "data", "vbscript", "file", "about", "blob"})
_DOMAIN: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_REGION: Final = re.compile(r"[A-Z]{2}")
_PROVIDER: Final = re.compile(r"[a-z][a-z0-9_]*")


def text(value: str) -> str:
    """Any text on one line."""
    if not value.isprintable():
        raise ValueError("must be one line of printable characters")
    return value


def boolean(value: str) -> bool:
    """true/false, 1/0, yes/no, on/off, in any case."""
    folded = value.lower()
    if folded in _TRUE:
        return True
    if folded in _FALSE:
        return False
    raise ValueError("must be true or false")


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number from `low` to `high`, both included."""

    def parse(value: str) -> int:
        # int() alone would also take "1_000", " 7 " and digits of other scripts.
        if not re.fullmatch(r"-?[0-9]{1,15}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def one_of(*choices: T) -> Callable[[str], T]:
    """One of the names or numbers given, compared without case."""
    by_name = {str(choice).lower(): choice for choice in choices}

    def parse(value: str) -> T:
        if value.lower() not in by_name:
            raise ValueError(f"must be one of {', '.join(map(str, choices))}")
        return by_name[value.lower()]

    return parse


def listed(item: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Values separated by commas; spaces around them and empty ones don't count, nor do repetitions."""

    def parse(value: str) -> tuple[T, ...]:
        parts = (part.strip() for part in value.split(","))
        return tuple(dict.fromkeys(item(part) for part in parts if part))

    return parse


def directory(value: str) -> Path:
    """A path; `~` is the home directory."""
    return Path(value).expanduser()


def url(schemes: Mapping[str, str]) -> Callable[[str], str]:
    """A URL with one of these schemes; the scheme is replaced by the one it maps to."""

    def parse(value: str) -> str:
        scheme, separator, rest = value.partition("://")
        if not separator or not rest or scheme not in schemes:
            raise ValueError(f"must be a URL that starts with {' or '.join(f'{s}://' for s in schemes)}")
        return f"{schemes[scheme]}://{rest}"

    return parse


def origin(value: str) -> str:
    """`https://host[:port]` and nothing behind it, lower-cased, without a final slash."""
    parts = _web_parts(value.rstrip("/"))
    if parts is None or any((parts.path, parts.query, parts.fragment, "@" in parts.netloc)):
        raise ValueError("must be an origin such as https://app.example.com, without a path (and never *)")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def web_url(value: str) -> str:
    """An http(s) URL to append paths to: without a final slash, query or fragment."""
    parts = _web_parts(value)
    if parts is None or parts.query or parts.fragment:
        raise ValueError("must be a URL such as https://api.example.com")
    return value.rstrip("/")


def domain(value: str) -> str:
    """A name in the DNS, lower-cased, without a final dot."""
    name = value.lower().rstrip(".")
    if not _DOMAIN.fullmatch(name):
        raise ValueError("must be a name in the DNS such as example.com")
    return name


def return_url(value: str) -> str:
    """An absolute http(s) URL, or the URL of a mobile app with a scheme of its own."""
    scheme, separator, rest = value.partition("://")
    app = re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) and scheme not in _UNSAFE_SCHEMES | {"http", "https"}
    if not (separator and rest) or not (app or _web_parts(value)):
        raise ValueError("must be an absolute URL such as https://app.example.com/signed-in or myapp://signed-in")
    return value


def is_local(web_url: str) -> bool:
    """Does this URL lead to the machine itself? Only there may a browser talk plain http."""
    return urlsplit(web_url).hostname in _LOCAL_HOSTS


def network(value: str) -> Network:
    """An address or a network in CIDR notation."""
    try:
        return ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.0.0.0/8") from None


def region(value: str) -> str:
    """An ISO 3166-1 alpha-2 country code, upper-cased."""
    if not _REGION.fullmatch(value.upper()):
        raise ValueError("must be two-letter country codes such as GB")
    return value.upper()


def provider(value: str) -> str:
    """The name of a delivery provider; whether it is installed is for the delivery layer to say."""
    if not _PROVIDER.fullmatch(value.lower()):
        raise ValueError("must be names of providers such as twilio")
    return value.lower()


def email(value: str) -> str:
    """One address, checked for its form only. The reserved `.test` domain (RFC 6761) is allowed."""
    try:
        return validate_email(plain(value).strip(), check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError:
        raise ValueError("must be one email address such as codes@example.com") from None


def _web_parts(value: str) -> SplitResult | None:
    """The parts of an http(s) URL that names a host; None for anything else."""
    try:
        parts = urlsplit(value)
        _ = parts.port  # refused on access only: a port out of range
    except ValueError:
        return None
    return parts if parts.scheme in {"http", "https"} and parts.hostname else None
