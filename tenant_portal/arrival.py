"""Where a sign-in begins without a code, by an admin's link, and where one leads: the dashboard or a front end."""

from typing import Final
from urllib.parse import urlencode

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth.challenges import Realm
from app.auth.links import Links
from app.errors import CodeExpired, NotFound
from app.web.browser import TENANT, Answer, redirect, visitor
from app.web.problems import refuse
from app.web.services import AnyRequest, services
from tenant_portal.dashboard import session_of
from tenant_portal.returns import allowed_return
from tenant_portal.texts import errors_of
from tenant_portal.visits import remember_device


def wanted_of(request: AnyRequest) -> str | None:
    """Where the browser should go after sign-in, if it may."""
    return allowed_return(request.query_params.get("next"), services(request).settings.return_urls)


def destination(request: AnyRequest, slug: str, wanted: str | None) -> str:
    """Where a fresh sign-in leads: to the front end it came from, or the dashboard."""
    target = allowed_return(wanted, services(request).settings.return_urls)
    return f"/t/{slug}/continue?{urlencode({'next': target})}" if target else f"/t/{slug}/"


@get("/t/{slug:str}/link/{token:str}")
async def show_link(request: AnyRequest, slug: FromPath[str], token: FromPath[str]) -> Answer:
    """A button, because mail scanners follow links and would use this one up."""
    Realm.of(slug)
    return await TENANT.page(request, "tenant/link.html", slug=slug, token=token, errors={})


@post("/t/{slug:str}/link/{token:str}")
async def use_link(request: AnyRequest, slug: FromPath[str], token: FromPath[str]) -> Answer:
    """Signs in with a link that an admin made."""
    await TENANT.form(request)
    Realm.of(slug)
    core = services(request)
    try:
        signed_in = await Links(core.db, core.sessions, core.clock).use(token, visitor(request))
        own = signed_in.tenant_slug
        cookies = [remember_device(request, own, signed_in.device_token)] if signed_in.device_token else []
        return await TENANT.enter(request, signed_in, f"/t/{own}/", cookies)
    except CodeExpired as refusal:
        said = refuse(refusal, core.settings)
        return await TENANT.page(
            request,
            "tenant/link.html",
            status=said.status,
            slug=slug,
            token=None,
            errors=errors_of(refusal),
        )


@get("/t/{slug:str}/continue")
async def go_on(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Leads to a front end of RETURN_URLS. `form-action` lets no form do so, hence this page in between."""
    if await session_of(request, slug) is None:
        return redirect(f"/t/{slug}/login")
    target = wanted_of(request)
    if target is None:
        raise NotFound
    return await TENANT.page(request, "tenant/continue.html", slug=slug, target=target)


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (show_link, use_link, go_on)
