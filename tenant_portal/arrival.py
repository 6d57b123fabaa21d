"""Where a sign-in begins without a code, by an admin's link, and where one leads: to a second step, to registration,
the dashboard or a front end.
"""

from typing import Final
from urllib.parse import urlencode

from litestar import get, post
from litestar.datastructures import Cookie
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth.asking import Realm
from app.auth.links import Links
from app.auth.signing_in import HalfSignIn, Outcome, SignIn
from app.errors import CodeExpired, NotFound
from app.web.browser import TENANT, Answer, redirect, visitor
from app.web.cookies import per_tenant
from app.web.problems import refuse
from app.web.second_step import SecondStep
from app.web.sentences import errors_of
from app.web.services import AnyRequest, services
from tenant_portal.dashboard import session_of
from tenant_portal.returns import allowed_return, own_page
from tenant_portal.visits import keep_registration, remember_device


def permitted(request: AnyRequest, wanted: str | None) -> str | None:
    """Where a browser wants to go after sign-in, if it may: a URL of RETURN_URLS, or the name of a page of ours."""
    return own_page(wanted) or allowed_return(wanted, services(request).settings.return_urls)


def wanted_of(request: AnyRequest) -> str | None:
    """The same of an address's `next`."""
    return permitted(request, request.query_params.get("next"))


def destination(request: AnyRequest, slug: str, wanted: str | None, subject_kind: str = "member") -> str:
    """Where a fresh sign-in leads: to the front end or the page that it came from, or the dashboard."""
    if own_page(wanted):
        return f"/t/{slug}/{own_page(wanted, subject_kind) or ''}"
    target = allowed_return(wanted, services(request).settings.return_urls)
    return f"/t/{slug}/continue?{urlencode({'next': target})}" if target else f"/t/{slug}/"


def registration(slug: str, wanted: str | None) -> str:
    """Where this tenant's newcomers register, and go on from to where they wanted."""
    return f"/t/{slug}/register" + (f"?{urlencode({'next': wanted})}" if wanted else "")


def second_step(slug: str) -> SecondStep:
    """Where this tenant's people finish a half sign-in."""
    address = f"/t/{slug}/second-factor"
    return SecondStep(TENANT, per_tenant("half", slug), address, "tenant/second_factor.html", {"slug": slug})


async def arrive(request: AnyRequest, outcome: Outcome, wanted: str | None, *cookies: Cookie) -> Answer:
    """Where a proven code, password or link leads: inside, to the second step, or to registration."""
    if isinstance(outcome, HalfSignIn):
        if outcome.next == "register":
            return redirect(registration(outcome.tenant_slug, wanted), [keep_registration(request, outcome), *cookies])
        return await second_step(outcome.tenant_slug).begin(request, outcome, wanted, cookies)
    return await enter(request, outcome, wanted, *cookies)


async def enter(
    request: AnyRequest, signed_in: SignIn, wanted: str | None, *cookies: Cookie, to: str | None = None
) -> Answer:
    """Gives the browser its session, makes it a known device, and sends it on."""
    slug = signed_in.tenant_slug
    if signed_in.device_token:
        cookies += (remember_device(request, slug, signed_in.device_token),)
    return await TENANT.enter(
        request, signed_in, to or destination(request, slug, wanted, signed_in.subject.kind), cookies
    )


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
        outcome = await Links(core.db, core.sessions, core.clock).use(token, visitor(request))
        return await arrive(request, outcome, None)
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
    target = allowed_return(request.query_params.get("next"), services(request).settings.return_urls)
    if target is None:
        raise NotFound
    return await TENANT.page(request, "tenant/continue.html", slug=slug, target=target)


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (show_link, use_link, go_on)
