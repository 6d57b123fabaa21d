"""From the text of an environment variable to a typed value.

Each parser takes non-empty text and raises ValueError with the end of a sentence that starts with the name of
the setting: "must be a whole number from 1 to 65535". The caller adds what was given, unless it is a secret.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias, TypeVar
from urllib.parse import urlsplit, urlunsplit

from email_validator import EmailNotValidError, validate_email

from app.cleaning import plain
from app.settings import hosts

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# Targets of a redirect that would run or read something here instead of going somewhere.
_UNSAFE_SCHEMES: Final = frozenset({"javascript", "data", "vbscript", "file", "about", "blob"})
_DOMAIN: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
# Every country and territory that has telephone numbers of its own, Ascension, Kosovo and Tristan da Cunha among them.
_REGION_CODES: Final = (
    "AC AD AE AF AG AI AL AM AO AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BW BY BZ CA CC "
    "CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB "
    "GD GE GF GG GH GI GL GM GN GP GQ GR GT GU GW GY HK HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH "
    "KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV "
    "MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PR PS PT PW PY QA RE RO RS RU RW SA SB "
    "SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TA TC TD TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG US "
    "UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW"
)
_REGIONS: Final = frozenset(_REGION_CODES.split())
_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
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
        scheme = scheme.lower()
        if not separator or not rest or scheme not in schemes or not _has_sane_port(value):
            raise ValueError(f"must be a URL that starts with {' or '.join(f'{s}://' for s in schemes)}")
        return f"{schemes[scheme]}://{rest}"

    return parse


def _has_sane_port(value: str) -> bool:
    """Several hosts are the driver's business."""
    try:
        return "," in value or urlsplit(value).port != 0
    except ValueError:
        return False


def origin(value: str) -> str:
    """`https://host[:port]` and nothing behind it, as browsers write it: lower-case, punycode, no usual port."""
    try:
        return hosts.origin_of(value)
    except ValueError:
        raise ValueError(
            f"must be an origin such as https://app.example.com, without a path (and never *){hosts.suggestion(value)}"
        ) from None


def host_pattern(value: str) -> str:
    """A name in Host headers, as browsers write it, without a port; `*.example.com`: all below it, `*`: any."""
    if value == "*":
        return value
    below = value.startswith(("*.", "."))
    name = value.removeprefix("*.").removeprefix(".")
    try:
        if "://" in value or "/" in value or "@" in value:
            raise ValueError(value)
        host = hosts.canonical_host(_without_port(name))
    except ValueError:
        hint = hosts.suggestion(value).rpartition("://")[2]
        advice = f"; write {hint.rpartition(':')[0] if re.search(r':[0-9]+$', hint) else hint}" if hint else ""
        raise ValueError(
            f"must be names of hosts such as app.example.com or *.example.com, without a scheme or a path{advice}"
        ) from None
    return f"*.{host}" if below else host


def listen_host(value: str) -> str:
    """An address of this machine, or a name for one."""
    bare = value.removeprefix("[").removesuffix("]")
    if value == "*":
        raise ValueError("must be an address or a name; write 0.0.0.0 for every address of this machine")
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", bare) or _without_port(bare) != bare:
        raise ValueError("must be an address or a name alone, such as 127.0.0.1; the port goes to PORT")
    return bare


def server_host(value: str) -> str:
    """The name or address of another machine, and nothing else."""
    try:
        if _without_port(value) != value:
            raise ValueError(value)
        return hosts.canonical_host(value).strip("[]")
    except ValueError:
        raise ValueError(
            "must be the name or address of a server alone, such as mail.example.com, without a scheme; "
            "the port has a setting of its own"
        ) from None


def _without_port(value: str) -> str:
    return re.sub(r"^([^:]*|\[.*\]):[0-9]*$", r"\1", value)


def slug(value: str) -> str:
    """A tenant's slug, as `app.tenants.rules` has it."""
    if not _SLUG.fullmatch(value):
        raise ValueError("must be a slug: 1 to 63 of a-z, 0-9 and -, with no - at either end")
    return value


def web_url(value: str) -> str:
    """An http(s) URL to append paths to: without a final slash, query or fragment."""
    parts = hosts.split_web(value)
    if parts is None or parts.query or parts.fragment:
        raise ValueError("must be a URL such as https://api.example.com")
    return value.rstrip("/")


def domain(value: str) -> str:
    """A name in the DNS, lower-cased, without a final dot."""
    name = value.lower().rstrip(".")
    if not _DOMAIN.fullmatch(name):
        raise ValueError("must be a name in the DNS such as example.com")
    return name


def host_name(value: str) -> str:
    """A whole name in the DNS, for a greeting: servers refuse a bare machine name."""
    name = domain(value)
    if "." not in name:
        raise ValueError("must be a whole name in the DNS such as mail.example.com")
    return name


def greeting_name(sender: str | None, public_url: str) -> str:
    """What we call ourselves to mail servers: the sender's domain, else our own host; never a bare machine name.

    RFC 5321, 4.1.3: who has no name says the address.
    """
    for name in ((sender or "").rpartition("@")[2], urlsplit(public_url).hostname or ""):
        with suppress(ValueError):
            return f"[{'IPv6:' if ':' in name else ''}{ipaddress.ip_address(name.strip('[]'))}]"
        with suppress(UnicodeError, ValueError):
            return host_name(name.encode("idna").decode())
    return "[127.0.0.1]"


def return_url(value: str) -> str:
    """An absolute http(s) URL, or the URL of a mobile app with a scheme of its own. It is no pattern."""
    scheme, separator, rest = value.partition("://")
    app = re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) and scheme not in _UNSAFE_SCHEMES | {"http", "https"}
    parts = hosts.split_web(value)
    try:
        if not (separator and rest) or not (app or parts) or "*" in value or " " in value:
            raise ValueError(value)
        if parts is None:
            return value
        if "@" in parts.netloc:
            raise ValueError(value)
        return urlunsplit(urlsplit(hosts.origin_in(parts))._replace(path=parts.path, query=parts.query))
    except ValueError:
        raise ValueError(
            "must be an absolute URL such as https://app.example.com/signed-in or myapp://signed-in; "
            "what lies below it is allowed, too, and * means nothing"
        ) from None


def is_local(web_url: str) -> bool:
    """Does this URL lead to the machine itself? Only there may a browser talk plain http."""
    host = urlsplit(web_url).hostname or ""
    return host in _LOCAL_HOSTS or host.endswith(".localhost")


def network(value: str) -> Network:
    """An address or a network in CIDR notation."""
    try:
        return ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.0.0.0/8") from None


def region(value: str) -> str:
    """An ISO 3166-1 alpha-2 country code, upper-cased."""
    code = value.upper()
    if code not in _REGIONS:
        hint = {"UK": "; write GB", "EN": "; write GB", "EL": "; write GR"}.get(code, "")
        raise ValueError(f"must be two-letter country codes (ISO 3166-1) such as GB{hint}")
    return code


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
