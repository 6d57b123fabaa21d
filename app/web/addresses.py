"""Whose call it is: the client's address behind proxies, and whether a Host is ours. Pure."""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from app.settings.parsing import Network

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_LONGEST: Final = 64  # an IPv6 address with brackets, zone and port is shorter


@lru_cache(4096)
def parse_address(text: str) -> str | None:
    """An IP address in its normal form, or None. An IPv4 address mapped into IPv6 is that IPv4 address."""
    bare = text.strip().partition("%")[0]  # a zone names an interface of the machine that wrote it
    if len(bare) > _LONGEST:
        return None
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address)


class Proxies:
    """The proxies whose word is taken (`TRUSTED_PROXIES`)."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)

    def trusted(self, address: str | None) -> bool:
        """Whether this peer is one of them."""
        if not self._networks or address is None:
            return False
        ip = ipaddress.ip_address(address)
        return any(ip in network for network in self._networks)

    def client(self, peer: str | None, headers: Headers) -> str | None:
        """The client's address: the rightmost in X-Forwarded-For that isn't a trusted proxy's.

        What stands further left was written by whoever called, so it proves nothing. Anything that is no address
        ends the search at the last one that was vouched for.
        """
        if not self.trusted(peer):
            return peer
        forwarded = [part for name, value in headers if name == b"x-forwarded-for" for part in value.split(b",")]
        address = peer
        for part in reversed(forwarded):
            hop = parse_address(part.decode("latin-1"))
            if hop is None:
                break
            address = hop
            if not self.trusted(hop):
                break
        return address


class Hosts:
    """The Host headers that are answered (`ALLOWED_HOSTS`); `*.example.com` stands for any name below it."""

    def __init__(self, allowed: Sequence[str]) -> None:
        names = [name.lower() for name in allowed]
        self._any = not names or "*" in names
        self._exact = frozenset(names)
        self._below = tuple(name[1:] for name in names if name.startswith("*."))

    def answers(self, headers: Headers) -> bool:
        """Whether the request names one of them; the port doesn't count.

        One that names several never is answered (RFC 9112, section 3.2): a proxy before us may have read another.
        """
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) > 1:
            return False
        if self._any:
            return True
        host = b"".join(hosts).decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return host in self._exact or name in self._exact or name.endswith(self._below or ("\0",))
