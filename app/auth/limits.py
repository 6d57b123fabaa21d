"""The first shield before the database: how many codes one address may ask for in an hour.

Counted in Valkey, by minutes, atomically and for all processes together. How often an address may do anything else is
`app.auth.rooms`. While Valkey is away each process counts by
itself and admits its share. What must be exact, the quota of a recipient, is the database's business.
"""

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
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
# How many times the limit an address that has nothing left may ask with devices that turn out to be strangers'.
_BESIDE: Final = 10

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
# KEYS[1] as above; ARGV: the moment it was taken at, seconds of a part. A count that is gone stays gone.
_GIVE_BACK: Final = """
local this = math.floor(tonumber(ARGV[1]) / tonumber(ARGV[2]))
if redis.call('HEXISTS', KEYS[1], this) == 1 and redis.call('HINCRBY', KEYS[1], this, -1) <= 0 then
    redis.call('HDEL', KEYS[1], this)
end
return 0
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
        try:
            return int(await self._accelerator.script(_SCRIPT, [self._key(who)], [moment, self._limit, self._part]))
        except AcceleratorDown:
            return self._spend_here(who, moment)

    async def give_back(self, who: str, moment: float) -> None:
        """Takes back what was spent at a moment."""
        try:
            await self._accelerator.script(_GIVE_BACK, [self._key(who)], [moment, self._part])
        except AcceleratorDown:
            if self._spent.get(who):
                self._spent[who].pop()

    def _key(self, who: str) -> str:
        return f"gatehouse:{self._name}:{{{who}}}"

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
        self._codes = Counted(accelerator, "limit", limit=limit, seconds=_HOUR, processes=processes)
        self._beside = Counted(accelerator, "beside", limit=_BESIDE * limit, seconds=_HOUR, processes=processes)

    async def spend(self, now: datetime, address: str | None, device: UUID | None = None) -> None:
        """Raises `RateLimited`.

        A device that is known to be the caller's own is counted by itself, not by its address: whoever shares the
        address with a stranger is not kept out by them. A call without an address is not limited: it comes from this
        machine's own command line, or from a server that calls for many with an API key, which has a limit of its own.
        """
        if device is not None:
            who = f"device:{device}"
        elif address is not None:
            who = f"ip:{network_of(address)}"
        else:
            return
        if wait := await self._codes.spend(who, now.timestamp()):
            raise _refusal(wait)

    async def admit(self, now: datetime, address: str | None, device: UUID | None) -> Admission:
        """The same for a device whose token is ours, before the database says whether it is known where it asks.

        Both the device and the address are spent, and the address gets its own back from `Admission.settle`. Behind
        an address that has nothing left such a device may still ask, as long as the device itself has something left
        and few of those who tried that were strangers after all.
        """
        moment = now.timestamp()
        if device is None or address is None or await self._codes.spend(f"device:{device}", moment):
            await self.spend(now, address)
            return Admission()
        who = f"ip:{network_of(address)}"
        if not (wait := await self._codes.spend(who, moment)):
            return Admission(None, partial(self._codes.give_back, who, moment))
        full = _refusal(wait)
        if await self._beside.spend(who, moment):
            raise full
        return Admission(full, partial(self._beside.give_back, who, moment))


def _refusal(wait: int) -> RateLimited:
    return RateLimited(wait, policy=ADDRESS, detail=_TOO_MANY_CODES)
