"""One tenant: everything about it on one page, its three groups of fields edited in place."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from litestar import get, post
from litestar.params import FromPath

from admin_portal.desk import Desk, desk
from admin_portal.editing import LOOK_BACK, conflicting, theirs, untouched, version_of
from admin_portal.guards import MANAGER, VIEWER, fresh, sign_in_address, signed_in
from admin_portal.views import (
    COUNT_AT_MOST,
    Shown,
    change_line,
    errors_of,
    lines,
    mark_lines,
    masked_contacts,
    session_lines,
    show,
    ways,
)
from app.audit.advice import Advice, Situation, advise
from app.audit.timeline import Story
from app.auth.unlocking import Standing
from app.delivery.marks import Mark
from app.errors import ChannelUnavailable, ContactMissing, EditConflict, GatehouseError, InvalidRequest, NotFound
from app.settings import Settings
from app.tenants.model import Tenant
from app.tenants.test_message import TestMessage, TestOutcome
from app.web.browser import ADMIN, Answer, redirect, visitor
from app.web.forms import Form
from app.web.queries import reads
from app.web.services import AnyRequest, services

Fields: TypeAlias = dict[str, str]

# The fields of each group, first the one that a fault without a field of its own is shown at.
GROUPS: Final = {
    "contact": ("email", "phone_number"),
    "delivery": ("otp_delivery_method", "fallback_methods"),
    "details": ("name", "locale", "timezone"),
}
_LABELS: Final = {
    "email": "Email",
    "phone_number": "Phone number",
    "otp_delivery_method": "Codes go by",
    "fallback_methods": "If that fails, try",
    "name": "Name",
    "locale": "Language",
    "timezone": "Time zone",
}
_SHOWN_ENTRIES: Final = 12
# Advice looks further back than the page shows.
_READ_ENTRIES: Final = 30
_SHOWN_CHANGES: Final = 5
_HOURLY_MOST: Final = 10
_UNPROCESSABLE: Final = 422
_CONFLICT: Final = 412


@get("/tenants/{slug:str}", opt=VIEWER | reads("edit", "test"))
async def tenant_page(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """GET /admin/tenants/{slug}?edit=contact|delivery|details&test={id}."""
    editing = request.query_params.get("edit")
    if editing not in GROUPS or not signed_in(request).may_edit:
        editing = None
    if editing == "contact" and not fresh(request):
        return redirect(sign_in_address(f"{_base(slug)}?edit=contact", "again"))
    tenant = await desk(request).tenants.get(slug)
    return await page(request, tenant, editing=editing, test=_test_id(request.query_params.get("test")))


@post("/tenants/{slug:str}/contact", opt=MANAGER)
async def save_contact(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Changes where codes go. Needs a young sign-in; what was typed is not kept over the next one, and that is said."""
    form = await _edit_form(request, "contact")
    if not fresh(request):
        return redirect(sign_in_address(f"{_base(slug)}?edit=contact", "again"))
    return await _save(request, slug, "contact", form)


