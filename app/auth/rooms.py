"""How often one address may do what anybody may do: a shield against floods, generous enough for an office.

A room is a family of calls. What guessing and sending may do is bounded elsewhere, by recipient and challenge; these
limits only keep one address from taking a process to itself. So a process lets a quarter of a limit in without asking
anybody, and only a busy address costs a call to Valkey. At the turn of a minute that is a quarter more, once.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from app.auth.limits import Counted, network_of
from app.errors import RateLimited
from app.storage.redis import Accelerator

WINDOW_SECONDS: Final = 60
# What a process lets in by itself, of a limit that all processes keep together: the rest is spent in Valkey.
_BY_ITSELF: Final = 4
_REMEMBERED: Final = 50_000
# For a known device where its address is full.
_DEVICE: Final = 30


@dataclass(frozen=True, slots=True)
class Room:
    """So many calls of an address in a minute, of all processes together; never fewer than OTP_IP_HOURLY_LIMIT, so that
    whoever may ask for a code may also enter it.
    """

    name: str
    calls: int
    why: str = "Your network has sent too many requests in the last minute. Many people may share its address."

    def limit(self, least: int) -> int:
        """Calls a minute where OTP_IP_HOURLY_LIMIT is `least`."""
        return max(self.calls, least)


# Several hundred people behind one address, who all begin at nine.
CHECKS: Final = Room("checks", 600)
STATUS: Final = Room("status", 3000)
REFRESH: Final = Room("refresh", 1200)
PAGES: Final = Room("pages", 1200)
# Image proxies of large mail services look for all of their users.
LOGOS: Final = Room("logos", 6000)
# Providers report on every message from a few addresses.
CALLBACKS: Final = Room("callbacks", 60_000)
# What was refused for a key that isn't one. A good key behind the same address is not held up.
BAD_KEYS: Final = Room("bad-keys", 300)
# Of one API key, wherever it calls from and whomever it speaks for: a leaked one is no flood.
KEYS: Final = Room("api-key", 12_000, "This API key has been used too often in the last minute.")
ROOMS: Final[Mapping[str, Room]] = {
    room.name: room for room in (CHECKS, STATUS, REFRESH, PAGES, LOGOS, CALLBACKS, BAD_KEYS, KEYS)
}


class Rooms:
    """The rooms of one process."""

    def __init__(self, accelerator: Accelerator, *, least: int, processes: int) -> None:
        limits = {name: room.limit(least) for name, room in ROOMS.items()}
        self._alone = {name: max(1, limit // (_BY_ITSELF * processes)) for name, limit in limits.items()}
        self._shared = {
            name: Counted(
                accelerator,
                f"room:{name}",
                limit=max(1, limit - self._alone[name] * processes),
                seconds=WINDOW_SECONDS,
                processes=processes,
            )
            for name, limit in limits.items()
        }
        self._devices = Counted(accelerator, "room:device", limit=_DEVICE, seconds=WINDOW_SECONDS, processes=processes)
        # Who was let in here without asking: in which minute, and how often.
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()

    async def enter(self, room: Room, now: datetime, address: str, device: UUID | None = None) -> None:
        """Spends one call of an address. Where nothing is left, a known `device` may still go on, within a limit of its
        own: a flood next door doesn't keep it out. Raises `RateLimited`.
        """
        moment = now.timestamp()
        wait = await self._spend(room, f"ip:{network_of(address)}", moment)
        if wait and device is not None:
            wait = await self._devices.spend(f"{room.name}:{device}", moment)
        if wait:
            raise RateLimited(wait, policy=room.name, detail=room.why)

    async def enter_with_key(self, now: datetime, key_id: UUID) -> None:
        """Spends one call of an API key. Raises `RateLimited`."""
        wait = await self._spend(KEYS, f"key:{key_id}", now.timestamp())
        if wait:
            raise RateLimited(wait, policy=KEYS.name, detail=KEYS.why)

    async def _spend(self, room: Room, who: str, moment: float) -> int:
        minute = int(moment // WINDOW_SECONDS)
        place = f"{room.name}:{who}"
        begun, count = self._seen.get(place, (minute, 0))
        if begun != minute:
            count = 0
        if count < self._alone[room.name]:
            self._seen[place] = (minute, count + 1)
            self._seen.move_to_end(place)
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            return 0
        return await self._shared[room.name].spend(who, moment)
