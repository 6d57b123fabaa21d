"""What happened: deliveries, the audit log, and how many codes went through."""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias, cast
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.params import QueryParameter
from msgspec import Meta, Struct

from admin_portal.api.documents import Download
from admin_portal.api.formats import Format, FormatParameter, download, wanted
from admin_portal.api.guards import VIEWER, caller
from admin_portal.api.payloads import Method, Next
from admin_portal.api.tenants import REFUSED, Limit
from admin_portal.desk import desk
from app.audit.export import EventFilters, as_csv, as_json_lines, event_pages
from app.audit.listing import DeliveryFilters, deliveries_as_csv, deliveries_as_json_lines
from app.errors import FieldError, InvalidRequest, TenantNotFound
from app.web.docs import refusals
from app.web.services import AnyRequest, services

OfTenant: TypeAlias = Annotated[str | None, QueryParameter(description="Of the tenant with this slug only.")]
Start: TypeAlias = Annotated[datetime | None, QueryParameter(name="from", description="Earliest time, with its zone.")]
End: TypeAlias = Annotated[datetime | None, QueryParameter(name="to", description="Time before which they end.")]
Cursor: TypeAlias = Annotated[str | None, QueryParameter(description="`next` of the page before; JSON only.")]


class DeliveryBody(Struct, frozen=True):
    """One step of a message. `message` is the same for all steps of one."""

    id: int
    at: datetime
    message: UUID
    tenant: Annotated[str | None, Meta(description="Its slug; null where it was removed.")]
    kind: Annotated[str, Meta(description="code, test or notice.")]
    channel: Method
    state: str
    provider: str | None
    provider_message_id: str | None
    error_class: str | None
    error_text: str | None
    took_ms: int | None
    challenge_id: UUID | None


class DeliveryPageBody(Struct, frozen=True):
    """Newest first."""

    deliveries: list[DeliveryBody]
    next: Next


class EventBody(Struct, frozen=True):
    """One entry of the audit log. Contacts in it are masked."""

    id: int
    at: datetime
    tenant: str | None
    action: Annotated[str, Meta(examples=["tenant.changed"])]
    actor_kind: str
    actor_id: UUID | None
    actor: Annotated[str | None, Meta(description="An admin's address or an API key's name.")]
    subject_kind: str | None
    subject_id: UUID | None
    challenge_id: UUID | None
    source: str
    ip: str | None
    user_agent: str | None
    request_id: str | None
    data: dict[str, Any]


class EventPageBody(Struct, frozen=True):
    """Newest first."""

    events: list[EventBody]
    next: Next


class ChannelCountsBody(Struct, frozen=True):
    """One channel. `sent` is what a provider took, `delivered` what it said has arrived."""

    channel: str
    requested: int
    sent: int
    delivered: int
    failed: int
    verified: int


class SpanBody(Struct, frozen=True):
    """From `since`, a full hour, until now."""

    name: Literal["24h", "7d", "30d"]
    since: datetime
    channels: list[ChannelCountsBody]


class StatsBody(Struct, frozen=True):
    """Codes of the whole installation."""

    spans: list[SpanBody]


@get(
    "/deliveries",
    opt=VIEWER,
    summary="List deliveries",
    responses=refusals(*REFUSED, TenantNotFound),
    operation_class=Download,
)
async def deliveries(
    request: AnyRequest,
    tenant: OfTenant = None,
    in_state: Annotated[
        str | None,
        QueryParameter(name="state", description="sent, delivered, failed, queued, expired or void."),
    ] = None,
    channel: Annotated[str | None, QueryParameter(description="email, sms, whatsapp or push.")] = None,
    provider: Annotated[str | None, QueryParameter(description="A provider's name.")] = None,
    start: Start = None,
    end: End = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    format: FormatParameter = None,  # noqa: A002 - the parameter's name in the contract
) -> Response[DeliveryPageBody]:
    """Every step of every message, newest first. As CSV or JSON Lines: all that match, in one file."""
    filters = DeliveryFilters(
        await _tenant_id(request, tenant), in_state, channel, provider, aware("from", start), aware("to", end)
    )
    form = wanted(request, format, "json")
    listing = desk(request).listing
    if form == "json":
        page = await listing.deliveries(filters, cursor=cursor, limit=limit)
        return Response(DeliveryPageBody([DeliveryBody(**row) for row in page.rows], page.next))
    encode = deliveries_as_csv if form == "csv" else deliveries_as_json_lines
    return await _file(encode(listing.all_deliveries(filters)), form, "deliveries")


@get(
    "/events",
    opt=VIEWER,
    summary="Read the audit log",
    responses=refusals(*REFUSED, TenantNotFound),
    operation_class=Download,
)
async def events(
    request: AnyRequest,
    tenant: OfTenant = None,
    action: Annotated[
        str | None, QueryParameter(description="Such as tenant.changed, or tenant.* for all of a kind.")
    ] = None,
    start: Start = None,
    end: End = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    format: FormatParameter = None,  # noqa: A002 - the parameter's name in the contract
) -> Response[EventPageBody]:
    """JSON: newest first, in pages. CSV and JSON Lines: all that match, oldest first, in one file."""
    filters = EventFilters(await _tenant_id(request, tenant), aware("from", start), aware("to", end), action)
    form = wanted(request, format, "json")
    exact = caller(request).sees_contacts
    if form == "json":
        page = await desk(request).listing.events(filters, sees_contacts=exact, cursor=cursor, limit=limit)
        return Response(EventPageBody([EventBody(**row) for row in page.rows], page.next))
    encode = as_csv if form == "csv" else as_json_lines
    return await _file(encode(event_pages(services(request).db, filters, sees_contacts=exact)), form, "events")


@get("/stats", opt=VIEWER, summary="Count codes", responses=refusals(*REFUSED))
async def stats(request: AnyRequest) -> StatsBody:
    """Codes asked for, sent, delivered and used, by channel: of the last 24 hours, 7 and 30 days."""
    return StatsBody(
        [
            SpanBody(
                cast("Any", span.name),
                span.since,
                [msgspec.convert(c, ChannelCountsBody, from_attributes=True) for c in span.channels],
            )
            for span in await desk(request).stats.read()
        ]
    )


HANDLERS: Final = (deliveries, events, stats)


async def _tenant_id(request: AnyRequest, slug: str | None) -> UUID | None:
    return None if slug is None else (await desk(request).tenants.get(slug)).id


def aware(name: str, moment: datetime | None) -> datetime | None:
    """A time of a query. Raises `InvalidRequest` for one without its zone."""
    if moment is None:
        return None
    # At an edge of the calendar a time of another zone lies beyond it.
    with suppress(OverflowError):
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    raise InvalidRequest(FieldError(f"/{name}", "Write the time with its zone, such as 2026-03-14T09:26:53Z."))


async def _file(chunks: AsyncIterator[bytes], form: Format, name: str) -> Response[Any]:
    return await download(chunks, form, name)
