"""Admins sign in: an email, a code, or a link of `gatehouse admin login-link` when nothing else works."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from litestar import get, post
from litestar.datastructures import Cookie
from litestar.params import FromPath

from admin_portal import factors
from admin_portal.desk import desk
from admin_portal.guards import ANYONE, HOME, SIGN_IN, own_path
from app.auth.asking import Issued, Realm
from app.errors import CodeExpired, GatehouseError, InvalidCode, InvalidRequest, RateLimited, TooManyAttempts
from app.tenants.rules import normalise_email
from app.web.browser import ADMIN, Answer, jar_of, redirect, visitor
from app.web.problems import refuse
from app.web.queries import reads
from app.web.sentences import FORM, errors_of
from app.web.services import AnyRequest, services
from app.web.texts import UNDETERMINED, choose_language

_CHALLENGE: Final = "admin_challenge"
_PENDING: Final = re.compile(r"([A-Za-z0-9_-]{22})\.([0-9]{10})\.([0-9]{10})")
# The cookie outlives its code, so that the page can say that the code has expired.
_KEPT_AFTER_EXPIRY: Final = 3600
_CODE: Final = f"{SIGN_IN}/code"
_WHY: Final = {
    "again": "For this, sign in again: your last sign-in is more than an hour ago. Nothing was saved yet.",
    "factor": "To change your second factor, sign in again: your last sign-in is more than 10 minutes ago.",
    "due": "A second factor is asked for here now. Sign in again: it is the step after the code.",
    "ended": "You were signed out. Sign in to go on where you were.",
    "idle": "You were signed out after 15 minutes without use, or 12 hours in all. Sign in to go on where you were.",
    "unsaved": "You were signed out. What you sent was not saved: sign in, and do it again.",
    "idle-unsaved": "You were signed out after 15 minutes without use, or 12 hours in all. What you sent was not "
    "saved: sign in, and do it again.",
    "out": "You are signed out.",
}
# Reasons to ask somebody who is signed in.
_PROVE: Final = ("again", "factor")
# Reasons that another page found.
_OVER: Final = ("ended", "idle", "unsaved", "idle-unsaved")


@dataclass(frozen=True, slots=True)
class Pending:
    """A sign-in under way: plain text in a cookie, about the browser's own challenge; the core believes none of it."""

    challenge_id: str
    resend_at: int
    expires_at: int
    """Both in seconds since the epoch."""

    @classmethod
    def of(cls, issued: Issued, now: datetime) -> "Pending":
        """The sign-in that a code was just sent for."""
        at = int(now.timestamp())
        return cls(issued.challenge_id, at + issued.resend_in, at + issued.expires_in)

    @classmethod
    def read(cls, request: AnyRequest) -> "Pending | None":
        """The one that this browser has under way, or None."""
        found = _PENDING.fullmatch(jar_of(request).read(request, _CHALLENGE) or "")
        return cls(found[1], int(found[2]), int(found[3])) if found else None

    def cookie(self, request: AnyRequest, issued: Issued) -> Cookie:
        """The cookie that keeps it."""
        value = f"{self.challenge_id}.{self.resend_at}.{self.expires_at}"
        seconds = issued.expires_in + _KEPT_AFTER_EXPIRY
        return jar_of(request).make(_CHALLENGE, value, seconds=seconds, same_site="strict")


@get("/sign-in", opt=ANYONE | reads("next", "why"))
async def ask_email(request: AnyRequest) -> Answer:
    """Asks for the email. Whoever is signed in and wasn't asked to prove it again goes on."""
    wanted, why = own_path(request.query_params.get("next")), request.query_params.get("why")
    # Who was sent here is believed to be signed out: this process may not have heard of it yet.
    session = await (ADMIN.session_anew(request) if why in _OVER else ADMIN.session(request))
    if session is not None and why not in _PROVE:
        return redirect(wanted)
    values = {"email": session.email or ""} if session else {}
    return await _email_page(request, values, wanted, why=_WHY.get(why or ""))


@post("/sign-in", opt=ANYONE)
async def send_code(request: AnyRequest) -> Answer:
    """Sends a code to an admin, and answers alike for everybody else."""
    form = await ADMIN.form(request, "email", "next")
    wanted = own_path(form.get("next"))
    core = services(request)
    try:
        issued = await core.challenges.request(
            Realm.admins(),
            visitor(request),
            identifier=normalise_email(form.get("email", ""), "/email"),
            locale=choose_language(request.headers.get("accept-language")) or UNDETERMINED,
            device_token=jar_of(request).read(request, factors.DEVICE),
        )
    except (InvalidRequest, RateLimited) as refusal:
        return await _email_page(request, form, wanted, refusal)
    pending = Pending.of(issued, core.clock())
    return redirect(_code_address(wanted), [pending.cookie(request, issued)])