@post("/tenants/{slug:str}/delivery", opt=MANAGER)
async def save_delivery(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Changes the way codes go."""
    return await _save(request, slug, "delivery", await _edit_form(request, "delivery"))


@post("/tenants/{slug:str}/details", opt=MANAGER)
async def save_details(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Changes name, language and time zone."""
    return await _save(request, slug, "details", await _edit_form(request, "details"))


HANDLERS: Final = (tenant_page, save_contact, save_delivery, save_details)


async def page(
    request: AnyRequest,
    tenant: Tenant,
    *,
    status: int = 200,
    editing: str | None = None,
    values: dict[str, Any] | None = None,
    errors: dict[str, str] | None = None,
    test: UUID | None = None,
    layout: str = "admin/layout.html",
) -> Answer:
    """The tenant's page, perhaps with a group being edited; `values` are what was typed, otherwise what is stored."""
    own, now, settings = desk(request), services(request).clock(), services(request).settings
    may_edit = signed_in(request).may_edit
    # First: a test that is over by now is in everything that is read after it, and nothing is looked at again.
    outcome = await _outcome(own, tenant, test)
    story, sessions, history, standing, second_factor, marks = await asyncio.gather(
        own.timeline.read(
            tenant.id, masked_contacts(tenant), sees_contacts=signed_in(request).may_edit, limit=_READ_ENTRIES
        ),
        own.tenant_sessions.list(tenant.id),
        own.tenants.history(tenant.slug, sees_contacts=signed_in(request).may_edit, limit=_SHOWN_CHANGES),
        own.unlocking.standing(tenant.id, tenant.id),
        services(request).factors.has_app(tenant.id, "tenant", tenant.id),
        own.marks.of(tenant.id, tenant.id),
    )
    members = await own.members.count(tenant.slug, at_most=COUNT_AT_MOST)
    return await show(
        request,
        "admin/tenant.html",
        status=status,
        tenant=Shown.of(tenant, masked=not may_edit),
        methods=ways(settings, failing={mark.channel for mark in marks}),
        marks=mark_lines(marks),
        editing=editing,
        values=values if values is not None else stored(tenant, editing),
        errors=errors or {},
        sessions=session_lines(sessions, tenant.id),
        entries=lines(story.entries[:_SHOWN_ENTRIES]),
        advice=advice_for(settings, tenant, story, standing, marks),
        changes=[change_line(change) for change in history.entries],
        test=outcome,
        second_factor=second_factor,
        members=members,
        members_is_least=members >= COUNT_AT_MOST,
        locked=next_code_at(settings, tenant, standing) is not None,
        now=now,
        layout=layout,
    )


def advice_for(
    settings: Settings, tenant: Tenant, story: Story, standing: Standing, marks: Sequence[Mark]
) -> Advice | None:
    """What to do next about this tenant."""
    return advise(
        story.happenings,
        Situation(
            suspended=tenant.status != "active",
            reachable=not tenant.contact_missing,
            locked=standing.locked_until is not None,
            next_code_at=next_code_at(settings, tenant, standing),
            marked=[mark.channel for mark in marks],
        ),
    )


def stored(tenant: Tenant, group: str | None) -> dict[str, Any]:
    """The group's fields for its form, as they are stored."""
    return {name: getattr(tenant, name) for name in GROUPS.get(group or "", ())}


def next_code_at(settings: Settings, tenant: Tenant, standing: Standing) -> datetime | None:
    """When the next code may be asked for; None: now."""
    limit = min(settings.otp_hourly_limit, tenant.policy.get("hourly_limit", _HOURLY_MOST))
    return standing.next_code_at(limit)


async def _edit_form(request: AnyRequest, group: str) -> Form:
    names = [name for name in GROUPS[group] if name != "fallback_methods"]
    before = [f"before_{name}" for name in GROUPS[group]]
    repeatable = ("fallback_methods",) if group == "delivery" else ()
    return await ADMIN.form(request, "version", *names, *before, repeatable=repeatable)


async def _save(request: AnyRequest, slug: str, group: str, form: Form) -> Answer:
    """Saves a group. A change of other fields meanwhile is none of ours; of the same fields somebody has to decide."""
    tenants, admin, client = desk(request).tenants, signed_in(request), visitor(request)
    typed = _typed(form, group)
    wanted = _wanted(typed)
    version = version_of(form)
    tenant = None
    while True:
        try:
            await tenants.update(slug, wanted, expected_version=version, actor=admin.actor, client=client)
        except EditConflict:
            tenant = await tenants.get(slug)
            if untouched(tenant, form, GROUPS[group]):
                version = tenant.version
                continue
            return await _conflict_page(request, tenant, group, typed, form)
        except (InvalidRequest, ContactMissing, ChannelUnavailable) as refusal:
            return await _refused(request, await tenants.get(slug), group, form, typed, refusal)
        return redirect(f"{_base(slug)}?done={group}#{group}")


async def _refused(
    request: AnyRequest, tenant: Tenant, group: str, form: Form, typed: dict[str, Any], refusal: GatehouseError
) -> Answer:
    method = typed.get("otp_delivery_method") or tenant.otp_delivery_method
    values = {**form, **typed}
    errors = errors_of(refusal, GROUPS[group], method)
    return await page(request, tenant, status=_UNPROCESSABLE, editing=group, values=values, errors=errors)


async def _conflict_page(request: AnyRequest, tenant: Tenant, group: str, typed: dict[str, Any], form: Form) -> Answer:
    history = await desk(request).tenants.history(tenant.slug, sees_contacts=True, limit=LOOK_BACK)
    return await show(
        request,
        "admin/tenant_conflict.html",
        status=_CONFLICT,
        tenant=Shown.of(tenant, masked=False),
        group=group,
        fields=conflicting(tenant, form, typed, GROUPS[group], _LABELS),
        errors={},
        **theirs(history.entries, tenant, form, GROUPS[group]),
    )


def _typed(form: Form, group: str) -> dict[str, Any]:
    """The group's fields as they were sent; fallbacks come several times, or joined from the conflict page."""
    typed: dict[str, Any] = {name: form.get(name, "").strip() for name in GROUPS[group] if name != "fallback_methods"}
    if group == "delivery":
        sent = ",".join(form.many.get("fallback_methods", []))
        typed["fallback_methods"] = [method for method in sent.split(",") if method]
    return typed


def _wanted(typed: dict[str, Any]) -> dict[str, Any]:
    """As the service takes them: an empty contact is cleared, an emptied language or time zone is the usual one."""
    usual = {"email": None, "phone_number": None, "locale": "en", "timezone": "UTC"}
    return {name: usual.get(name, value) if value == "" else value for name, value in typed.items()}


def _test_id(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


async def _outcome(own: Desk, tenant: Tenant, test: UUID | None) -> dict[str, Any] | None:
    """The test message that the page watches."""
    if test is None:
        return None
    try:
        return shown_test(test, await own.tenants.test_outcome(TestMessage(tenant.id, test, "")))
    except NotFound:
        return None


def shown_test(test: UUID, outcome: TestOutcome) -> dict[str, Any]:
    """A test message for its badge; `live` while there is more to come."""
    badge = {"sending": "queued", "void": "expired"}.get(outcome.state, outcome.state)
    detail = outcome.error or (f"taken by {outcome.provider}" if outcome.provider else None)
    return {
        "id": test,
        "state": badge,
        "channel": outcome.channel,
        "detail": detail,
        "live": not outcome.settled,
    }


def _base(slug: str) -> str:
    return f"/admin/tenants/{slug}"
