"""The members of a tenant: found, added, their codes switched on or off for many at once."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from litestar import get, post
from litestar.params import FromPath

from admin_portal.desk import desk
from admin_portal.guards import MANAGER, VIEWER, fresh, sign_in_address, signed_in
from admin_portal.views import COUNT_AT_MOST, Shown, errors_of, show
from app.errors import AlreadyExists, ContactMissing, GatehouseError, InvalidRequest
from app.members.model import Member
from app.members.rules import STATUSES
from app.members.search import Filters
from app.members.stats import SignInCounts
from app.tenants.model import Tenant
from app.web.browser import ADMIN, Answer, redirect, visitor
from app.web.forms import Form
from app.web.queries import reads
from app.web.sentences import FORM
from app.web.services import AnyRequest

PAGE: Final = 25
_SAMPLE: Final = 5
_NEW: Final = ("name", "email", "phone_number", "preferred_method", "locale", "status")
_SWITCH: Final = ("codes", "of", "q", "status")
_SPAN_WORDS: Final = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}
_UNPROCESSABLE: Final = 422


@dataclass(frozen=True, slots=True)
class Choice:
    """What the list shows, as its URL says. Words it doesn't know count for nothing: people edit URLs."""

    q: str
    status: str

    @classmethod
    def of(cls, query: Any) -> "Choice":
        """What these fields ask for."""
        status = query.get("status", "")
        return cls(query.get("q", "").strip(), status if status in STATUSES else "")

    def filters(self, *, contacts: bool) -> Filters:
        """As the service takes it, for somebody who may (not) see contacts."""
        return Filters(self.q, self.status or None, contacts=contacts)

    def page(self, slug: str, cursor: str | None) -> str | None:
        """The address of another page of the same list."""
        if cursor is None:
            return None
        chosen = {name: value for name, value in asdict(self).items() if value}
        return f"{base_of(slug)}?{urlencode({**chosen, 'cursor': cursor})}"


