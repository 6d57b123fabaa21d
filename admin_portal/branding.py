"""How a tenant's messages look: the form, and what the messages then are."""

from functools import lru_cache
from typing import Any, Final

from babel import Locale
from litestar import get, post
from litestar.params import FromPath
from litestar.response import Response

from admin_portal.desk import desk
from admin_portal.editing import version_of
from admin_portal.guards import MANAGER, VIEWER, fresh, sign_in_address, signed_in
from admin_portal.views import Shown, errors_of, show
from app.delivery.branding import Branding, Brandings, logo_address
from app.delivery.render import Renderer
from app.errors import EditConflict, InvalidRequest
from app.keys import KeyRing
from app.masking import mask_email
from app.tenants.model import Tenant
from app.web.browser import ADMIN, Answer, redirect, visitor
from app.web.queries import reads
from app.web.sentences import notice
from app.web.services import AnyRequest, services

# The fields of the form and what people call them.
LABELS: Final = {
    "sender_name": "Sender",
    "reply_to": "Answers go to",
    "colour": "Colour",
    "code_in_subject": "The code stands",
    "email_intro": "Own words in emails",
    "sms_text": "Own words of the SMS",
}
# The policy of all pages (see `app.web.edge`), and frames of our own: the preview.
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; frame-src 'self'"
)
# The mail has its style inline and is partly in a tenant's words: it gets an origin of its own and runs nothing.
_PREVIEW_HEADERS: Final = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
}
_NOTICES: Final = {"saved": "The look is saved. Messages have it within half a minute."}
_YES_OR_NO: Final = {"yes": True, "no": False}
_CONFLICT: Final = 412
_UNPROCESSABLE: Final = 422


@get("/tenants/{slug:str}/branding", opt=VIEWER | reads("locale"))
async def branding_page(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """GET /admin/tenants/{slug}/branding?locale=&done=saved."""
    tenant = await desk(request).tenants.get(slug)
    return await _page(request, tenant, await _stored(request, tenant))


@post("/tenants/{slug:str}/branding", opt=MANAGER)
async def save_branding(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Saves the whole form. What is refused comes back as it was typed, after a conflict beside what is stored."""
    form = await ADMIN.form(request, "version", *LABELS)
    version = version_of(form)
    typed = {name: form.get(name, "").strip() for name in LABELS}
    tenant = await desk(request).tenants.get(slug)
    # Where answers go is a contact: people write there what they would tell the organisation alone.
    if not fresh(request) and typed["reply_to"] != ((await _stored(request, tenant)).reply_to or ""):
        return redirect(sign_in_address(f"/admin/tenants/{tenant.slug}/branding", "again"))
    try:
        await Brandings(services(request).db).set(
            tenant.id,
            {**typed, "code_in_subject": _YES_OR_NO.get(typed["code_in_subject"])},
            now=services(request).clock(),
            actor=signed_in(request).actor,
            client=visitor(request),
            expected_version=version,
        )
    except EditConflict:
        return await _page(request, tenant, await _stored(request, tenant), _CONFLICT, typed)
    except InvalidRequest as refusal:
        errors = errors_of(refusal, tuple(LABELS), "")
        # The version that was shown: what was saved meanwhile must still be a conflict.
        shown = {**typed, "version": str(version)}
        return await _page(request, tenant, await _stored(request, tenant), _UNPROCESSABLE, shown, errors)
    return redirect(f"/admin/tenants/{tenant.slug}/branding?done=saved")


@get("/tenants/{slug:str}/branding/preview", opt=VIEWER | reads("locale"))
async def preview(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """The mail alone, as it is saved, for the frame in the page: GET …/branding/preview?locale=."""
    tenant = await desk(request).tenants.get(slug)
    renderer, branding = _renderer_of(request), await _stored(request, tenant)
    mail = renderer.preview(tenant, branding, "email", _locale(request, tenant, renderer), services(request).clock())
    return Response((mail.html or "").encode(), media_type="text/html", headers=_PREVIEW_HEADERS)


HANDLERS: Final = (branding_page, save_branding, preview)


async def _page(
    request: AnyRequest,
    tenant: Tenant,
    stored: Branding,
    status: int = 200,
    typed: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
) -> Answer:
    renderer, now = _renderer_of(request), services(request).clock()
    locale = _locale(request, tenant, renderer)
    mail, sms = (renderer.preview(tenant, stored, channel, locale, now) for channel in ("email", "sms"))
    values = _as_typed(stored)
    if values["reply_to"] and not signed_in(request).may_edit:
        values["reply_to"] = mask_email(values["reply_to"])
    return await show(
        request,
        "admin/branding.html",
        status=status,
        headers={"Content-Security-Policy": _PAGE_POLICY},
        tenant=Shown.of(tenant, masked=True),
        version=stored.version,
        labels=LABELS,
        stored=values,
        values=values if typed is None else typed,
        errors=errors or {},
        conflict=status == _CONFLICT,
        logo=stored.logo,
        logo_url=logo_address(services(request).ring, tenant.slug, stored.logo.version) if stored.logo else None,
        mail_subject=mail.subject,
        sms_text=sms.text,
        locale=locale,
        locales=[(key, Locale(key).english_name) for key in renderer.languages],
        notice=notice(request, _NOTICES),
    )


async def _stored(request: AnyRequest, tenant: Tenant) -> Branding:
    return await Brandings(services(request).db).get(tenant.id)


def _as_typed(branding: Branding) -> dict[str, Any]:
    """The fields as the form sends them."""
    texts = {name: getattr(branding, name) or "" for name in LABELS}
    return {**texts, "code_in_subject": "yes" if branding.code_in_subject else "no"}


def _locale(request: AnyRequest, tenant: Tenant, renderer: Renderer) -> str:
    """The language asked for, else the tenant's, else English: always one there are words in."""
    for tag in (request.query_params.get("locale", ""), tenant.locale):
        if (language := tag.partition("-")[0]) in renderer.languages:
            return language
    return "en"


def _renderer_of(request: AnyRequest) -> Renderer:
    core = services(request)
    return _renderer(core.settings.public_url, core.ring)


@lru_cache(maxsize=1)
def _renderer(public_url: str, ring: KeyRing) -> Renderer:
    """Made at the first look, because it reads every template there is."""
    return Renderer(public_url, ring=ring)
