"""Many members of a tenant at once: imported from a CSV, exported to one, counted."""

from datetime import datetime
from typing import Annotated, Final, Literal

from litestar import get, post
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import Meta, Struct, convert

from admin_portal.api.documents import CsvDownload, CsvUpload
from admin_portal.api.formats import download
from admin_portal.api.guards import MANAGER, VIEWER, YOUNG, YOUNG_UNLESS_DRY_RUN, caller
from admin_portal.api.payloads import MOST_SHOWN, RowFaultBody
from admin_portal.api.tenants import REFUSED, Slug
from admin_portal.desk import desk
from app.errors import FieldError, InvalidRequest, PayloadTooLarge, TenantNotFound
from app.members.files import Outcome, Report
from app.members.search import Filters
from app.sheets import SIZE_LIMIT
from app.web.caller import client_of
from app.web.docs import refusals
from app.web.problems import UnsupportedMediaType
from app.web.services import AnyRequest

_CSV: Final = "text/csv"


class MemberRowBody(Struct, frozen=True):
    """What a row does. `fields` are those it changes or, of a new member, fills in."""

    row: int
    name: str
    outcome: Outcome
    fields: list[str]


class MemberImportBody(Struct, frozen=True):
    """What an import did, or (`applied` false) would do. At most 1,000 rows and errors are listed."""

    applied: bool
    new: int
    changed: int
    unchanged: int
    faulty: int
    rows: list[MemberRowBody]
    errors: list[RowFaultBody]


class MemberSpanBody(Struct, frozen=True):
    """From `since`, a full hour, until now. `sent` is what a provider took, `delivered` what it said has arrived;
    `locked` counts codes that too many wrong tries used up; of the sign-ins `begun`, `succeeded` led to a session.
    `success_rate` is null where none was begun.
    """

    name: Literal["24h", "7d", "30d"]
    since: datetime
    requested: int
    sent: int
    delivered: int
    verified: int
    wrong: int
    locked: int
    begun: int
    succeeded: int
    success_rate: Annotated[float, Meta(ge=0, le=1)] | None


class MemberStatsBody(Struct, frozen=True):
    """Codes of all members of a tenant together."""

    spans: list[MemberSpanBody]


@post(
    "/tenants/{slug:str}/members/import",
    opt=MANAGER | YOUNG_UNLESS_DRY_RUN,
    status_code=200,
    summary="Import members",
    responses=refusals(*REFUSED, TenantNotFound, UnsupportedMediaType, PayloadTooLarge),
    operation_class=CsvUpload,
    request_max_body_size=SIZE_LIMIT,
)
async def import_members(
    request: AnyRequest,
    slug: Slug,
    dry_run: Annotated[bool, QueryParameter(description="Only say what would be done.")] = False,
    as_is: Annotated[bool, QueryParameter(description="Take text as it is that looks wrongly decoded.")] = False,
) -> MemberImportBody:
    """CSV with the fields' names as its header; 10 MiB and 10,000 members at most. All or nothing.

    A row is about the member who has its email, or else its phone number. A dry run answers with every error beside its
    row and field; without it errors are a refusal, with pointers such as `/3/email`, and nothing was imported.
    """
    if request.content_type[0] != _CSV:
        raise UnsupportedMediaType(_CSV, detail="Send the file as text/csv.")
    report = await desk(request).members.import_(
        slug,
        await request.body(),
        dry_run=dry_run,
        as_is=as_is,
        actor=caller(request).actor,
        client=client_of(request),
    )
    if report.faults and not dry_run:
        raise _refusal(report)
    return MemberImportBody(
        applied=report.applied,
        **report.counts,
        rows=[MemberRowBody(row.number, row.name, row.outcome, list(row.fields)) for row in report.rows[:MOST_SHOWN]],
        errors=[RowFaultBody(fault.row, fault.field, fault.detail) for fault in report.faults[:MOST_SHOWN]],
    )


@get(
    "/tenants/{slug:str}/members/export",
    opt=VIEWER | YOUNG,
    summary="Export members",
    responses=refusals(*REFUSED, TenantNotFound),
    operation_class=CsvDownload,
)
async def export_members(
    request: AnyRequest,
    slug: Slug,
    search: Annotated[str, QueryParameter(description="Part of a name, email or phone number.")] = "",
    status: Annotated[str | None, QueryParameter(description="active, suspended or pending.")] = None,
) -> Stream:
    """CSV of all that match, by name; it can be imported again. Viewers get contacts masked: theirs can't."""
    who = caller(request)
    chunks = await desk(request).members.export_list(
        slug,
        Filters(search, status, contacts=who.sees_contacts),
        actor=who.actor,
        client=client_of(request),
    )
    return await download(chunks, "csv", "members")


@get(
    "/tenants/{slug:str}/members/stats",
    opt=VIEWER,
    summary="Count members' codes",
    responses=refusals(*REFUSED, TenantNotFound),
)
async def member_stats(request: AnyRequest, slug: Slug) -> MemberStatsBody:
    """Codes asked for, sent, delivered, mistyped and used, and how many sign-ins succeeded: 24 hours, 7 and 30 days."""
    return MemberStatsBody(
        [convert(counts, MemberSpanBody, from_attributes=True) for counts in await desk(request).members.stats(slug)]
    )


HANDLERS: Final = (import_members, export_members, member_stats)


def _refusal(report: Report) -> InvalidRequest:
    faulty = report.counts["faulty"]
    rows = "1 row has a fault" if faulty == 1 else f"{faulty} rows have faults"
    errors = [
        FieldError("/".join(("", str(fault.row), *filter(None, (fault.field,)))), fault.detail)
        for fault in report.faults
    ]
    return InvalidRequest(*errors, detail=f"{rows}: nothing was imported.")
