"""What a message tells about its code: when it was asked for and until when it is good, from which client and network.

Written in the language of the message and in the tenant's time zone. Pure.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time, format_timedelta

from app.delivery.client import browser_and_system
from app.delivery.outbox import Claimed
from app.masking import mask_ip


def facts(claimed: Claimed, locale: str, now: datetime) -> dict[str, str | None]:
    """By the names that the words use; None for what isn't known."""
    zone = claimed.tenant_timezone or "UTC"
    asked_date, asked_time, asked_zone = _moment(_minute(claimed.asked_at or claimed.created_at), zone, locale)
    # Between the two the clocks may have changed.
    _, expires_time, expires_zone = _moment(_minute(claimed.expires_at), zone, locale)
    browser, system = browser_and_system(claimed.user_agent)
    return {
        "asked_date": asked_date,
        "asked_time": asked_time,
        "asked_zone": asked_zone,
        "expires_time": expires_time,
        "expires_zone": expires_zone,
        "lifetime": _lifetime(max(1, int((claimed.expires_at - now).total_seconds() + 30) // 60), locale),
        "browser": browser,
        "system": system,
        "network": mask_ip(claimed.ip) if claimed.ip else None,
    }


@lru_cache(maxsize=256)
def locale_of(tag: str | None) -> Locale | None:
    """The locale of a BCP 47 tag, if it is one that is known. Babel would take `und`, undetermined, for English."""
    try:
        return Locale.parse(tag, sep="-") if tag and tag != "und" else None
    except (UnknownLocaleError, ValueError):
        return None


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


# Mails of one minute share their times, and Babel isn't cheap.
@lru_cache(maxsize=1024)
def _moment(minute: datetime, zone: str, locale: str) -> tuple[str, str, str]:
    """Date, time and offset as written in a language."""
    try:
        local = minute.astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError):
        local = minute
    offset = local.strftime("%z")
    shown = "UTC" if offset == "+0000" else f"UTC{offset[:3]}:{offset[3:]}"
    return format_date(local, "long", locale), format_time(local, "short", locale=locale), shown


@lru_cache(maxsize=256)
def _lifetime(minutes: int, locale: str) -> str:
    return format_timedelta(timedelta(minutes=minutes), granularity="minute", threshold=60, locale=locale)
