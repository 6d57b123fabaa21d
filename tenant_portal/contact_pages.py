"""A member's own email and phone on pages: the API's `PUT /api/v1/auth/contacts` and `…/confirm`.

An address that somebody else has gets the same pages as a free one; only no code comes.
"""

from collections.abc import Mapping
from typing import Any, Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth.asking import Realm
from app.auth.sessions import LiveSession
from app.errors import AlreadyExists, Forbidden, GatehouseError, NotFound
from app.web.browser import TENANT, Answer, is_htmx, leave, redirect, visitor
from app.web.services import AnyRequest, services
from app.web.texts import UNDETERMINED, choose_language
from tenant_portal.contacts import Kind, kind_named
from tenant_portal.dashboard import member_session, to_login
from tenant_portal.forms import ASKING, CHECKING, code_page, delivery_part, form_page
from tenant_portal.visits import Pending, forget_challenge

_CODE_PAGE: Final = "tenant/contact_code.html"


@get("/t/{slug:str}/contacts/{name:str}")
async def show(request: AnyRequest, slug: FromPath[str], name: FromPath[str]) -> Answer:
    """Asks for the new one, soon after a sign-in."""
    session = await member_session(request, slug)
    if session is None:
        return to_login(request, slug)
    return await _contact_page(request, session, kind_named(request, name))


@post("/t/{slug:str}/contacts/{name:str}")
async def claim(request: AnyRequest, slug: FromPath[str], name: FromPath[str]) -> Answer:
    """Sends a code there, or seems to."""
    form = await TENANT.form(request, "email", "phone_number")
    session = await member_session(request, slug)
    if session is None:
        return to_login(request, slug)
    kind, core = kind_named(request, name), services(request)
    form.only({kind.field})
    typed = form.get(kind.field, "").strip()
    try:
        issued = await core.own_account.claim_contact(
            session,
            visitor(request),
            email=typed if kind.field == "email" else None,
            phone_number=typed if kind.field == "phone_number" else None,
            locale=choose_language(request.headers.get("accept-language")) or UNDETERMINED,
        )
    except (*ASKING, Forbidden) as refusal:
        return await _contact_page(request, session, kind, refusal, form)
    pending = Pending.of(issued, core.clock())
    return redirect(
        f"/t/{slug}/contacts/{name}/confirm", [pending.cookie(request, slug, issued.expires_in, kind.cookie)]
    )


@get("/t/{slug:str}/contacts/{name:str}/confirm")
async def enter_code(request: AnyRequest, slug: FromPath[str], name: FromPath[str]) -> Answer:
    """Asks for the code."""
    session = await member_session(request, slug)
    if session is None:
        return to_login(request, slug)
    kind = kind_named(request, name)
    pending = Pending.read(request, slug, kind.cookie)
    if pending is None:
        return _to_start(slug, kind)
    if is_htmx(request):
        return await delivery_part(request, _CODE_PAGE, pending, concealed=True, **_about(session, kind))
    return await _code_page(request, session, kind, pending)


@post("/t/{slug:str}/contacts/{name:str}/confirm")
async def confirm(request: AnyRequest, slug: FromPath[str], name: FromPath[str]) -> Answer:
    """Makes the address the member's; the old one and the new one are told."""
    form = await TENANT.form(request, "code")
    session = await member_session(request, slug)
    if session is None:
        return to_login(request, slug)
    kind = kind_named(request, name)
    pending = Pending.read(request, slug, kind.cookie)
    if pending is None:
        return _to_start(slug, kind)
    try:
        await services(request).own_account.confirm_contact(
            session, pending.challenge_id, form.get("code", ""), visitor(request)
        )
    except (*CHECKING, AlreadyExists) as refusal:
        return await _code_page(request, session, kind, pending, refusal, form)
    return leave(request, f"/t/{slug}/?done={name}-confirmed#contacts", [forget_challenge(request, slug, kind.cookie)])


@post("/t/{slug:str}/contacts/{name:str}/resend")
async def resend(request: AnyRequest, slug: FromPath[str], name: FromPath[str]) -> Answer:
    """A new code to the same address, perhaps another way."""
    form = await TENANT.form(request, "channel")
    session = await member_session(request, slug)
    if session is None:
        return to_login(request, slug)
    kind, core = kind_named(request, name), services(request)
    pending = Pending.read(request, slug, kind.cookie)
    if pending is None:
        return _to_start(slug, kind)
    channel = form.get("channel") or None
    if channel is not None and channel not in kind.channels:
        raise NotFound
    try:
        issued = await core.challenges.resend(Realm.of(slug), pending.challenge_id, visitor(request), channel=channel)
    except CHECKING as refusal:
        return await _code_page(request, session, kind, pending, refusal)
    renewed = Pending.of(issued, core.clock())
    return redirect(
        f"/t/{slug}/contacts/{name}/confirm?done=sent",
        [renewed.cookie(request, slug, issued.expires_in, kind.cookie)],
    )


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (show, claim, enter_code, confirm, resend)


def _to_start(slug: str, kind: Kind) -> Answer:
    return redirect(f"/t/{slug}/contacts/{kind.name}")


async def _contact_page(
    request: AnyRequest,
    session: LiveSession,
    kind: Kind,
    refusal: GatehouseError | None = None,
    form: Mapping[str, str] | None = None,
) -> Answer:
    own_account = services(request).own_account
    member = await own_account.member(session)
    return await form_page(
        request,
        "tenant/contact.html",
        refusal,
        **_about(session, kind),
        current=kind.masked(member),
        verified=kind.verified(member),
        stale=not own_account.is_recent(session),
        values=dict(form or {}),
    )


async def _code_page(
    request: AnyRequest,
    session: LiveSession,
    kind: Kind,
    pending: Pending,
    refusal: GatehouseError | None = None,
    form: Mapping[str, str] | None = None,
) -> Answer:
    # Concealed, whatever the settings disclose: who sees how it really went sees whether the address is somebody's.
    page = await code_page(request, _CODE_PAGE, pending, refusal, form, concealed=True, **_about(session, kind))
    slug = session.tenant_slug
    return page or redirect(f"/t/{slug}/", [forget_challenge(request, slug, kind.cookie)])


def _about(session: LiveSession, kind: Kind) -> dict[str, Any]:
    tenant = {"slug": session.tenant_slug, "name": session.tenant_name}
    return {"slug": session.tenant_slug, "tenant": tenant, "kind": kind, "channels": kind.channels}