@get("/sign-in/code", opt=ANYONE | reads("next"))
async def ask_code(request: AnyRequest) -> Answer:
    """Asks for the code."""
    pending = Pending.read(request)
    if pending is None:
        return redirect(SIGN_IN)
    return await _code_page(request, pending, own_path(request.query_params.get("next")))


@post("/sign-in/code", opt=ANYONE)
async def check_code(request: AnyRequest) -> Answer:
    """Signs in with the code, or leads to the second step."""
    form = await ADMIN.form(request, "code", "next")
    wanted = own_path(form.get("next"))
    pending = Pending.read(request)
    if pending is None:
        return redirect(SIGN_IN)
    typed = form.get("code", "")
    try:
        outcome = await services(request).challenges.verify(
            Realm.admins(), pending.challenge_id, typed, visitor(request), kind="browser"
        )
    except (InvalidRequest, InvalidCode, CodeExpired, TooManyAttempts) as refusal:
        return await _code_page(request, pending, wanted, refusal, typed)
    return await factors.arrive(request, outcome, wanted, jar_of(request).drop(_CHALLENGE, same_site="strict"))


@post("/sign-in/resend", opt=ANYONE)
async def resend(request: AnyRequest) -> Answer:
    """A new code for the same sign-in."""
    form = await ADMIN.form(request, "next")
    wanted = own_path(form.get("next"))
    pending = Pending.read(request)
    if pending is None:
        return redirect(SIGN_IN)
    core = services(request)
    try:
        issued = await core.challenges.resend(
            Realm.admins(),
            pending.challenge_id,
            visitor(request),
            device_token=jar_of(request).read(request, factors.DEVICE),
        )
    except (RateLimited, CodeExpired, TooManyAttempts) as refusal:
        return await _code_page(request, pending, wanted, refusal)
    renewed = Pending.of(issued, core.clock())
    return redirect(_code_address(wanted), [renewed.cookie(request, issued)])


@get("/link/{token:str}", opt=ANYONE)
async def show_link(request: AnyRequest, token: FromPath[str]) -> Answer:
    """A button, because mail scanners follow links and would use this one up."""
    return await ADMIN.page(request, "admin/link.html", token=token, errors={})


@post("/link/{token:str}", opt=ANYONE)
async def use_link(request: AnyRequest, token: FromPath[str]) -> Answer:
    """Signs in with the link."""
    await ADMIN.form(request)
    try:
        outcome = await desk(request).links.use(token, visitor(request))
        return await factors.arrive(request, outcome, HOME)
    except CodeExpired as refusal:
        said = refuse(refusal, services(request).settings)
        errors = {FORM: said.detail}
        return await ADMIN.page(request, "admin/link.html", status=said.status, token=None, errors=errors)


@post("/sign-out", opt=ANYONE)
async def sign_out(request: AnyRequest) -> Answer:
    """Ends the session."""
    await ADMIN.form(request)
    return await ADMIN.exit(request, f"{SIGN_IN}?why=out")


HANDLERS: Final = (ask_email, send_code, ask_code, check_code, resend, show_link, use_link, sign_out)


def _code_address(wanted: str) -> str:
    return f"{_CODE}?{urlencode({'next': wanted})}" if wanted != HOME else _CODE


async def _email_page(
    request: AnyRequest,
    values: dict[str, str],
    wanted: str,
    refusal: GatehouseError | None = None,
    why: str | None = None,
) -> Answer:
    notice = {"kind": "info", "text": why} if why else None
    return await _page(request, "admin/sign_in.html", refusal, values=values, wanted=wanted, notice=notice)


async def _code_page(
    request: AnyRequest, pending: Pending, wanted: str, refusal: GatehouseError | None = None, typed: str = ""
) -> Answer:
    clock = services(request).clock()
    now = int(clock.timestamp())
    if refusal is None and pending.expires_at <= now:
        refusal = CodeExpired()
    wait = refusal.retry_after if isinstance(refusal, RateLimited) else pending.resend_at - now
    return await _page(
        request,
        "admin/sign_in_code.html",
        refusal,
        over=isinstance(refusal, CodeExpired | TooManyAttempts),
        expires_at=clock + timedelta(seconds=pending.expires_at - now),
        resend_in=max(0, wait),
        # A wrong code is typed anew; one that only lacks a digit is mended.
        values={"code": typed if isinstance(refusal, InvalidRequest) else ""},
        wanted=wanted,
    )


async def _page(request: AnyRequest, template: str, refusal: GatehouseError | None, **context: Any) -> Answer:
    settings = services(request).settings
    context["environment_label"] = settings.environment
    if refusal is None:
        return await ADMIN.page(request, template, errors={}, **context)
    said = refuse(refusal, settings)
    return await ADMIN.page(
        request, template, status=said.status, headers=said.headers, errors=errors_of(refusal), **context
    )
