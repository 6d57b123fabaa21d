"""Caps on messages that cost money: whoever is paid for each SMS asks for many that nobody enters.

They hold where messages are sent, not where they are asked for, so strangers can't tell them from success. The counts
stand in PostgreSQL (`sql/safety.sql`).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from phonenumbers import NumberParseException, parse, region_code_for_country_code, region_code_for_number

from app.delivery.message import Deferral, DeliveryError, PermanentFailure
from app.delivery.outbox import Claimed
from app.keys import KeyRing, keyed_hash
from app.settings import Settings
from app.storage.db import Database

_SPEND: Final = "SELECT fn.spend_sends($1, $2, $3, $4, $5, $6, $7) AS full"
_ASSESS: Final = "SELECT * FROM fn.assess_sms($1, $2, $3)"
# Numbers are given out in blocks: who makes money of them has neighbouring ones.
_BLOCK_DIGITS: Final = 4
# Of fewer codes a percentage says nothing.
_ALARM_AT_LEAST: Final = 50
# The channels that go to numbers and cost money: one set of rules, counted for each.
_BY_NUMBER: Final = {"sms": "SMS", "whatsapp": "WhatsApp messages"}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` messages with this name a span (minute, hour, day); `detail` says so to an admin.

    A message over it is `paced`, to be tried again until it expires, or refused for good.
    """

    name: str
    span: str
    most: int
    detail: str
    paced: bool = False


def limits_for(settings: Settings, channel: str, number: str, number_key: str) -> list[Limit]:
    """What a message to `number` counts towards, the widest first. `number_key` stands for the number. Pure."""
    if channel not in _BY_NUMBER:
        return []
    name = _BY_NUMBER[channel]
    if channel == "sms":
        limits = [
            Limit("sms", "day", settings.sms_daily_cap, f"The day's {name} are used up."),
            Limit("sms", "minute", settings.sms_minute_limit, f"This minute's {name} are used up.", paced=True),
        ]
    else:
        limits = [Limit(channel, "day", settings.whatsapp_daily_cap, f"The day's {name} are used up.")]
    limits += [
        Limit(
            f"{channel} {number[:-_BLOCK_DIGITS]}",
            "hour",
            settings.sms_prefix_hourly_limit,
            f"Too many {name} this hour to numbers that begin like this one.",
        ),
        Limit(
            f"{channel} number {number_key}",
            "hour",
            settings.sms_number_hourly_limit,
            f"Too many {name} to this number this hour.",
        ),
    ]
    return [limit for limit in limits if limit.most]


def country_refused(settings: Settings, channel: str, number: str) -> bool:
    """Whether messages don't go to this number's country. One of no country goes nowhere once there is a list. Pure."""
    if channel not in _BY_NUMBER or not settings.sms_allowed_countries:
        return False
    try:
        parsed = parse(number)
    except NumberParseException:
        return True
    # Countries that share a code (+1, +44) are told apart by the rest of the number, where its range is known.
    region = region_code_for_number(parsed) or region_code_for_country_code(parsed.country_code or 0)
    return region not in settings.sms_allowed_countries


class Safety:
    """Asks, before a message goes to a provider, whether it may."""

    def __init__(self, database: Database, ring: KeyRing, settings: Settings) -> None:
        self._database = database
        self._ring = ring
        self._settings = settings
        self._log = structlog.get_logger()

    async def check(self, claimed: Claimed, now: datetime) -> None:
        """Counts the message, once. Raises `DeliveryError` for one that must not go, `Unavailable`."""
        number = claimed.destination
        if number is None or claimed.channel not in _BY_NUMBER:
            return
        if country_refused(self._settings, claimed.channel, number):
            self._refuse(
                claimed, PermanentFailure("country", f"{_BY_NUMBER[claimed.channel]} are not sent to this country.")
            )
        number_key = keyed_hash(self._ring.current.recipient, "number", number.encode())[:16].hex()
        limits = limits_for(self._settings, claimed.channel, number, number_key)
        row = await self._database.row(
            _SPEND,
            now,
            claimed.tenant_id,
            claimed.id,
            [limit.name for limit in limits],
            [limit.span for limit in limits],
            [limit.most for limit in limits],
            self._settings.sms_safety_dry_run,
        )
        if row and row["full"]:
            limit = limits[row["full"] - 1]
            self._refuse(claimed, (Deferral if limit.paced else PermanentFailure)("limit", limit.detail))

    def _refuse(self, claimed: Claimed, refusal: DeliveryError) -> None:
        if not self._settings.sms_safety_dry_run:
            raise refusal
        self._log.warning(
            "Would not be sent, but for SMS_SAFETY_DRY_RUN",
            tenant=claimed.tenant_slug,
            channel=claimed.channel,
            outbox_id=claimed.id,
            error_class=refusal.error_class,
            detail=refusal.text,
        )

    async def assess(self, now: datetime) -> None:
        """Gives the alarm, at most once an hour, when few codes sent by SMS are entered. Raises `Unavailable`."""
        percent = self._settings.sms_entered_percent_alarm
        if not percent:
            return
        row = await self._database.row(_ASSESS, now, _ALARM_AT_LEAST, percent)
        if row and row["alarm"]:
            self._log.warning(
                "Few of the codes sent by SMS are entered; somebody may be paid for each SMS",
                channel="sms",
                count=row["sent"],
                detail=f"{row['entered']} of {row['sent']} were entered",
            )
