"""The first shield before the database: how many codes one address may ask for in an hour.

Counted in Valkey, by minutes, atomically and for all processes together. While Valkey is away each process counts by
itself and admits its share. What must be exact, the quota of a recipient, is the database's business.
"""

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from app.errors import RateLimited
from app.storage.redis import Accelerator, AcceleratorDown

_MINUTE: Final = 60
_HOUR: Final = 3600
# Addresses remembered while Valkey is away; the one not seen for longest is forgotten first.
_REMEMBERED: Final = 50_000
# How many times the limit an address that has nothing left may ask with devices that turn out to be strangers'.
_BESIDE: Final = 10

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
# KEYS[1] as above; ARGV: the moment it was taken at. A count that is gone stays gone.
_GIVE_BACK: Final = """
local this = math.floor(tonumber(ARGV[1]) / 60)
if redis.call('HEXISTS', KEYS[1], this) == 1 and redis.call('HINCRBY', KEYS[1], this, -1) <= 0 then
    redis.call('HDEL', KEYS[1], this)
end
return 0
"""


def network_of(address: str) -> str:
    """What is limited together: an IPv4 address, or the /64 a site has of IPv6."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip), 64), strict=False))
    return str(ip)


@dataclass(frozen=True, slots=True)
class Admission:
    """Who pays for a call: its address, until the database has found that its device is known there.

    `full` is the refusal of an address that has nothing left: the call goes on for a known device and nobody else.
    """

    full: RateLimited | None = None
    _give_back: Callable[[], Awaitable[None]] | None = None

    @property
    def known_only(self) -> bool:
        """Whether nobody but a device of the person who is asked for may go on."""
        return self.full is not None

    async def settle(self, *, known: bool) -> None:
        """Lets a known device pay instead of its address. Raises `RateLimited` for everybody else behind a full one.

        To be called once, with what the database says.
        """
        if known and self._give_back is not None:
            await self._give_back()
        if self.full is not None and not known:
            raise self.full


class AddressLimiter:
    """Spends one of an address's codes of the hour, or says when the next one is free."""

    def __init__(self, accelerator: Accelerator, *, limit: int, processes: int) -> None:
        self._accelerator = accelerator
        self._limit = limit
        self._processes = processes
        self._spent: OrderedDict[str, deque[float]] = OrderedDict()

    async def spend(self, now: datetime, address: str | None, device: UUID | None = None) -> None:
        """Raises `RateLimited`.

        A device that is known to be the caller's own is counted by itself, not by its address: whoever shares the
        address with a stranger is not kept out by them. A call without an address comes from this machine's own
        command line and is not limited.
        """
        if device is not None:
            who = f"device:{device}"
        elif address is not None:
            who = f"ip:{network_of(address)}"
        else:
            return
        if wait := await self._take(who, now.timestamp(), self._limit):
            raise RateLimited(wait, policy="address")

    async def admit(self, now: datetime, address: str | None, device: UUID | None) -> Admission:
        """The same for a device whose token is ours, before the database says whether it is known where it asks.

        Both the device and the address are spent, and the address gets its own back from `Admission.settle`. Behind
        an address that has nothing left such a device may still ask, as long as the device itself has something left
        and few of those who tried that were strangers after all.
        """
        moment = now.timestamp()
        if device is None or address is None or await self._take(f"device:{device}", moment, self._limit):
            await self.spend(now, address)
            return Admission()
        network = network_of(address)
        who, full = f"ip:{network}", None
        if wait := await self._take(who, moment, self._limit):
            who, full = f"beside:{network}", RateLimited(wait, policy="address")
            if await self._take(who, moment, self._limit * _BESIDE):
                raise full
        return Admission(full, lambda: self._give_back(who, moment))

    async def _take(self, who: str, moment: float, limit: int) -> int:
        """0, or the seconds to wait."""
        try:
            return int(await self._accelerator.script(_SCRIPT, [_key(who)], [moment, limit]))
        except AcceleratorDown:
            return self._take_here(who, moment, max(1, limit // self._processes))

    async def _give_back(self, who: str, moment: float) -> None:
        try:
            await self._accelerator.script(_GIVE_BACK, [_key(who)], [moment])
        except AcceleratorDown:
            if self._spent.get(who):
                self._spent[who].pop()

    def _take_here(self, who: str, moment: float, share: int) -> int:
        spent = self._spent.setdefault(who, deque())
        self._spent.move_to_end(who)
        if len(self._spent) > _REMEMBERED:
            self._spent.popitem(last=False)
        while spent and spent[0] <= moment - _HOUR - _MINUTE:
            spent.popleft()
        if len(spent) >= share:
            return max(1, round(spent[-share] + _HOUR + _MINUTE - moment))
        spent.append(moment)
        return 0


def _key(who: str) -> str:
    return f"gatehouse:limit:{{{who}}}"
