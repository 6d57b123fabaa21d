"""Second factors on pages: the step that a sign-in may have after the code, and looking after the factor."""

from typing import Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth.challenges import Realm
from app.web.browser import TENANT, Answer, redirect
from app.web.factor_pages import FactorPages
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


@get("/t/{slug:str}/factors")
async def overview(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """What there is."""
    pages = await _pages(request, slug)
    return await pages.show(request) if pages else to_login(request, slug)


@post("/t/{slug:str}/factors/totp")
async def enrol(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Begins to set an app up."""
    pages = await _pages(request, slug)
    return await pages.enrol(request) if pages else to_login(request, slug)


@post("/t/{slug:str}/factors/totp/confirm")
async def confirm(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Puts it in force."""
    pages = await _pages(request, slug)
    return await pages.confirm(request) if pages else to_login(request, slug)


@get("/t/{slug:str}/factors/totp/remove")
async def ask_removal(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Says what removing does."""
    pages = await _pages(request, slug)
    return await pages.ask_removal(request) if pages else to_login(request, slug)


@post("/t/{slug:str}/factors/totp/remove")
async def remove(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Takes app and backup codes away."""
    pages = await _pages(request, slug)
    return await pages.remove(request) if pages else to_login(request, slug)


@post("/t/{slug:str}/factors/backup-codes")
async def backup_codes(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """New ones, shown this once."""
    pages = await _pages(request, slug)
    return await pages.backup_codes(request) if pages else to_login(request, slug)


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (
    ask,
    check,
    check_enrolment,
    overview,
    enrol,
    confirm,
    ask_removal,
    remove,
    backup_codes,
)


async def _go_on(request: AnyRequest, slug: str, step: Finished | Answer | None) -> Answer:
    if step is None:
        return redirect(f"/t/{slug}/login")
    if not isinstance(step, tuple):
        return step
    signed_in, wanted, enrolled = step
    to = f"/t/{signed_in.tenant_slug}/factors?done=enrolled" if enrolled and not wanted else None
    return await enter(request, signed_in, wanted, second_step(slug).forget(request), to=to)


async def _pages(request: AnyRequest, slug: str) -> FactorPages | None:
    session = await session_of(request, slug)
    if session is None:
        return None
    context: dict[str, object] = {"tenant": {"slug": session.tenant_slug, "name": session.tenant_name}}
    return FactorPages(TENANT, f"/t/{slug}/factors", "tenant/factors.html", session, context)
