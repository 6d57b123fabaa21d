"""A member's own password on a page: the API's `PUT /api/v1/auth/password`."""

from typing import Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth.sessions import LiveSession
from app.errors import Forbidden, GatehouseError, InvalidRequest, NotFound
from app.web.browser import TENANT, Answer, leave, visitor
from app.web.services import AnyRequest, services
from tenant_portal.dashboard import session_of
from tenant_portal.forms import form_page


@get("/t/{slug:str}/password")
async def show(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Asks for the new one. An organisation itself has none: 404."""
    session = await session_of(request, slug)
    return await _page(request, session) if session else leave(request, f"/t/{slug}/login")


@post("/t/{slug:str}/password")
async def change(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Sets it, soon after a sign-in; all other sessions end."""
    form = await TENANT.form(request, "password")
    session = await session_of(request, slug)
    if session is None:
        return leave(request, f"/t/{slug}/login")
    _check_member(session)
    try:
        await services(request).own_account.set_password(session, form.get("password", ""), visitor(request))
    except (InvalidRequest, Forbidden) as refusal:
        return await _page(request, session, refusal)
    return leave(request, f"/t/{slug}/?done=password-changed")


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (show, change)


def _check_member(session: LiveSession) -> None:
    if session.subject.kind != "member":
        raise NotFound


async def _page(request: AnyRequest, session: LiveSession, refusal: GatehouseError | None = None) -> Answer:
    _check_member(session)
    return await form_page(
        request,
        "tenant/password.html",
        refusal,
        tenant={"slug": session.tenant_slug, "name": session.tenant_name},
        stale=isinstance(refusal, Forbidden),
        values={},
    )
