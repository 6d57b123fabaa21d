"""What an admin does to a member with one button: suspend, unlock, invite, let in, end sessions, export, erase."""

from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from admin_portal.desk import desk
from admin_portal.editing import version_of
from admin_portal.guards import MANAGER, OWNER, fresh, sign_in_address, signed_in
from admin_portal.member import address, page
from admin_portal.members import base_of
from admin_portal.views import Shown, show
from app.auth.links import LIFETIME
from app.errors import (
    AlreadyExists,
    ChannelUnavailable,
    EditConflict,
    Forbidden,
    InvalidRequest,
    RateLimited,
    TenantSuspended,
)
from app.members.model import Member
from app.web.browser import ADMIN, Answer, redirect, visitor
from app.web.problems import refuse
from app.web.sentences import FORM
from app.web.services import AnyRequest, services

_UNPROCESSABLE: Final = 422
_CONFLICT: Final = 412
# Why somebody can't be invited, in a sentence.
_NOT_INVITED: Final = (AlreadyExists, ChannelUnavailable, Forbidden, RateLimited, TenantSuspended)


@get("/tenants/{slug:str}/members/{member_id:uuid}/suspend", opt=MANAGER)
async def ask_to_suspend(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """What suspending does."""
    return await _suspend_page(request, slug, member_id)


@post("/tenants/{slug:str}/members/{member_id:uuid}/suspend", opt=MANAGER)
async def suspend(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """They sign in no more. Whoever was asked about somebody who has changed since is asked again."""
    form = await ADMIN.form(request, "version")
    if not fresh(request):
        return _sign_in_again(slug, member_id)
    try:
        await _set_status(request, slug, member_id, "suspended", version_of(form))
    except EditConflict as refusal:
        return await _suspend_page(request, slug, member_id, refusal)
    return _back(slug, member_id, "member-suspended")


@post("/tenants/{slug:str}/members/{member_id:uuid}/resume", opt=MANAGER)
async def resume(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Sign-in works again."""
    await ADMIN.form(request)
    if not fresh(request):
        return _sign_in_again(slug, member_id)
    await _set_status(request, slug, member_id, "active")
    return _back(slug, member_id, "member-resumed")


@post("/tenants/{slug:str}/members/{member_id:uuid}/unlock", opt=MANAGER)
async def unlock(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Forgets wrong codes and passwords, lock and hourly quota of the member."""
    await ADMIN.form(request)
    own = desk(request)
    member = await own.members.get(slug, member_id)
    found = await own.unlocking.unlock(
        member.tenant_id, member.id, actor=signed_in(request).actor, client=visitor(request)
    )
    return _back(slug, member_id, "unlocked" if found else "not-locked", "standing")


@post("/tenants/{slug:str}/members/{member_id:uuid}/clear-failing", opt=MANAGER)
async def clear_failing(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Somebody knows that the contact works again."""
    await ADMIN.form(request)
    own = desk(request)
    member = await own.members.get(slug, member_id)
    cleared = await own.marks.clear(
        member.tenant_id, member.id, actor=signed_in(request).actor, client=visitor(request)
    )
    return _back(slug, member_id, "cleared" if cleared else "not-marked", "contact")


@post("/tenants/{slug:str}/members/{member_id:uuid}/invite", opt=MANAGER)
async def invite(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Sends a pending member the invitation again."""
    await ADMIN.form(request)
    own = desk(request)
    try:
        await own.members.invite(slug, member_id, actor=signed_in(request).actor, client=visitor(request))
    except _NOT_INVITED as refusal:
        tenant, member = await own.tenants.get(slug), await own.members.get(slug, member_id)
        status = refuse(refusal, services(request).settings).status
        return await page(request, tenant, member, status=status, errors={FORM: refusal.detail})
    return _back(slug, member_id, "member-invited", "invitation")


@post("/tenants/{slug:str}/members/{member_id:uuid}/sign-in-link", opt=MANAGER)
async def make_link(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Shows a link that signs the member in once; it is stored nowhere, so it is shown this once."""
    await ADMIN.form(request)
    if not fresh(request):
        return _sign_in_again(slug, member_id)
    own = desk(request)
    tenant, member = await own.tenants.get(slug), await own.members.get(slug, member_id)
    if {tenant.status, member.status} != {"active"}:
        raise InvalidRequest(detail="Only active members of active tenants can be let in.")
    token = await own.links.create(tenant.id, ("member", member.id), signed_in(request).actor, visitor(request))
    return await show(
        request,
        "admin/tenant_link.html",
        tenant=Shown.of(tenant, masked=True),
        member=member.masked(),
        link=f"{services(request).settings.public_url}/t/{tenant.slug}/link/{token}",
        minutes=int(LIFETIME.total_seconds() // 60),
    )


@post("/tenants/{slug:str}/members/{member_id:uuid}/sessions/{session_id:uuid}/end", opt=MANAGER)
async def end_session(
    request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID], session_id: FromPath[UUID]
) -> Answer:
    """Ends one session of the member."""
    await ADMIN.form(request)
    member = await desk(request).members.get(slug, member_id)
    await desk(request).tenant_sessions.end(
        member.tenant_id, session_id, member.id, actor=signed_in(request).actor, client=visitor(request)
    )
    return _back(slug, member_id, "session", "sessions")


@get("/tenants/{slug:str}/members/{member_id:uuid}/sessions/end-all", opt=MANAGER)
async def ask_to_end_all(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """What ending them all does."""
    member = await desk(request).members.get(slug, member_id)
    return await _confirm(
        request,
        slug,
        member,
        "sessions/end-all",
        heading=f"End all sessions of {member.name}?",
        what="They have to sign in again on every device.",
        label="End all sessions",
    )


@post("/tenants/{slug:str}/members/{member_id:uuid}/sessions/end-all", opt=MANAGER)
async def end_all_sessions(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Ends all sessions of the member."""
    await ADMIN.form(request)
    member = await desk(request).members.get(slug, member_id)
    await desk(request).tenant_sessions.end_all(
        member.tenant_id, member.id, actor=signed_in(request).actor, client=visitor(request)
    )
    return _back(slug, member_id, "sessions", "sessions")


@post("/tenants/{slug:str}/members/{member_id:uuid}/export", opt=MANAGER)
async def export(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """All that is kept of the person, as a file for them. Audited."""
    await ADMIN.form(request)
    if not fresh(request):
        return _sign_in_again(slug, member_id)
    found = await desk(request).members.export(slug, member_id, actor=signed_in(request).actor, client=visitor(request))
    body = msgspec.json.format(msgspec.json.encode(found), indent=2)
    headers = {"Content-Disposition": 'attachment; filename="member.json"'}
    return Response(body, media_type="application/json", headers=headers)


@get("/tenants/{slug:str}/members/{member_id:uuid}/erase", opt=OWNER)
async def ask_to_erase(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """What erasing does, and whom: the name has to be typed."""
    if not fresh(request):
        return redirect(sign_in_address(f"{address(slug, member_id)}/erase", "again"))
    return await _erase_page(request, slug, await desk(request).members.get(slug, member_id), {}, {})


@post("/tenants/{slug:str}/members/{member_id:uuid}/erase", opt=OWNER)
async def erase(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Deletes all that is kept of the person."""
    form = await ADMIN.form(request, "name", "version")
    if not fresh(request):
        return redirect(sign_in_address(f"{address(slug, member_id)}/erase", "again"))
    members, version = desk(request).members, version_of(form)
    member = await members.get(slug, member_id)
    if member.version == version and form.get("name", "").strip().casefold() != member.name.casefold():
        errors = {"name": "Type the name as it stands above, so that nobody else is erased."}
        return await _erase_page(request, slug, member, form, errors)
    actor, client = signed_in(request).actor, visitor(request)
    try:
        await members.erase(slug, member_id, expected_version=version, actor=actor, client=client)
    except EditConflict as refusal:
        member = await members.get(slug, member_id)
        return await _erase_page(request, slug, member, {}, {FORM: refusal.detail}, status=_CONFLICT)
    return redirect(f"{base_of(slug)}?done=member-erased")


HANDLERS: Final = (
    ask_to_suspend,
    suspend,
    resume,
    unlock,
    clear_failing,
    invite,
    make_link,
    end_session,
    ask_to_end_all,
    end_all_sessions,
    export,
    ask_to_erase,
    erase,
)


async def _suspend_page(request: AnyRequest, slug: str, member_id: UUID, refusal: EditConflict | None = None) -> Answer:
    member = await desk(request).members.get(slug, member_id)
    return await _confirm(
        request,
        slug,
        member,
        "suspend",
        heading=f"Suspend {member.name}?",
        what="They are signed out everywhere, open codes stop working, and they stay out until somebody resumes them.",
        label="Suspend the member",
        status=_CONFLICT if refusal else 200,
        version=member.version,
        errors={FORM: refusal.detail} if refusal else {},
    )


async def _confirm(request: AnyRequest, slug: str, member: Member, step: str, **context: Any) -> Answer:
    there = address(slug, member.id)
    trail = [(base_of(slug), "Members"), (there, member.name)]
    context |= {"section": "tenants", "action": f"{there}/{step}", "back": there, "trail": trail}
    return await show(request, "admin/confirm.html", **context)


async def _set_status(request: AnyRequest, slug: str, member_id: UUID, status: str, version: int | None = None) -> None:
    actor, client = signed_in(request).actor, visitor(request)
    await desk(request).members.update(
        slug, member_id, {"status": status}, expected_version=version, actor=actor, client=client
    )


async def _erase_page(
    request: AnyRequest,
    slug: str,
    member: Member,
    values: dict[str, Any],
    errors: dict[str, str],
    *,
    status: int = _UNPROCESSABLE,
) -> Answer:
    return await show(
        request,
        "admin/member_erase.html",
        status=status if errors else 200,
        tenant=Shown.of(await desk(request).tenants.get(slug), masked=True),
        member=member.masked(),
        values=values,
        errors=errors,
    )


def _sign_in_again(slug: str, member_id: UUID) -> Answer:
    return redirect(sign_in_address(address(slug, member_id), "again"))


def _back(slug: str, member_id: UUID, done: str, anchor: str = "") -> Answer:
    return redirect(f"{address(slug, member_id)}?done={done}" + (f"#{anchor}" if anchor else ""))
