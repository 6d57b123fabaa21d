"""The home page: what needs attention first, then how many codes go through."""

import asyncio
from typing import Final

from litestar import get

from admin_portal.desk import desk
from admin_portal.guards import VIEWER
from admin_portal.views import channel_words, show
from app.audit.blame import failure
from app.audit.overview import Installation, RefusingProvider
from app.audit.stats import ChannelCounts, Span
from app.tenants.search import Filters
from app.web.browser import Answer
from app.web.services import AnyRequest, services

# Nobody reads further, and counting all of them costs.
_COUNT_AT_MOST: Final = 10_000
_MISSING_AT_MOST: Final = 1_000
_TENANTS: Final = "/admin/tenants"
_SPANS: Final = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}
_COUNTED: Final = ("requested", "sent", "delivered", "failed", "verified")


@get("/", opt=VIEWER)
async def home(request: AnyRequest) -> Answer:
    """GET /admin."""
    own = desk(request)
    installation, spans, total, suspended, missing = await asyncio.gather(
        own.overview.read(services(request).clock()),
        own.stats.read(),
        own.tenants.count(Filters(contacts=False), at_most=_COUNT_AT_MOST),
        own.tenants.count(Filters(contacts=False, status="suspended"), at_most=_COUNT_AT_MOST),
        own.tenants.count(Filters(contacts=False, contact_missing=True), at_most=_MISSING_AT_MOST),
    )
    return await show(
        request,
        "admin/home.html",
        attention=attention(installation, missing),
        tenants_total=total,
        tenants_total_is_least=total >= _COUNT_AT_MOST,
        tenants_suspended=suspended,
        stats=[row for span in spans for row in numbers(span)],
        speed=installation.speed,
    )


def attention(installation: Installation, missing: int) -> list[dict[str, str]]:
    """What somebody should look at, worst first."""
    found = []
    if not installation.worker_alive:
        found.append(
            _item(
                "No worker is running",
                "Codes are accepted but nobody sends them. Whoever runs this installation starts one.",
            )
        )
    elif installation.waiting:
        messages = f"{installation.waiting:,} message{'s' if installation.waiting != 1 else ''}"
        found.append(_item(f"{messages} late", "They have been waiting for more than a minute."))
    for attack in installation.attacks:
        text = "Unusually many wrong or unused codes. Codes for unknown devices have 8 digits for now."
        if attack.slug is None:
            found.append(_item("Somebody is guessing codes", text))
        else:
            name = attack.name or attack.slug
            found.append(_item(f"Somebody is guessing codes at {name}", text, *_timeline(attack.slug)))
    found += [_refusing(provider) for provider in installation.refusing]
    found += [
        _item(
            f"{provider.name} refuses messages",
            f"{provider.failed:,} of {provider.tried:,} by {channel_words(provider.channel)} failed in the last hour.",
        )
        for provider in installation.providers
    ]
    found += [
        _item(
            f"{tenant.name}: the last {channel_words(tenant.channel)} message wasn't delivered",
            f"{failure(tenant.error_class).capitalize()}.",
            *_timeline(tenant.slug),
        )
        for tenant in installation.failing
    ]
    if missing:
        count = f"More than {missing:,} tenants" if missing >= _MISSING_AT_MOST else _tenants(missing)
        text = "No contact for their delivery method."
        found.append(
            _item(f"{count} can't be sent a code", text, f"{_TENANTS}?contact=missing", "See them", kind="wait")
        )
    return found


def _refusing(provider: RefusingProvider) -> dict[str, str]:
    """What is to be mended here, with the provider's own words. Said once, whomever it concerns."""
    channel = channel_words(provider.channel)
    title = f"{provider.name} refuses our {channel} messages" if provider.name else f"{channel} has no provider"
    why = failure(provider.error_class, provider.channel)
    said = f'. It said: "{provider.error_text}".' if provider.error_text else "."
    messages = f"{provider.messages:,} message{'s' if provider.messages != 1 else ''}"
    concerned = f"{messages} of {_tenants(provider.tenants)} in the last 24 hours."
    return _item(
        title, f"{why[0].upper()}{why[1:]}{said} {concerned}", *(_timeline(provider.slug) if provider.slug else ())
    )


def numbers(span: Span) -> list[dict[str, object]]:
    """The rows of a span of time: all codes, and each channel where there are several."""
    whole = {name: sum(getattr(channel, name) for channel in span.channels) for name in _COUNTED}
    rows: list[dict[str, object]] = [{"label": f"Last {_SPANS[span.name]}", "part": False, **whole}]
    return rows + [_channel_row(channel) for channel in span.channels if len(span.channels) > 1]


def _channel_row(counts: ChannelCounts) -> dict[str, object]:
    return {"label": channel_words(counts.channel), "part": True} | {name: getattr(counts, name) for name in _COUNTED}


def _item(title: str, detail: str, href: str = "", action: str = "", kind: str = "bad") -> dict[str, str]:
    return {"kind": kind, "title": title, "detail": detail, "href": href, "action": action}


def _timeline(slug: str) -> tuple[str, str]:
    return f"{_TENANTS}/{slug}/timeline", "See why"


def _tenants(number: int) -> str:
    return f"{number:,} tenant{'s' if number != 1 else ''}"


HANDLERS: Final = (home,)
