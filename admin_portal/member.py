"""One member: everything about them on one page, their three groups of fields edited in place."""

import asyncio
from typing import Any, Final
from uuid import UUID

from litestar import get, post
from litestar.params import FromPath

from admin_portal.desk import desk
from admin_portal.editing import LOOK_BACK, conflicting, plain, theirs, untouched, version_of
from admin_portal.guards import MANAGER, VIEWER, fresh, sign_in_address, signed_in
from admin_portal.members import base_of, count_rows
from admin_portal.tenant import next_code_at
from admin_portal.views import Shown, change_line, errors_of, lines, mark_lines, session_lines, show
from app.audit.advice import Situation, advise
from app.errors import AlreadyExists, ContactMissing, EditConflict, GatehouseError, InvalidRequest
from app.members.invitations import may_register
from app.members.model import Member
from app.tenants.model import Tenant
from app.web.browser import ADMIN, Answer, redirect, visitor
from app.web.forms import Form
from app.web.queries import reads
from app.web.services import AnyRequest, services

# The fields of each group, first the one that a fault without a field of its own is shown at.
GROUPS: Final = {
    "contact": ("email", "phone_number", "preferred_method"),
    "details": ("name", "locale"),
    "access": ("codes_enabled", "must_verify"),
}
_LABELS: Final = {
    "email": "Email",
    "phone_number": "Phone number",
    "preferred_method": "Codes go by",
    "name": "Name",
    "locale": "Language",
    "codes_enabled": "Code after the password",
    "must_verify": "Must prove new addresses",
}
_SWITCHES: Final = {"yes": True, "no": False}
_CLEARED: Final = {"email": None, "phone_number": None, "preferred_method": None, "locale": "en"}
_SHOWN_ENTRIES: Final = 12
_SHOWN_CHANGES: Final = 8
_UNPROCESSABLE: Final = 422
_CONFLICT: Final = 412


