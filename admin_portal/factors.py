"""Admins' second factors: the step that a sign-in has after the code, and looking after one's own."""

from typing import Final

from litestar import get, post
from litestar.datastructures import Cookie

from admin_portal.guards import (
    ANYONE,
    HOME,
    SIGN_IN,
    VIEWER,
    own_path,
    sign_in_address,
    signed_in,
)
from app.auth.devices import LIFETIME as DEVICE_LIFETIME
from app.auth.signing_in import HalfSignIn, Outcome, SignIn
from app.web.browser import ADMIN, Answer, jar_of, redirect
from app.web.factor_pages import FactorPages, factor_handlers
from app.web.queries import reads
from app.web.second_step import Finished, SecondStep
from app.web.services import AnyRequest, services

DEVICE: Final = "admin_device"
OWN: Final = "/admin/second-factor"


async def arrive(request: AnyRequest, outcome: Outcome, wanted: str, *cookies: Cookie) -> Answer:
    """Where a proven code or link leads: inside, or to the second step."""
    if isinstance(outcome, HalfSignIn):
        return await _step(request).begin(request, outcome, wanted, cookies)
    return await _enter(request, outcome, wanted, *cookies)


@get("/sign-in/second-factor", opt=ANYONE | reads("using"))
async def ask(request: AnyRequest) -> Answer:
    """Asks for a code of the app or a backup code, or to set an app up first."""
    return await _step(request).show(request) or redirect(SIGN_IN)


@post("/sign-in/second-factor", opt=ANYONE)
async def check(request: AnyRequest) -> Answer:
    """Signs in with it."""
    return await _go_on(request, await _step(request).check(request))


@post("/sign-in/second-factor/enrol", opt=ANYONE)
async def check_enrolment(request: AnyRequest) -> Answer:
    """Signs in with the first code of a new app."""
    return await _go_on(request, await _step(request).check_enrolment(request))


def _step(request: AnyRequest) -> SecondStep:
    context: dict[str, object] = {"environment_label": services(request).settings.environment}
    return SecondStep(ADMIN, "admin_half", f"{SIGN_IN}/second-factor", "admin/second_factor.html", context)


async def _go_on(request: AnyRequest, step: Finished | Answer | None) -> Answer:
    if step is None:
        return redirect(SIGN_IN)
    if not isinstance(step, tuple):
        return step
    entered, wanted, enrolled = step
    to = f"{OWN}?done=enrolled" if enrolled else own_path(wanted)
    return await _enter(request, entered, to, _step(request).forget(request))


async def _enter(request: AnyRequest, entered: SignIn, to: str, *cookies: Cookie) -> Answer:
    """Gives the browser its session, makes it a known device, and sends it on."""
    if entered.device_token:
        seconds = int(DEVICE_LIFETIME.total_seconds())
        cookies += (jar_of(request).make(DEVICE, entered.device_token, seconds=seconds, same_site="strict"),)
    return await ADMIN.enter(request, entered, to or HOME, cookies)


async def _pages(request: AnyRequest) -> FactorPages:
    session = signed_in(request).session
    context: dict[str, object] = {
        "admin": {"email": session.email, "role": session.role},
        "environment_label": services(request).settings.environment,
        "again": sign_in_address(OWN, "factor"),
    }
    return FactorPages(ADMIN, OWN, "admin/second_factor_own.html", session, context)


HANDLERS: Final = (ask, check, check_enrolment, *factor_handlers("/second-factor", _pages, VIEWER))
