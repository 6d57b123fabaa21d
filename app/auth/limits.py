"""The first shield before the database: how many codes one address may ask for in an hour.

Counted in Valkey, by minutes, atomically and for all processes together. While Valkey is away each process counts by
itself and admits its share. What must be exact, the quota of a recipient, is the database's business.
"""

import ipaddress
from collections import OrderedDict, deque
from datetime import datetime
from typing import Final
from uuid import UUID

from app.errors import RateLimited
from app.storage.redis import Accelerator, AcceleratorDown

_MINUTE: Final = 60
_HOUR: Final = 3600
# Addresses remembered while Valkey is away; the one not seen for longest is forgotten first.
_REMEMBERED: Final = 50_000

# KEYS[1] a hash of minute -> count; ARGV: now in seconds, limit. Answers 0, or the seconds to wait. One key, so the
# script is legal on a cluster. A minute counts until all of it is an hour old: never too many, at most a minute long.
_SCRIPT: Final = """
local now, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local this = math.floor(now / 60)
local entries = redis.call('HGETALL', KEYS[1])
local minutes, total = {}, 0
for i = 1, #entries, 2 do
    local minute, count = tonumber(entries[i]), tonumber(entries[i + 1])
    if minute < this - 60 then
        redis.call('HDEL', KEYS[1], entries[i])
    else
        total = total + count
        minutes[#minutes + 1] = {minute, count}
    end
end
if total < limit then
    redis.call('HINCRBY', KEYS[1], this, 1)
    redis.call('EXPIRE', KEYS[1], 3720)
    return 0
end
table.sort(minutes, function(a, b) return a[1] < b[1] end)
for _, entry in ipairs(minutes) do
    total = total - entry[2]
    if total < limit then
        return math.max(1, (entry[1] + 61) * 60 - math.floor(now))
    end
end
return 3600
"""


def network_of(address: str) -> str:
    """What is limited together: an IPv4 address, or the /64 a site has of IPv6."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip), 64), strict=False))
    return str(ip)


class AddressLimiter:
    """Spends one of an address's codes of the hour, or says when the next one is free."""

    def __init__(self, accelerator: Accelerator, *, limit: int, processes: int) -> None:
        self._accelerator = accelerator
        self._limit = limit
        self._share = max(1, limit // processes)
        self._spent: OrderedDict[str, deque[float]] = OrderedDict()

    async def spend(self, now: datetime, address: str | None, device: UUID | None = None) -> None:
        """Raises `RateLimited`.

        A known device is counted by itself, not by its address: whoever shares the address with a stranger is not
        kept out by them. A call without an address comes from this machine's own command line and is not limited.
        """
        if device is not None:
            who = f"device:{device}"
        elif address is not None:
            who = f"ip:{network_of(address)}"
        else:
            return
        moment = now.timestamp()
        try:
            wait = int(await self._accelerator.script(_SCRIPT, [f"gatehouse:limit:{{{who}}}"], [moment, self._limit]))
        except AcceleratorDown:
            wait = self._spend_here(who, moment)
        if wait:
            raise RateLimited(wait, policy="address")

    def _spend_here(self, who: str, moment: float) -> int:
        spent = self._spent.setdefault(who, deque())
        self._spent.move_to_end(who)
        if len(self._spent) > _REMEMBERED:
            self._spent.popitem(last=False)
        while spent and spent[0] <= moment - _HOUR - _MINUTE:
            spent.popleft()
        if len(spent) >= self._share:
            return max(1, round(spent[-self._share] + _HOUR + _MINUTE - moment))
        spent.append(moment)
        return 0
