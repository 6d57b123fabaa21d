"""Names of hosts as browsers and proxies write them: lower-case, punycode, addresses in their shortest form."""

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

import idna

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LONGEST: Final = 253
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def canonical_host(name: str) -> str:
    """One spelling for each host; an IPv6 address in brackets. Raises ValueError for what is none.

    Browsers compare this spelling: `https://BÜRO.example.` and `https://xn--bro-hoa.example` are one origin to them.
    """
    bare = name.strip("[]") if ":" in name else name.rstrip(".")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return _canonical_name(bare)
    if address.is_unspecified:
        raise ValueError(f"{name} is every address of a machine and none that can be opened")
    return f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004


def _canonical_name(name: str) -> str:
    if not name.isascii():
        name = idna.encode(name, uts46=True).decode()
    name = name.lower()
    labels = name.split(".")
    if len(name) > _LONGEST or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdecimal():
        raise ValueError(f"{name} is no name of a host")
    return name


def origin_of(value: str) -> str:
    """Scheme, host and port of an http(s) URL as browsers write an origin: without the scheme's usual port.

    Raises ValueError unless that is all there is to it, but for a final slash.
    """
    parts = split_web(value)
    if parts is None or parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("no origin")
    return origin_in(parts)


def origin_in(parts: SplitResult) -> str:
    """The origin of a URL that was split. Raises ValueError."""
    host = canonical_host(parts.hostname or "")
    shown = "" if parts.port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{parts.port}"
    return f"{parts.scheme}://{host}{shown}"


def split_web(value: str) -> SplitResult | None:
    """The parts of an http(s) URL that names a host; None for anything else."""
    # urlsplit drops tabs and line breaks, and so does no browser's user.
    if not value.isprintable() or " " in value or "\\" in value:
        return None
    try:
        parts = urlsplit(value)
        port = parts.port  # refused on access only: a port out of range
    except ValueError:
        return None
    return parts if parts.scheme in _DEFAULT_PORTS and parts.hostname and port != 0 else None


def suggestion(value: str) -> str:
    """What was probably meant as an origin: "; write https://…", or nothing."""
    text = value if "://" in value else f"https://{value.lstrip('/')}"
    parts = split_web(text)
    try:
        return f"; write {origin_in(parts)}" if parts else ""
    except ValueError:
        return ""
