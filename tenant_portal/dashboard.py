"""Signed in: where codes go, which devices are signed in or known, what happened, and the way out."""

from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth.asking import Realm
from app.auth.devices import read_device_token
from app.auth.sessions import LiveSession
from app.errors import NotFound
from app.web.browser import TENANT, Answer, jar_of, lacks_factor, leave, visitor
from app.web.cookies import per_tenant
from app.web.sentences import notice
from app.web.services import AnyRequest, services
from app.web.useragents import describe
from tenant_portal.contacts import kinds
from tenant_portal.cursors import read_cursor, show_cursor
from tenant_portal.returns import own_page
from tenant_portal.texts import NOTICES, entry
from tenant_portal.visits import device_token

_ENTRIES: Final = 20


async def session_of(request: AnyRequest, slug: str) -> LiveSession | None:
    """The browser's session if it is this tenant's. Raises `InvalidRequest` for what is no slug."""
    Realm.of(slug)
    session = await TENANT.session(request)
    return session if session is not None and session.tenant_slug == slug else None


async def member_session(request: AnyRequest, slug: str) -> LiveSession | None:
    """The same for pages that only members have. Raises `NotFound` for an organisation's own session."""
    session = await session_of(request, slug)
    if session is not None and session.subject.kind != "member":
        raise NotFound
    return session


def to_login(request: AnyRequest, slug: str) -> Answer:
    """Where whoever isn't signed in begins. Whoever was, or lacks a second factor by now, is told so, and comes back to
    the page they were on.
    """
    due = lacks_factor(request)
    if not due and not jar_of(request).sent(request, per_tenant(TENANT.cookie, slug)):
        return leave(request, f"/t/{slug}/login")
    step = request.scope["path"].removeprefix(f"/t/{slug}/")
    page = own_page(step) if request.method == "GET" or due else None
    done = "factor-due" if due else "ended" if request.method == "GET" else "unsaved"
    return leave(request, f"/t/{slug}/login?{urlencode({'done': done} | ({'next': page} if page else {}))}")


@get("/t/{slug:str}")
async def overview(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """The dashboard."""
    session = await session_of(request, slug)
    if session is None:
        return to_login(request, slug)
    core = services(request)
    # What another process has just changed is shown at once.
    member = await core.own_account.member(session) if session.subject.kind == "member" else None
    cursor = request.query_params.get("before")
    known = read_device_token(core.ring, slug, device_token(request, slug), core.clock())
    # One more than is shown tells whether there is another page.
    found = await core.sessions.events(session, before=read_cursor(cursor) if cursor else None, limit=_ENTRIES + 1)
    return await TENANT.page(
        request,
        "tenant/dashboard.html",
        tenant={"slug": session.tenant_slug, "name": session.tenant_name},
        subject=session.subject,
        contacts=[
            {
                "name": kind.name,
                "field": kind.field,
                "value": kind.masked(member or session),
                "verified": kind.verified(member) if member else None,
                "changeable": member is not None and bool(kind.channels),
            }
            for kind in kinds(request)
        ],
        sessions=[
            {
                "id": row["id"],
                "device": row["device_name"] or describe(row["user_agent"]),
                "place": row["ip"] or "unknown address",
                "started_at": row["created_at"],
                "last_seen_at": row["seen_at"],
                "current": row["id"] == session.session_id,
            }
            for row in await core.sessions.list(session)
        ],
        devices=[
            {
                "id": row["id"],
                "device": row["name"] or describe(row["user_agent"]),
                "place": row["ip"] or "unknown address",
                "last_seen_at": row["seen_at"],
                "remembered_until": row["remembered_until"],
                "current": known is not None and row["id"] == known.device_id,
            }
            for row in await core.sessions.devices(session)
        ],
        entries=[entry(event) for event in found[:_ENTRIES]],
        second_factor={"totp": session.totp, "backup_codes": session.backup_codes},
        now=core.clock(),
        older=show_cursor(found[_ENTRIES - 1]) if len(found) > _ENTRIES else None,
        newest=cursor is None,
        notice=notice(request, NOTICES),
    )


@post("/t/{slug:str}/logout")
async def sign_out(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Ends this session; another tenant's is left alone. `next` names the page that wants a fresh sign-in."""
    form = await TENANT.form(request, "next")
    session = await TENANT.unproven_session(request)
    if session is None or session.tenant_slug != slug:
        return to_login(request, slug)
    page = own_page(form.get("next"))
    to = urlencode({"done": "signed-out"} | ({"next": page} if page else {}))
    return await TENANT.exit(request, f"/t/{slug}/login?{to}")


@post("/t/{slug:str}/sessions/{session_id:uuid}/end")
async def end_session(request: AnyRequest, slug: FromPath[str], session_id: FromPath[UUID]) -> Answer:
    """Ends one of the person's own sessions."""
    await TENANT.form(request)
    session = await session_of(request, slug)
    if session is None:
        return to_login(request, slug)
    await services(request).sessions.end(session, session_id, visitor(request))
    return leave(request, f"/t/{slug}/?done=session-ended")


@post("/t/{slug:str}/sessions/end-others")
async def end_others(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Leaves only this one."""
    await TENANT.form(request)
    session = await session_of(request, slug)
    if session is None:
        return to_login(request, slug)
    await services(request).sessions.end_others(session, visitor(request))
    return leave(request, f"/t/{slug}/?done=others-ended")


@post("/t/{slug:str}/devices/{device_id:uuid}/forget")
async def forget_device(request: AnyRequest, slug: FromPath[str], device_id: FromPath[UUID]) -> Answer:
    """Makes a known device a stranger again."""
    await TENANT.form(request)
    session = await session_of(request, slug)
    if session is None:
        return to_login(request, slug)
    await services(request).sessions.revoke_device(session, device_id)
    return leave(request, f"/t/{slug}/?done=device-forgotten#devices")


@post("/t/{slug:str}/devices/forget-all")
async def forget_devices(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """The same for all of them, this one too; whoever is signed in stays so."""
    await TENANT.form(request)
    session = await session_of(request, slug)
    if session is None:
        return to_login(request, slug)
    await services(request).sessions.revoke_devices(session)
    return leave(request, f"/t/{slug}/?done=devices-forgotten")


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (
    overview,
    sign_out,
    end_session,
    end_others,
    forget_device,
    forget_devices,
)
