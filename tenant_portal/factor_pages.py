"""Second factors on pages: the step that a sign-in may have after the code, and looking after the factor."""

from typing import Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth.asking import Realm
from app.web.browser import TENANT, Answer, redirect
from app.web.factor_pages import FactorPages, factor_handlers
from app.web.second_step import Finished
from app.web.services import AnyRequest
from tenant_portal.arrival import enter, second_step
from tenant_portal.dashboard import session_of, to_login


@get("/t/{slug:str}/second-factor")
async def ask(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Asks for a code of the app or a backup code, or to set an app up first."""
    Realm.of(slug)
    return await second_step(slug).show(request) or redirect(f"/t/{slug}/login")


@post("/t/{slug:str}/second-factor")
async def check(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Signs in with it."""
    Realm.of(slug)
    return await _go_on(request, slug, await second_step(slug).check(request))


@post("/t/{slug:str}/second-factor/enrol")
async def check_enrolment(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Signs in with the first code of a new app."""
    Realm.of(slug)
    return await _go_on(request, slug, await second_step(slug).check_enrolment(request))


async def _go_on(request: AnyRequest, slug: str, step: Finished | Answer | None) -> Answer:
    if step is None:
        return redirect(f"/t/{slug}/login")
    if not isinstance(step, tuple):
        return step
    signed_in, wanted, enrolled = step
    to = f"/t/{signed_in.tenant_slug}/factors?done=enrolled" if enrolled and not wanted else None
    return await enter(request, signed_in, wanted, second_step(slug).forget(request), to=to)


async def _pages(request: AnyRequest) -> FactorPages | Answer:
    slug = request.path_params["slug"]
    session = await session_of(request, slug)
    if session is None:
        return to_login(request, slug)
    context: dict[str, object] = {"tenant": {"slug": session.tenant_slug, "name": session.tenant_name}}
    return FactorPages(TENANT, f"/t/{slug}/factors", "tenant/factors.html", session, context)


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (
    ask,
    check,
    check_enrolment,
    *factor_handlers("/t/{slug:str}/factors", _pages),
)
