"""A member's own password on a page: the API's `PUT /api/v1/auth/password`."""

from typing import Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth.sessions import LiveSession
from app.errors import Forbidden, GatehouseError, InvalidRequest
from app.web.browser import TENANT, Answer, leave, visitor
from app.web.services import AnyRequest, services
from tenant_portal.dashboard import member_session, to_login
from tenant_portal.forms import form_page


@get("/t/{slug:str}/password")
async def show(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Asks for the new one. An organisation itself has none: 404."""
    session = await member_session(request, slug)
    return await _page(request, session) if session else to_login(request, slug)


@post("/t/{slug:str}/password")
async def change(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Sets it, soon after a sign-in; all other sessions end."""
    form = await TENANT.form(request, "password")
    session = await member_session(request, slug)
    if session is None:
        return to_login(request, slug)
    try:
        await services(request).own_account.set_password(session, form.get("password", ""), visitor(request))
    except (InvalidRequest, Forbidden) as refusal:
        return await _page(request, session, refusal)
    return leave(request, f"/t/{slug}/?done=password-changed")


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (show, change)


async def _page(request: AnyRequest, session: LiveSession, refusal: GatehouseError | None = None) -> Answer:
    return await form_page(
        request,
        "tenant/password.html",
        refusal,
        tenant={"slug": session.tenant_slug, "name": session.tenant_name},
        stale=not services(request).own_account.is_recent(session),
        values={},
    )