@get("/tenants/{slug:str}/members/{member_id:uuid}", opt=VIEWER | reads("edit"))
async def member_page(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """GET /admin/tenants/{slug}/members/{id}?edit=contact|details|access."""
    editing = request.query_params.get("edit")
    if editing not in GROUPS or not signed_in(request).may_edit:
        editing = None
    if editing is not None and not fresh(request):
        return redirect(sign_in_address(f"{address(slug, member_id)}?edit={editing}", "again"))
    member = await desk(request).members.get(slug, member_id)
    return await page(request, await desk(request).tenants.get(slug), member, editing=editing)


@post("/tenants/{slug:str}/members/{member_id:uuid}/contact", opt=MANAGER)
async def save_contact(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Changes where their codes go."""
    return await _save(request, slug, member_id, "contact")


@post("/tenants/{slug:str}/members/{member_id:uuid}/details", opt=MANAGER)
async def save_details(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Changes name and language."""
    return await _save(request, slug, member_id, "details")


@post("/tenants/{slug:str}/members/{member_id:uuid}/access", opt=MANAGER)
async def save_access(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Changes what their sign-in asks for."""
    return await _save(request, slug, member_id, "access")


HANDLERS: Final = (member_page, save_contact, save_details, save_access)


def address(slug: str, member_id: UUID) -> str:
    """A member's page."""
    return f"{base_of(slug)}/{member_id}"


async def page(
    request: AnyRequest,
    tenant: Tenant,
    member: Member,
    *,
    status: int = 200,
    editing: str | None = None,
    values: dict[str, Any] | None = None,
    errors: dict[str, str] | None = None,
) -> Answer:
    """The member's page, perhaps with a group being edited; `values` are what was typed, otherwise what is stored."""
    own, core, admin = desk(request), services(request), signed_in(request)
    about, sessions, second_factor, standing, marks = await asyncio.gather(
        own.members.about(member, sees_contacts=admin.may_edit),
        own.tenant_sessions.list(tenant.id, member.id),
        core.factors.has_app(tenant.id, "member", member.id),
        own.unlocking.standing(tenant.id, member.id),
        own.marks.of(tenant.id, member.id),
    )
    next_code = next_code_at(core.settings, tenant, standing)
    situation = Situation(
        who="member",
        suspended=member.status == "suspended",
        reachable=bool(member.email or member.phone_number),
        locked=standing.locked_until is not None,
        next_code_at=next_code,
        marked=[mark.channel for mark in marks],
    )
    stored = {name: plain(getattr(member, name)) for name in GROUPS.get(editing or "", ())}
    return await show(
        request,
        "admin/member.html",
        status=status,
        tenant=Shown.of(tenant, masked=True),
        member=member if admin.may_edit else member.masked(),
        may_erase=admin.may_erase,
        editing=editing,
        before=stored,
        values=values if values is not None else stored,
        errors=errors or {},
        sessions=session_lines(sessions, member.id),
        entries=lines(about.entries[:_SHOWN_ENTRIES]),
        changes=[change_line(change) for change in about.changes[:_SHOWN_CHANGES]],
        counts=count_rows(about.counts),
        second_factor=second_factor,
        standing=standing,
        next_code_at=next_code,
        marks=mark_lines(marks),
        advice=advise(about.happenings, situation),
        may_register=may_register(tenant.status, tenant.policy.get("registration")),
    )


async def _save(request: AnyRequest, slug: str, member_id: UUID, group: str) -> Answer:
    """Saves a group. A change of other fields meanwhile is none of ours; of the same fields somebody has to decide."""
    names = GROUPS[group]
    form = await ADMIN.form(request, "version", *names, *(f"before_{name}" for name in names))
    if not fresh(request):
        return redirect(sign_in_address(f"{address(slug, member_id)}?edit={group}", "again"))
    members, admin, client = desk(request).members, signed_in(request), visitor(request)
    typed = {name: form.get(name, "").strip() for name in names}
    wanted = {name: _wanted(name, value) for name, value in typed.items()}
    version = version_of(form)
    while True:
        try:
            await members.update(slug, member_id, wanted, expected_version=version, actor=admin.actor, client=client)
        except EditConflict:
            member = await members.get(slug, member_id)
            if untouched(member, form, names):
                version = member.version
                continue
            return await _conflict_page(request, slug, member, group, typed, form)
        except (InvalidRequest, AlreadyExists, ContactMissing) as refusal:
            return await _refused(request, slug, member_id, group, {**form, **typed}, refusal)
        return redirect(f"{address(slug, member_id)}?done=member-{group}#{group}")


async def _refused(
    request: AnyRequest, slug: str, member_id: UUID, group: str, values: dict[str, Any], refusal: GatehouseError
) -> Answer:
    own = desk(request)
    tenant, member = await own.tenants.get(slug), await own.members.get(slug, member_id)
    errors = errors_of(refusal, GROUPS[group], values.get("preferred_method", ""))
    return await page(request, tenant, member, status=_UNPROCESSABLE, editing=group, values=values, errors=errors)


async def _conflict_page(
    request: AnyRequest, slug: str, member: Member, group: str, typed: dict[str, str], form: Form
) -> Answer:
    own = desk(request)
    changes = await own.members.history(member, sees_contacts=True, limit=LOOK_BACK)
    return await show(
        request,
        "admin/tenant_conflict.html",
        status=_CONFLICT,
        tenant=Shown.of(await own.tenants.get(slug), masked=True),
        member=member,
        group=group,
        fields=conflicting(member, form, typed, GROUPS[group], _LABELS),
        errors={},
        **theirs(changes, member, form, GROUPS[group]),
    )


def _wanted(name: str, value: str) -> object:
    """As the service takes it: an emptied contact is cleared, an emptied language is the usual one."""
    if name in GROUPS["access"]:
        return _SWITCHES.get(value, value)
    return _CLEARED.get(name, value) if value == "" else value
