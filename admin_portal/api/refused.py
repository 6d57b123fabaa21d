"""What was refused before anybody was known: found by tenant, address and hour."""

from datetime import datetime
from typing import Annotated, Any, Final

from litestar import get
from litestar.params import QueryParameter
from msgspec import Meta, Struct

from admin_portal.api.guards import VIEWER, caller
from admin_portal.api.payloads import Next
from admin_portal.api.records import Cursor, End, Start, aware
from admin_portal.api.tenants import REFUSED, Limit
from app.audit.refused import RefusedFilters, read_refused
from app.masking import mask_ip
from app.web.docs import refusals as refused_by
from app.web.services import AnyRequest, services


class RefusalBody(Struct, frozen=True):
    """What was refused in an hour for one reason to one network. Callers who may not see contacts see a larger one."""

    hour: Annotated[datetime, Meta(description="Its beginning.")]
    reason: Annotated[str, Meta(examples=["address"])]
    network: Annotated[
        str | None,
        Meta(description="An IPv4 address or an IPv6 /64; null: many others.", examples=["203.0.113.9"]),
    ]
    tenant: Annotated[str | None, Meta(description="The slug of the tenant whose door it was.")]
    name: Annotated[str | None, Meta(description="The slug that was named where nobody has it.")]
    count: int
    first_at: datetime
    last_at: datetime


class RefusalPageBody(Struct, frozen=True):
    """The newest hour first."""

    refusals: list[RefusalBody]
    next: Next


@get("/refusals", opt=VIEWER, summary="List what was refused at the door", responses=refused_by(*REFUSED))
async def refusals(
    request: AnyRequest,
    tenant: Annotated[
        str | None, QueryParameter(description="At the door of this slug, whether a tenant has it or nobody.")
    ] = None,
    address: Annotated[
        str | None, QueryParameter(description="From this address or network, such as 203.0.113.0/24.")
    ] = None,
    reason: Annotated[str | None, QueryParameter(description="Such as address or unknown-name.")] = None,
    start: Start = None,
    end: End = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> RefusalPageBody:
    """What was refused before anybody was known (the limit of an address, names that nobody has), counted by hour."""
    exact = caller(request).sees_contacts
    filters = RefusedFilters(tenant, address, reason, aware("from", start), aware("to", end), exact)
    core = services(request)
    await core.door.write()
    page = await read_refused(core.db, filters, cursor=cursor, limit=limit)
    return RefusalPageBody([RefusalBody(**_shown(dict(row), exact=exact)) for row in page.rows], page.next)


HANDLERS: Final = (refusals,)


def _shown(row: dict[str, Any], *, exact: bool) -> dict[str, Any]:
    del row["id"]
    if row["network"] and not exact:
        row["network"] = mask_ip(row["network"])
    return row
