"""What was refused before anybody was known: "it says our network has asked for too many codes"."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from litestar import get

from admin_portal.guards import VIEWER, signed_in
from admin_portal.views import errors_of, show
from app.audit.listing import Page
from app.audit.refused import REASONS, RefusedFilters, read_refused
from app.errors import FieldError, InvalidRequest
from app.masking import mask_ip
from app.storage.db import Row
from app.web.browser import Answer
from app.web.queries import reads
from app.web.services import AnyRequest, services

_FIELDS: Final = ("tenant", "address", "hour", "reason")
_PAGE: Final = 50
_ADDRESS: Final = "/admin/refusals"


@get("/refusals", opt=VIEWER | reads(*_FIELDS, "cursor"))
async def refusals(request: AnyRequest) -> Answer:
    """GET /admin/refusals?tenant=&address=&hour=&reason=&cursor=: counters, the newest hour first."""
    asked = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
    cursor = request.query_params.get("cursor")
    exact = signed_in(request).may_edit
    core = services(request)
    await core.door.write()
    page, errors = Page((), None), {}
    try:
        page = await read_refused(core.db, _filters(asked, exact=exact), cursor=cursor, limit=_PAGE)
    except InvalidRequest as refusal:
        errors = errors_of(refusal, _FIELDS, "")
    found = {name: value for name, value in asked.items() if value}
    return await show(
        request,
        "admin/refusals.html",
        status=400 if errors else 200,
        filters=asked,
        errors=errors,
        reasons=REASONS,
        refusals=[_shown(row, exact=exact) for row in page.rows],
        pager={
            "previous": f"{_ADDRESS}?{urlencode(found)}" if cursor else None,
            "next": f"{_ADDRESS}?{urlencode({**found, 'cursor': page.next})}" if page.next else None,
        },
    )


HANDLERS: Final = (refusals,)


def _filters(asked: dict[str, str], *, exact: bool) -> RefusedFilters:
    """Raises `InvalidRequest` for what is no hour."""
    hour = _hour(asked["hour"]) if asked["hour"] else None
    return RefusedFilters(
        asked["tenant"] or None,
        asked["address"] or None,
        asked["reason"] or None,
        hour,
        hour + timedelta(hours=1) if hour else None,
        exact,
    )


def _hour(typed: str) -> datetime:
    """The hour, in UTC, that a moment as browsers write it is in."""
    try:
        moment = datetime.fromisoformat(typed)
    except ValueError:
        raise InvalidRequest(FieldError("/hour", "Enter day and time, such as 2026-03-14 09:00, in UTC.")) from None
    return moment.replace(minute=0, second=0, microsecond=0, tzinfo=UTC)


def _shown(row: Row, *, exact: bool) -> dict[str, Any]:
    network = row["network"]
    return {
        "reason": REASONS.get(row["reason"], row["reason"]),
        "network": network if exact or not network else mask_ip(network),
        **{name: row[name] for name in ("tenant", "name", "count", "first_at", "last_at")},
    }
