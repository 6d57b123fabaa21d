"""Registering on a page: the API's `POST …/members`. Every slug has the same page, whoever may register there."""

from typing import Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth.asking import Issued, Realm
from app.auth.entrance import Newcomer
from app.errors import AlreadyExists, CodeExpired, Forbidden, GatehouseError
from app.web.browser import TENANT, Answer, redirect, visitor
from app.web.forms import Form
from app.web.services import AnyRequest, services
from app.web.texts import UNDETERMINED, choose_language
from tenant_portal.arrival import arrive, destination, wanted_of
from tenant_portal.dashboard import session_of
from tenant_portal.forms import ASKING, form_page
from tenant_portal.returns import allowed_return
from tenant_portal.visits import Pending, forget_registration, registration_token

_FIELDS: Final = ("name", "email", "phone_number", "password", "consent", "document", "version", "next")
_REFUSALS: Final = (*ASKING, Forbidden, AlreadyExists, CodeExpired)


@get("/t/{slug:str}/register")
async def show(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Asks for a name and an address; for the name alone where a code has proven the address already."""
    wanted = wanted_of(request)
    if await session_of(request, slug) is not None:
        return redirect(destination(request, slug, wanted))
    return await _page(request, slug, {"next": wanted or ""})


@post("/t/{slug:str}/register")
async def register(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Sends the code that makes a member, or seems to; signs in at once where the address is proven."""
    form = await TENANT.form(request, *_FIELDS)
    realm = Realm.of(slug)
    core = services(request)
    try:
        outcome = await core.entrance.register(
            realm,
            _newcomer(form),
            visitor(request),
            token=registration_token(request, slug),
            locale=choose_language(request.headers.get("accept-language")) or UNDETERMINED,
            disclose=core.settings.otp_disclose_errors,
            kind="browser",
        )
    except _REFUSALS as refusal:
        return await _page(request, slug, form, refusal)
    wanted = allowed_return(form.get("next"), core.settings.return_urls)
    if not isinstance(outcome, Issued):
        return await arrive(request, outcome, wanted, forget_registration(request, slug))
    pending = Pending.of(outcome, core.clock(), wanted)
    return redirect(f"/t/{slug}/verify", [pending.cookie(request, slug, outcome.expires_in)])


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (show, register)


def _newcomer(form: Form) -> Newcomer:
    """Who they say they are.

    Document and version come back from the page: what is recorded is the text that was read, also when it has changed
    since.
    """
    return Newcomer(
        form.get("name", ""),
        form.get("email", "").strip() or None,
        form.get("phone_number", "").strip() or None,
        form.get("password") or None,
        form.get("document"),
        form.get("version"),
        agrees="consent" in form,
    )


async def _page(
    request: AnyRequest, slug: str, values: dict[str, str], refusal: GatehouseError | None = None
) -> Answer:
    # What was typed is not lost with an expired proof: sent once more, it asks for a code of its own.
    gone = isinstance(refusal, CodeExpired)
    return await form_page(
        request,
        "tenant/register.html",
        refusal,
        cookies=[forget_registration(request, slug)] if gone else [],
        slug=slug,
        values=values,
        proven=not gone and registration_token(request, slug) is not None,
    )