@get("/tenants/{slug:str}/members", opt=VIEWER | reads("q", "status", "cursor"))
async def member_list(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """GET /admin/tenants/{slug}/members?q=&status=&cursor=."""
    return await _list_page(request, await desk(request).tenants.get(slug), Choice.of(request.query_params))


@get("/tenants/{slug:str}/members/new", opt=MANAGER)
async def new_member(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """The empty form."""
    tenant = await desk(request).tenants.get(slug)
    if not fresh(request):
        return redirect(sign_in_address(f"{base_of(slug)}/new", "again"))
    return await _new_page(request, tenant, {"status": "active"})


@post("/tenants/{slug:str}/members/new", opt=MANAGER)
async def add_member(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Adds a member; what is refused comes back as it was typed."""
    form = await ADMIN.form(request, *_NEW)
    if not fresh(request):
        return redirect(sign_in_address(f"{base_of(slug)}/new", "again"))
    typed = {name: value.strip() for name, value in form.items()}
    # An empty field is not filled in, it isn't a wish for nothing.
    values = {name: value for name, value in typed.items() if value}
    members = desk(request).members
    try:
        member = await members.create(slug, values, actor=signed_in(request).actor, client=visitor(request))
    except (InvalidRequest, AlreadyExists, ContactMissing) as refusal:
        return await _new_page(request, await desk(request).tenants.get(slug), typed, refusal)
    return redirect(f"{base_of(slug)}/{member.id}?done=member-added")


@get("/tenants/{slug:str}/members/codes", opt=MANAGER | reads("codes", "of", "q", "status", repeatable="member"))
async def ask_to_switch(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """GET ?codes=on|off&of=ticked|found&member=&q=&status=: whom it makes a difference to, before it is done."""
    tenant = await desk(request).tenants.get(slug)
    if not fresh(request):
        return redirect(sign_in_address(base_of(slug), "again"))
    query = request.query_params
    return await _switch_page(request, tenant, _Switch.of(query, query.getall("member", [])))


@post("/tenants/{slug:str}/members/codes", opt=MANAGER)
async def switch_codes(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Switches them, if it is still as many members as the page said."""
    form: Form = await ADMIN.form(request, *_SWITCH, "count", repeatable=("member",))
    if not fresh(request):
        return redirect(sign_in_address(base_of(slug), "again"))
    tenant = await desk(request).tenants.get(slug)
    switch = _Switch.of(form, form.many.get("member", []))
    count, _ = await _concerned(request, tenant, switch)
    if form.get("count") != str(count):
        return await _switch_page(request, tenant, switch, meanwhile=True)
    await desk(request).members.switch_codes(
        slug,
        switch.on,
        only=switch.ticked,
        found=switch.found,
        actor=signed_in(request).actor,
        client=visitor(request),
    )
    return redirect(f"{base_of(slug)}?done=codes-{'on' if switch.on else 'off'}")


HANDLERS: Final = (member_list, new_member, add_member, ask_to_switch, switch_codes)


def base_of(slug: str) -> str:
    """The address of a tenant's members."""
    return f"/admin/tenants/{slug}/members"


def count_rows(counts: Sequence[SignInCounts]) -> list[dict[str, Any]]:
    """Spans of time for the table of figures."""
    return [{**asdict(span), "label": _SPAN_WORDS[span.name], "success_rate": span.success_rate} for span in counts]


@dataclass(frozen=True, slots=True)
class _Switch:
    """Codes on or off, for those who are ticked (None: for all who are found)."""

    on: bool
    choice: Choice
    ticked: Sequence[UUID] | None

    @classmethod
    def of(cls, fields: Any, ticked: Sequence[str]) -> "_Switch":
        """Raises `InvalidRequest` for what no page of ours sends."""
        if fields.get("codes") not in {"on", "off"} or fields.get("of") not in {"ticked", "found"}:
            raise InvalidRequest(detail="The page was not complete. Load it again.")
        try:
            ids = [UUID(text) for text in ticked]
        except ValueError:
            raise InvalidRequest(detail="The page was not complete. Load it again.") from None
        if len(ids) > PAGE:
            raise InvalidRequest(detail="More members are ticked than a page has.")
        only = ids if fields["of"] == "ticked" else None
        return cls(fields["codes"] == "on", Choice.of(fields), only)

    @property
    def found(self) -> Filters:
        """Those whom it makes a difference to, among all who are found by a manager, who alone may switch."""
        among = Filters(contacts=True) if self.ticked is not None else self.choice.filters(contacts=True)
        return replace(among, codes_enabled=not self.on)


async def _concerned(request: AnyRequest, tenant: Tenant, switch: _Switch) -> tuple[int, Sequence[Member]]:
    """How many members a switch makes a difference to, and some of them. Raises `NotFound` for a ticked stranger."""
    members = desk(request).members
    if switch.ticked is not None:
        ticked = [await members.get(tenant.slug, member_id) for member_id in dict.fromkeys(switch.ticked)]
        differing = [member for member in ticked if member.codes_enabled != switch.on]
        return len(differing), differing[:_SAMPLE]
    count = await members.count(tenant.slug, switch.found, at_most=10 * COUNT_AT_MOST)
    return count, (await members.page(tenant.slug, switch.found, limit=_SAMPLE)).members


async def _switch_page(request: AnyRequest, tenant: Tenant, switch: _Switch, *, meanwhile: bool = False) -> Answer:
    if switch.ticked == []:
        errors = {FORM: "Nobody is ticked. Tick members in the list, or choose all who are found."}
        return await _list_page(request, tenant, switch.choice, errors)
    count, sample = await _concerned(request, tenant, switch)
    errors = {FORM: "Meanwhile it is another number of members. Look at it again."} if meanwhile else {}
    return await show(
        request,
        "admin/member_codes.html",
        status=_UNPROCESSABLE if errors else 200,
        tenant=Shown.of(tenant, masked=True),
        on=switch.on,
        choice=asdict(switch.choice),
        ticked=switch.ticked,
        count=count,
        sample=sample,
        errors=errors,
    )


async def _list_page(
    request: AnyRequest, tenant: Tenant, choice: Choice, errors: dict[str, str] | None = None
) -> Answer:
    members, may_edit = desk(request).members, signed_in(request).may_edit
    filters = choice.filters(contacts=may_edit)
    cursor = request.query_params.get("cursor")
    page, everybody, counts = await asyncio.gather(
        members.page(tenant.slug, filters, cursor=cursor, limit=PAGE),
        members.count(tenant.slug, at_most=1),
        members.stats(tenant.slug),
    )
    # Searching all of them a second time would cost as much again.
    whole = cursor is None and page.next is None
    total = len(page.members) if whole else await members.count(tenant.slug, filters, at_most=COUNT_AT_MOST)
    return await show(
        request,
        "admin/members.html",
        status=_UNPROCESSABLE if errors else 200,
        tenant=Shown.of(tenant, masked=True),
        filters=asdict(choice),
        members=page.members,
        total=total,
        total_is_least=total >= COUNT_AT_MOST,
        any=everybody > 0,
        counts=count_rows(counts),
        pager={"previous": choice.page(tenant.slug, page.previous), "next": choice.page(tenant.slug, page.next)},
        errors=errors or {},
    )


async def _new_page(
    request: AnyRequest, tenant: Tenant, values: dict[str, Any], refusal: GatehouseError | None = None
) -> Answer:
    errors = errors_of(refusal, _NEW, values.get("preferred_method", "")) if refusal else {}
    return await show(
        request,
        "admin/member_new.html",
        status=_UNPROCESSABLE if errors else 200,
        tenant=Shown.of(tenant, masked=True),
        values=values,
        errors=errors,
    )
