"""Many tenants at once: imported from a file, exported to one."""

from typing import Annotated, Final, Literal

from litestar import get, post
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import Struct

from admin_portal.api.documents import Download, Upload
from admin_portal.api.formats import FormatParameter, download, wanted
from admin_portal.api.guards import MANAGER, VIEWER, YOUNG, YOUNG_UNLESS_DRY_RUN, caller
from admin_portal.api.payloads import MOST_SHOWN, RowFaultBody
from admin_portal.api.tenants import REFUSED, Bad, Method, Missing, Search, Status
from admin_portal.desk import desk
from app.errors import AlreadyExists, EditConflict, PayloadTooLarge
from app.sheets import SIZE_LIMIT
from app.tenants.import_export import Report
from app.tenants.search import Filters
from app.tenants.table import read_csv, read_json_lines
from app.web.caller import client_of
from app.web.docs import refusals
from app.web.problems import UnsupportedMediaType
from app.web.services import AnyRequest

_READERS: Final = {
    "text/csv": read_csv,
    "application/jsonl": read_json_lines,
    "application/x-ndjson": read_json_lines,
}


class RowBody(Struct, frozen=True):
    """What a row does, and to which fields."""

    row: int
    slug: str | None
    outcome: Literal["new", "changed", "unchanged", "faulty"]
    fields: list[str]


class ImportBody(Struct, frozen=True):
    """What an import did, or would do. Of rows and errors the first 1,000 are shown."""

    applied: bool
    new: int
    changed: int
    unchanged: int
    faulty: int
    rows: list[RowBody]
    errors: list[RowFaultBody]


@post(
    "/tenants/import",
    opt=MANAGER | YOUNG_UNLESS_DRY_RUN,
    status_code=200,
    summary="Import tenants",
    responses=refusals(*REFUSED, UnsupportedMediaType, PayloadTooLarge, AlreadyExists, EditConflict),
    operation_class=Upload,
    request_max_body_size=SIZE_LIMIT,
)
async def import_tenants(
    request: AnyRequest,
    dry_run: Annotated[bool, QueryParameter(description="Only say what would be done.")] = False,
    as_is: Annotated[bool, QueryParameter(description="Take text as it is that looks wrongly decoded.")] = False,
) -> ImportBody:
    """CSV with the fields' names as its header, or JSON Lines; 10 MiB and 100,000 tenants at most. All or nothing.

    CSV may be as spreadsheets write it: UTF-8 or UTF-16, cells between commas, semicolons or tabs, a `sep=` line.

    A row says what a tenant shall be in the columns there are; an empty cell clears. A `version` column, as exports
    have it, refuses rows of tenants that were changed since. A dry run answers with every error beside its row and
    field; without it errors are a refusal, with pointers such as `/3/email`, and nothing was imported.
    """
    read = _READERS.get(request.content_type[0])
    if read is None:
        raise UnsupportedMediaType(*_READERS, detail="Send the file as text/csv or application/jsonl.")
    rows = read(await request.body(), as_is=as_is)
    if dry_run:
        return _shown(await desk(request).files.check(rows))
    return _shown(await desk(request).files.load(rows, actor=caller(request).actor, client=client_of(request)))


@get(
    "/tenants/export",
    opt=VIEWER | YOUNG,
    summary="Export tenants",
    responses=refusals(*REFUSED),
    operation_class=Download,
)
async def export_tenants(
    request: AnyRequest,
    search: Search = "",
    status: Status = None,
    method: Method = None,
    contact_missing: Missing = None,
    failing: Bad = None,
    format: FormatParameter = None,  # noqa: A002 - the parameter's name in the contract
) -> Stream:
    """CSV, or JSON Lines, of all that match. Viewers get contacts masked; such a file can't be imported."""
    who = caller(request)
    filters = Filters(
        contacts=who.sees_contacts,
        search=search,
        status=status,
        method=method,
        contact_missing=contact_missing,
        failing=failing,
    )
    form: Literal["csv", "jsonl"] = "csv" if wanted(request, format, "csv") == "csv" else "jsonl"
    chunks = await desk(request).files.export(filters, form, actor=who.actor, client=client_of(request))
    return await download(chunks, form, "tenants")


HANDLERS: Final = (import_tenants, export_tenants)


def _shown(report: Report) -> ImportBody:
    return ImportBody(
        applied=report.applied,
        **report.counts,
        rows=[RowBody(row.number, row.slug, row.outcome, list(row.fields)) for row in report.rows[:MOST_SHOWN]],
        errors=[RowFaultBody(fault.row, fault.field, fault.detail) for fault in report.faults[:MOST_SHOWN]],
    )
