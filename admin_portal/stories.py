"""What happened to a tenant: its codes (timeline) and its fields (history)."""

import asyncio
from typing import Final
from urllib.parse import urlencode

from litestar import get
from litestar.params import FromPath

from admin_portal.desk import desk
from admin_portal.guards import VIEWER, signed_in
from admin_portal.tenant import advice_for
from admin_portal.views import Shown, change_line, lines, masked_contacts, show
from app.web.browser import Answer
from app.web.queries import reads
from app.web.services import AnyRequest, services

_ENTRIES: Final = 50
_CHANGES: Final = 25


@get("/tenants/{slug:str}/timeline", opt=VIEWER | reads("cursor"))
async def timeline(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """GET /admin/tenants/{slug}/timeline?cursor=: "why didn't I get my code?"."""
    own, cursor = desk(request), request.query_params.get("cursor")
    tenant = await own.tenants.get(slug)
    story, standing, marks = await asyncio.gather(
        own.timeline.read(
            tenant.id,
            masked_contacts(tenant),
            sees_contacts=signed_in(request).may_edit,
            cursor=cursor,
            limit=_ENTRIES,
        ),
        own.unlocking.standing(tenant.id, tenant.id),
        own.marks.of(tenant.id, tenant.id),
    )
    return await show(
        request,
        "admin/tenant_timeline.html",
        tenant=Shown.of(tenant, masked=True),
        entries=lines(story.entries),
        advice=None if cursor else advice_for(services(request).settings, tenant, story, standing, marks),
        pager=_pager(f"/admin/tenants/{slug}/timeline", cursor, story.next),
        live=not cursor,
    )


@get("/tenants/{slug:str}/history", opt=VIEWER | reads("cursor"))
async def history(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """GET /admin/tenants/{slug}/history?cursor=: who changed what. Contacts are masked for everybody, as stored."""
    own, cursor = desk(request), request.query_params.get("cursor")
    tenant = await own.tenants.get(slug)
    found = await own.tenants.history(slug, sees_contacts=signed_in(request).may_edit, cursor=cursor, limit=_CHANGES)
    return await show(
        request,
        "admin/tenant_history.html",
        tenant=Shown.of(tenant, masked=True),
        entries=[change_line(change) for change in found.entries],
        pager=_pager(f"/admin/tenants/{slug}/history", cursor, found.next),
    )


HANDLERS: Final = (timeline, history)


def _pager(address: str, cursor: str | None, following: str | None) -> dict[str, str | None]:
    """Forward by cursor; back to the newest."""
    return {
        "previous": address if cursor else None,
        "next": f"{address}?{urlencode({'cursor': following})}" if following else None,
    }
