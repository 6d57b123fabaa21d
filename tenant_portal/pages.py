"""Signing in on pages: name the organisation, ask for a code, type it. The same verbs as the API's.

Before sign-in every well-formed slug gets the same pages, headers and cookies, whoever it belongs to.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from litestar import Router, get, post
from litestar.params import FromPath

from app.auth.asking import Issued, Realm, read_identifier
from app.errors import CodeExpired, FieldError, GatehouseError, InvalidRequest, StalePage
from app.web.browser import TENANT, Answer, is_htmx, redirect, visitor
from app.web.forms import Form
from app.web.repeats import FormsOnce
from app.web.sentences import notice
from app.web.services import AnyRequest, services
from app.web.texts import UNDETERMINED, choose_language
from tenant_portal import (
    arrival,
    consent_pages,
    contact_pages,
    dashboard,
    factor_pages,
    password_pages,
    registration_pages,
    stale,
)
from tenant_portal.arrival import arrive, destination, permitted, wanted_of
from tenant_portal.forms import ASKING, CHECKING, code_page, delivery_part, form_page
from tenant_portal.returns import RESET
from tenant_portal.texts import NOTICES
from tenant_portal.visits import Pending, device_token, forget_challenge, question_of

_SHORT_NAME: Final = "Use lower-case letters, digits and hyphens, such as acme-energy."
_WHO: Final = "Enter your email or phone number."
_MEMBER: Final = ("identifier", "password", "purpose", "next")


@get("/")
async def front() -> Answer:
    """The front door."""
    return redirect("/login")


@get("/login")
async def start(request: AnyRequest) -> Answer:
    """Asks for the organisation; with DEFAULT_TENANT for the email or phone."""
    return await _start_page(request, {"next": wanted_of(request) or ""})


@post("/login")
async def choose(request: AnyRequest) -> Answer:
    """On to the organisation's page; with DEFAULT_TENANT a code is asked for at once."""
    default = services(request).settings.default_tenant
    if default is not None:
        form = await TENANT.form(request, *_MEMBER)
        try:
            if not form.get("identifier", "").strip():
                raise InvalidRequest(FieldError("/identifier", _WHO))
            return await _ask(request, default, form)
        except ASKING as refusal:
            return await _start_page(request, form, refusal)
    form = await TENANT.form(request, "slug", "next")
    slug = form.get("slug", "").strip()
    try:
        Realm.of(slug)
    except InvalidRequest:
        return await _start_page(request, form, InvalidRequest(FieldError("/slug", _SHORT_NAME)))
    wanted = form.get("next")
    return redirect(_login(slug) + (f"?{urlencode({'next': wanted})}" if wanted else ""))


