"""The first shield before the database: how many codes one address may ask for in an hour.

Counted in Valkey, by minutes, atomically and for all processes together. How often an address may do anything else is
`app.auth.rooms`. While Valkey is away each process counts by
itself and admits its share. What must be exact, the quota of a recipient, is the database's business.
"""

import ipaddress
from collections import OrderedDict, deque
from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

from app.errors import RateLimited
from app.storage.redis import Accelerator, AcceleratorDown

# The name of this limit.
ADDRESS: Final = "address"

_HOUR: Final = 3600
# A window is counted in so many parts.
_PARTS: Final = 60
# Addresses remembered while Valkey is away; the one not seen for longest is forgotten first.
_REMEMBERED: Final = 50_000

# Why it is refused, for somebody who did nothing: they share an address with all of their office.
_TOO_MANY_CODES: Final = (
    "Your network has asked for too many codes in the last hour. Many people may share its address."
)

# KEYS[1] a hash of part -> count; ARGV: now in seconds, limit, seconds of a part. Answers 0, or the seconds to wait.
# One key, so the script is legal on a cluster. A part counts until all of it is a window old: never too many, at most
# a part long.
_SCRIPT: Final = """
local now, limit, span = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local this = math.floor(now / span)
local entries = redis.call('HGETALL', KEYS[1])
local parts, total = {}, 0
for i = 1, #entries, 2 do
    local part, count = tonumber(entries[i]), tonumber(entries[i + 1])
    if part < this - 60 then
        redis.call('HDEL', KEYS[1], entries[i])
    else
        total = total + count
        parts[#parts + 1] = {part, count}
    end
end
if total < limit then
    redis.call('HINCRBY', KEYS[1], this, 1)
    redis.call('EXPIRE', KEYS[1], 62 * span)
    return 0
end
table.sort(parts, function(a, b) return a[1] < b[1] end)
for _, entry in ipairs(parts) do
    total = total - entry[2]
    if total < limit then
        return math.max(1, (entry[1] + 61) * span - math.floor(now))
    end
end
return 60 * span
"""


@lru_cache(4096)
def network_of(address: str) -> str:
    """What is limited together: an IPv4 address, or the /64 a site has of IPv6."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip), 64), strict=False))
    return str(ip)


class Counted:
    """How often each of many did something in a sliding window, for all processes together."""

    def __init__(self, accelerator: Accelerator, name: str, *, limit: int, seconds: int, processes: int) -> None:
        self._accelerator = accelerator
        self._name = name
        self._limit = limit
        self._part = seconds // _PARTS
        self._share = max(1, limit // processes)
        self._spent: OrderedDict[str, deque[float]] = OrderedDict()

    async def spend(self, who: str, moment: float) -> int:
        """Spends one; or nothing, and says how many seconds to wait. While Valkey is away each process admits its share
        of the limit.
        """
        key = f"gatehouse:{self._name}:{{{who}}}"
        try:
            return int(await self._accelerator.script(_SCRIPT, [key], [moment, self._limit, self._part]))
        except AcceleratorDown:
            return self._spend_here(who, moment)

    def _spend_here(self, who: str, moment: float) -> int:
        window = self._part * (_PARTS + 1)
        spent = self._spent.setdefault(who, deque())
        self._spent.move_to_end(who)
        if len(self._spent) > _REMEMBERED:
            self._spent.popitem(last=False)
        while spent and spent[0] <= moment - window:
            spent.popleft()
        if len(spent) >= self._share:
            return max(1, round(spent[-self._share] + window - moment))
        spent.append(moment)
        return 0


class AddressLimiter:
    """Spends one of an address's codes of the hour, or says when the next one is free."""

    def __init__(self, accelerator: Accelerator, *, limit: int, processes: int) -> None:
        self._codes = Counted(accelerator, "limit", limit=limit, seconds=_HOUR, processes=processes)

    async def spend(self, now: datetime, address: str | None, device: UUID | None = None) -> None:
        """Raises `RateLimited`.

        A known device is counted by itself, not by its address: whoever shares the address with a stranger is not
        kept out by them. A call without an address is not limited: it comes from this machine's own command line, or
        from a server that calls for many with an API key, which has a limit of its own.
        """
        if device is not None:
            who = f"device:{device}"
        elif address is not None:
            who = f"ip:{network_of(address)}"
        else:
            return
        wait = await self._codes.spend(who, now.timestamp())
        if wait:
            raise RateLimited(wait, policy=ADDRESS, detail=_TOO_MANY_CODES)
