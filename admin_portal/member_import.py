"""Members from a file on a page: checked first, row by row, then imported; nothing is half imported.

The server keeps no copy between the two steps. With JavaScript the form with the chosen file stays where it is;
without it the same file is chosen once more. What is imported is what was checked: the second step has its digest.
"""

import asyncio
import hashlib
from typing import Final

from litestar import get, post
from litestar.params import FromPath

from admin_portal.desk import desk
from admin_portal.guards import MANAGER, fresh, sign_in_address, signed_in
from admin_portal.members import base_of
from admin_portal.views import Shown, errors_of, field_words, sentence, show
from app.errors import InvalidRequest, PayloadTooLarge
from app.members.files import MOST_ROWS, Report
from app.members.rules import SETTABLE
from app.sheets import SIZE_LIMIT
from app.tenants.table import DOUBT
from app.web.browser import ADMIN, Answer, redirect, visitor
from app.web.reading import BODY_LIMIT
from app.web.services import AnyRequest

_SHOWN_ROWS: Final = 100
_UNPROCESSABLE: Final = 422


@get("/tenants/{slug:str}/members/import", opt=MANAGER)
async def import_page(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """The empty form."""
    if not fresh(request):
        return redirect(sign_in_address(f"{base_of(slug)}/import", "again"))
    return await _page(request, slug, {})


@post("/tenants/{slug:str}/members/import", opt=MANAGER, request_max_body_size=SIZE_LIMIT + BODY_LIMIT)
async def import_members(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Says what the file would do; sent again with `checked`, the digest of that, does it."""
    form = await ADMIN.form(request, "checked", "as_is", file="file")
    body = form.file
    if not fresh(request):
        return redirect(sign_in_address(f"{base_of(slug)}/import", "again"))
    if not body:
        return await _page(request, slug, {"file": "Choose a file."})
    as_is = form.get("as_is") == "yes"
    # 10 MiB take a while: others get their turn. What the file was checked as is part of it.
    digest = (await asyncio.to_thread(hashlib.sha256, body)).hexdigest() + ("-as-is" if as_is else "")
    checked = form.get("checked")
    if checked and checked != digest:
        return await _page(request, slug, {"file": "This is not the file that was checked. Check it first."})
    actor, client = signed_in(request).actor, visitor(request)
    try:
        report = await desk(request).members.import_(
            slug, body, dry_run=not checked, as_is=as_is, actor=actor, client=client
        )
    except (InvalidRequest, PayloadTooLarge) as refusal:
        return await _page(request, slug, errors_of(refusal, ("file",), ""))
    if report.applied:
        return redirect(f"{base_of(slug)}?done=members-imported")
    return await _page(request, slug, {}, report, digest, as_is=as_is)


HANDLERS: Final = (import_page, import_members)


async def _page(
    request: AnyRequest,
    slug: str,
    errors: dict[str, str],
    report: Report | None = None,
    digest: str = "",
    *,
    as_is: bool = False,
) -> Answer:
    return await show(
        request,
        "admin/member_import.html",
        status=_UNPROCESSABLE if errors or (report and report.faults) else 200,
        tenant=Shown.of(await desk(request).tenants.get(slug), masked=True),
        columns=SETTABLE,
        most_rows=MOST_ROWS,
        megabytes=SIZE_LIMIT // 2**20,
        errors=errors,
        counts=report.counts if report else None,
        faults=[
            {
                "row": fault.row,
                "field": field_words(fault.field) if fault.field else "",
                "detail": sentence(fault.field, fault.detail),
            }
            for fault in (report.faults[:_SHOWN_ROWS] if report else ())
        ],
        more_faults=max(0, len(report.faults) - _SHOWN_ROWS) if report else 0,
        rows=[
            {"number": row.number, "name": row.name, "outcome": row.outcome, "fields": map(field_words, row.fields)}
            for row in (report.rows if report else ())
            if row.outcome in {"new", "changed"}
        ][:_SHOWN_ROWS],
        digest=digest,
        as_is=as_is,
        doubtful=as_is or any(DOUBT in fault.detail for fault in (report.faults if report else ())),
    )