@get("/t/{slug:str}/login")
async def sign_in(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Asks how to reach the person. Whoever is signed in already goes on."""
    Realm.of(slug)
    wanted = wanted_of(request)
    if request.query_params.get("done") == "ended":
        # Another process has found it; this one may not have heard of it yet.
        await TENANT.session_anew(request)
    session = await dashboard.session_of(request, slug)
    if session is not None:
        return redirect(destination(request, slug, wanted, session.subject.kind))
    return await _login_page(request, slug, {"next": wanted or ""})


@post("/t/{slug:str}/login")
async def ask(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Sends a code, or seems to; with the password, or a remembered device, that may be all it takes."""
    form = await TENANT.form(request, *_MEMBER, "channel")
    Realm.of(slug)
    try:
        return await _ask(request, slug, form)
    except ASKING as refusal:
        return await _login_page(request, slug, form, refusal)


@get("/t/{slug:str}/verify")
async def enter_code(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Asks for the code."""
    Realm.of(slug)
    pending = Pending.read(request, slug)
    if pending is None:
        return redirect(_login(slug))
    return await _verify_page(request, slug, pending)


@post("/t/{slug:str}/verify")
async def check_code(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Signs in with the code, or leads to the second step, or to the registration of whoever nobody knows."""
    form = await TENANT.form(request, "code", "remember_device")
    realm = Realm.of(slug)
    pending = Pending.read(request, slug)
    if pending is None:
        return redirect(_login(slug))
    try:
        outcome = await services(request).challenges.verify(
            realm,
            pending.challenge_id,
            form.get("code", ""),
            visitor(request),
            kind="browser",
            remember="remember_device" in form,
        )
    except CHECKING as refusal:
        return await _verify_page(request, slug, pending, refusal, form)
    return await arrive(request, outcome, pending.wanted, forget_challenge(request, slug))


@get("/t/{slug:str}/verify/status")
async def delivery_status(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """The live part of the verify page; a browser without htmx gets the whole."""
    Realm.of(slug)
    pending = Pending.read(request, slug)
    if pending is None or not is_htmx(request):
        return redirect(f"/t/{slug}/verify")
    channels = list(services(request).settings.providers)
    return await delivery_part(request, "tenant/verify.html", pending, slug=slug, channels=channels)


@post("/t/{slug:str}/resend")
async def resend(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """A new code for the same sign-in, perhaps another way."""
    form = await TENANT.form(request, "channel")
    realm = Realm.of(slug)
    pending = Pending.read(request, slug)
    if pending is None:
        return redirect(_login(slug))
    core = services(request)
    try:
        issued = await core.challenges.resend(
            realm,
            pending.challenge_id,
            visitor(request),
            channel=_channel(request, form),
            disclose=core.settings.otp_disclose_errors,
            device_token=device_token(request, slug),
        )
    except CHECKING as refusal:
        return await _verify_page(request, slug, pending, refusal)
    renewed = Pending.of(issued, core.clock(), pending.wanted)
    return redirect(f"/t/{slug}/verify?done=sent", [renewed.cookie(request, slug, issued.expires_in)])


ROUTES: Final = (
    Router(
        "/",
        route_handlers=[
            front,
            start,
            choose,
            sign_in,
            ask,
            enter_code,
            check_code,
            delivery_status,
            resend,
            *arrival.HANDLERS,
            *consent_pages.HANDLERS,
            *contact_pages.HANDLERS,
            *dashboard.HANDLERS,
            *factor_pages.HANDLERS,
            *password_pages.HANDLERS,
            *registration_pages.HANDLERS,
        ],
        middleware=[FormsOnce(TENANT.name, TENANT.prove)],
        exception_handlers={StalePage: stale.lead_on},
        include_in_schema=False,
    ),
)


def _login(slug: str) -> str:
    return f"/t/{slug}/login"


def _channel(request: AnyRequest, form: Form) -> str | None:
    """The channel that was chosen, or None for the usual one. Raises `InvalidRequest`."""
    channel = form.get("channel") or None
    if channel is not None and channel not in services(request).settings.providers:
        raise InvalidRequest(FieldError("/channel", "Choose one of the ways that are offered."))
    return channel


async def _ask(request: AnyRequest, slug: str, form: Form) -> Answer:
    core = services(request)
    identifier = form.get("identifier", "").strip() or None
    reset = form.get("purpose") == "reset"
    if reset and identifier is None:
        raise InvalidRequest(FieldError("/identifier", _WHO))
    # A password manager may have filled in what the person doesn't know.
    password = None if reset else form.get("password") or None
    channel = _channel(request, form)
    question = question_of(request, slug, *read_identifier(identifier), channel, str(reset))
    if password is None and await _is_on_its_way(request, slug, question):
        return redirect(f"/t/{slug}/verify?done=asked")
    outcome = await core.entrance.ask(
        Realm.of(slug),
        visitor(request),
        identifier=identifier,
        channel=channel,
        password=password,
        purpose="reset" if reset else "sign_in",
        locale=choose_language(request.headers.get("accept-language")) or UNDETERMINED,
        disclose=core.settings.otp_disclose_errors,
        device_token=device_token(request, slug),
        kind="browser",
    )
    wanted = RESET if reset else permitted(request, form.get("next"))
    if not isinstance(outcome, Issued):
        return await arrive(request, outcome, wanted)
    pending = Pending.of(outcome, core.clock(), wanted, question)
    return redirect(f"/t/{slug}/verify", [pending.cookie(request, slug, outcome.expires_in)])


async def _is_on_its_way(request: AnyRequest, slug: str, question: str) -> bool:
    """Whether this browser asked the same a moment ago (Back, or another tab): a second code would make the first one
    wrong. Once the cooldown is over, or where that code is worth nothing any more, it is a new wish.
    """
    core, pending = services(request), Pending.read(request, slug)
    if pending is None or pending.question != question or not pending.resend_in(core.clock()):
        return False
    try:
        status = await core.challenges.status(
            Realm.of(slug),
            pending.challenge_id,
            disclose=core.settings.otp_disclose_errors,
            device_token=device_token(request, slug),
        )
    except CodeExpired:
        return False
    return status.state in {"queued", "sent", "delivered"} and status.attempts_left > 0


async def _start_page(request: AnyRequest, values: dict[str, str], refusal: GatehouseError | None = None) -> Answer:
    default = services(request).settings.default_tenant
    return await form_page(request, "tenant/start.html", refusal, default_tenant=default, values=values)


async def _login_page(
    request: AnyRequest, slug: str, values: dict[str, str], refusal: GatehouseError | None = None
) -> Answer:
    channels = list(services(request).settings.providers)
    return await form_page(
        request,
        "tenant/login.html",
        refusal,
        slug=slug,
        channels=channels,
        values=values,
        notice=notice(request, NOTICES),
    )


async def _verify_page(
    request: AnyRequest,
    slug: str,
    pending: Pending,
    refusal: GatehouseError | None = None,
    form: Mapping[str, str] | None = None,
) -> Answer:
    page = await code_page(
        request,
        "tenant/verify.html",
        pending,
        refusal,
        form,
        slug=slug,
        channels=list(services(request).settings.providers),
    )
    return page or redirect(f"/t/{slug}/", [forget_challenge(request, slug)])
