"""What an admin does to a tenant with one button: suspend, resume, end sessions, unlock, let in, send a test."""

from typing import Final
from uuid import UUID

from litestar import get, post
from litestar.params import FromPath

from admin_portal.desk import desk
from admin_portal.guards import MANAGER, VIEWER, fresh, sign_in_address, signed_in
from admin_portal.tenant import page
from admin_portal.views import Shown, errors_of, show
from app.auth.links import LIFETIME
from app.errors import ChannelUnavailable, ContactMissing, InvalidRequest
from app.tenants.model import Tenant
from app.tenants.test_message import TestMessage
from app.web.browser import ADMIN, Answer, redirect, visitor
from app.web.services import AnyRequest, services

_UNPROCESSABLE: Final = 422
_POLL_SECONDS: Final = 0.1
_POLLS: Final = 30


@get("/tenants/{slug:str}/suspend", opt=MANAGER)
async def ask_reason(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """What suspending does, and why it is to be done."""
    return await _suspend_page(request, await desk(request).tenants.get(slug), {}, {})


@post("/tenants/{slug:str}/suspend", opt=MANAGER)
async def suspend(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Nobody of the tenant signs in any more. Colleagues must learn why, so a reason is needed here."""
    form = await ADMIN.form(request, "reason")
    tenants, reason = desk(request).tenants, form.get("reason", "").strip()
    if not reason:
        errors = {"reason": "Say why, so that your colleagues know."}
        return await _suspend_page(request, await tenants.get(slug), form, errors)
    try:
        await tenants.suspend(slug, reason, actor=signed_in(request).actor, client=visitor(request))
    except InvalidRequest as refusal:
        return await _suspend_page(request, await tenants.get(slug), form, errors_of(refusal, ("reason",), ""))
    return _back(slug, "suspended")


@post("/tenants/{slug:str}/resume", opt=MANAGER)
async def resume(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Sign-in works again. It lifts what somebody else may have put up against an attack: it needs a young sign-in."""
    await ADMIN.form(request)
    if not fresh(request):
        return redirect(sign_in_address(_base(slug), "again"))
    await desk(request).tenants.resume(slug, actor=signed_in(request).actor, client=visitor(request))
    return _back(slug, "resumed")


@post("/tenants/{slug:str}/unlock", opt=MANAGER)
async def unlock(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Forgets wrong codes, lock and hourly quota of the tenant's contact."""
    await ADMIN.form(request)
    own = desk(request)
    tenant = await own.tenants.get(slug)
    found = await own.unlocking.unlock(tenant.id, actor=signed_in(request).actor, client=visitor(request))
    return _back(slug, "unlocked" if found else "not-locked")


@post("/tenants/{slug:str}/clear-failing", opt=MANAGER)
async def clear_failing(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Somebody knows that the contact works again."""
    await ADMIN.form(request)
    own = desk(request)
    tenant = await own.tenants.get(slug)
    cleared = await own.marks.clear(tenant.id, actor=signed_in(request).actor, client=visitor(request))
    return _back(slug, "cleared" if cleared else "not-marked", "contact")


@post("/tenants/{slug:str}/sign-in-link", opt=MANAGER)
async def make_link(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Shows a link that signs the tenant in once; it is stored nowhere, so it is shown this once.

    It lets in as a changed contact would, so it needs a young sign-in as well.
    """
    await ADMIN.form(request)
    if not fresh(request):
        return redirect(sign_in_address(_base(slug), "again"))
    own = desk(request)
    tenant = await own.tenants.get(slug)
    if tenant.status != "active":
        raise InvalidRequest(detail="This tenant is suspended: resume it before letting somebody in.")
    token = await own.links.create(tenant.id, ("tenant", tenant.id), signed_in(request).actor, visitor(request))
    return await show(
        request,
        "admin/tenant_link.html",
        tenant=Shown.of(tenant, masked=True),
        link=f"{services(request).settings.public_url}/t/{tenant.slug}/link/{token}",
        minutes=int(LIFETIME.total_seconds() // 60),
    )


@post("/tenants/{slug:str}/sessions/{session_id:uuid}/end", opt=MANAGER)
async def end_session(request: AnyRequest, slug: FromPath[str], session_id: FromPath[UUID]) -> Answer:
    """Ends one session of the tenant."""
    await ADMIN.form(request)
    own = desk(request)
    tenant = await own.tenants.get(slug)
    await own.tenant_sessions.end(tenant.id, session_id, actor=signed_in(request).actor, client=visitor(request))
    return _back(slug, "session", "sessions")


@get("/tenants/{slug:str}/sessions/end-all", opt=MANAGER)
async def ask_to_end_all(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """What ending them all does."""
    tenant = await desk(request).tenants.get(slug)
    return await show(
        request,
        "admin/confirm.html",
        section="tenants",
        heading=f"End all sessions of {tenant.name}?",
        what="Everybody of this organisation has to sign in again with a new code.",
        action=f"{_base(slug)}/sessions/end-all",
        label="End all sessions",
        back=_base(slug),
        trail=[(_base(slug), tenant.name)],
    )


@post("/tenants/{slug:str}/sessions/end-all", opt=MANAGER)
async def end_all_sessions(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Ends all sessions of the tenant."""
    await ADMIN.form(request)
    own = desk(request)
    tenant = await own.tenants.get(slug)
    await own.tenant_sessions.end_all(tenant.id, actor=signed_in(request).actor, client=visitor(request))
    return _back(slug, "sessions", "sessions")


@post("/tenants/{slug:str}/test-message", opt=MANAGER)
async def send_test(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Sends a message without a code, whose way the page then shows."""
    form = await ADMIN.form(request, "channel")
    channel = form.get("channel") or None
    tenants = desk(request).tenants
    try:
        message = await tenants.send_test(
            slug, channel=channel, actor=signed_in(request).actor, client=visitor(request)
        )
    except (InvalidRequest, ContactMissing, ChannelUnavailable) as refusal:
        errors = {"channel": next(iter(errors_of(refusal, ("channel",), channel or "").values()))}
        return await page(request, await tenants.get(slug), status=_UNPROCESSABLE, errors=errors)
    if request.headers.get("hx-request") != "true":
        await _settled(request, message)
    return redirect(f"{_base(slug)}?test={message.id}#test")


@get("/tenants/{slug:str}/test-message/{message_id:uuid}", opt=VIEWER)
async def test_state(request: AnyRequest, slug: FromPath[str], message_id: FromPath[UUID]) -> Answer:
    """How the test stands, with every part of the page that tells of it; without htmx that is the page itself."""
    if request.headers.get("hx-request") != "true":
        return redirect(f"{_base(slug)}?test={message_id}#test")
    tenant = await desk(request).tenants.get(slug)
    # Who asks about another tenant's is told that there is none.
    await desk(request).tenants.test_outcome(TestMessage(tenant.id, message_id, ""))
    return await page(request, tenant, test=message_id, layout="admin/part.html")


HANDLERS: Final = (
    ask_reason,
    suspend,
    resume,
    unlock,
    clear_failing,
    make_link,
    end_session,
    ask_to_end_all,
    end_all_sessions,
    send_test,
    test_state,
)


async def _settled(request: AnyRequest, message: TestMessage) -> None:
    """Waits a moment for the outcome: a browser without JavaScript sees no more than the page it is led to."""
    for _ in range(_POLLS):
        if (await desk(request).tenants.test_outcome(message)).settled:
            return
        await services(request).sleep(_POLL_SECONDS)


async def _suspend_page(request: AnyRequest, tenant: Tenant, values: dict[str, str], errors: dict[str, str]) -> Answer:
    sessions = await desk(request).tenant_sessions.list(tenant.id)
    return await show(
        request,
        "admin/tenant_suspend.html",
        status=_UNPROCESSABLE if errors else 200,
        tenant=Shown.of(tenant, masked=True),
        session_count=len(sessions),
        values=values,
        errors=errors,
    )


def _back(slug: str, done: str, anchor: str = "") -> Answer:
    return redirect(f"{_base(slug)}?done={done}" + (f"#{anchor}" if anchor else ""))


def _base(slug: str) -> str:
    return f"/admin/tenants/{slug}"
