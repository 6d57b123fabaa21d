"""A page with a form, and what was wrong with it. Pages and API tell a refusal with the same status and headers."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from litestar.datastructures import Cookie

from app.auth.asking import Realm
from app.auth.standing import Status
from app.errors import (
    ChannelUnavailable,
    CodeExpired,
    ContactMissing,
    GatehouseError,
    InvalidCode,
    InvalidCredentials,
    InvalidRequest,
    RateLimited,
    TenantNotFound,
    TenantSuspended,
    TooManyAttempts,
)
from app.web.browser import TENANT, Answer
from app.web.problems import refuse
from app.web.sentences import errors_of, notice
from app.web.services import AnyRequest, services
from tenant_portal.texts import NOTICES
from tenant_portal.visits import Pending, device_token

# What a person can do something about where they are; the rest is a page of its own.
ASKING: Final = (
    InvalidRequest,
    InvalidCredentials,
    RateLimited,
    TenantNotFound,
    TenantSuspended,
    ContactMissing,
    ChannelUnavailable,
)
CHECKING: Final = (*ASKING, InvalidCode, CodeExpired, TooManyAttempts)


async def form_page(
    request: AnyRequest,
    template: str,
    refusal: GatehouseError | None,
    *,
    cookies: Sequence[Cookie] = (),
    **context: Any,
) -> Answer:
    """The page; with a refusal, what was wrong stands at its fields. `context` is the template's."""
    if refusal is None:
        return await TENANT.page(request, template, cookies=cookies, errors={}, over=None, **context)
    said = refuse(refusal, services(request).settings)
    over = said.code if isinstance(refusal, CodeExpired | TooManyAttempts) else None
    return await TENANT.page(
        request,
        template,
        status=said.status,
        headers=said.headers,
        cookies=cookies,
        errors=errors_of(refusal),
        over=over,
        **context,
    )


async def status_of(request: AnyRequest, slug: str, pending: Pending, *, concealed: bool = False) -> Status:
    """Where a code stands, as far as this browser may know. Raises `CodeExpired`."""
    core = services(request)
    return await core.challenges.status(
        Realm.of(slug),
        pending.challenge_id,
        disclose=core.settings.otp_disclose_errors and not concealed,
        device_token=device_token(request, slug),
    )


async def delivery_part(
    request: AnyRequest, template: str, pending: Pending, *, slug: str, concealed: bool = False, **context: Any
) -> Answer:
    """Of such a page only the line about the delivery, for htmx: the template's block `delivery_status`."""
    try:
        status = await status_of(request, slug, pending, concealed=concealed)
    except CodeExpired:
        status = Status("expired", None, 0, 0)
    return await TENANT.page(
        request,
        template,
        block="delivery_status",
        slug=slug,
        state=status.state,
        channel=status.channel,
        resend_in=pending.resend_in(services(request).clock()),
        **context,
    )


async def code_page(
    request: AnyRequest,
    template: str,
    pending: Pending,
    refusal: GatehouseError | None,
    form: Mapping[str, str] | None,
    *,
    slug: str,
    concealed: bool = False,
    **context: Any,
) -> Answer | None:
    """The page that asks for the code of what is under way, and says how that stands. None when it was used."""
    now = services(request).clock()
    typed = dict(form or {})
    if not isinstance(refusal, InvalidRequest):
        # A wrong code is typed anew; one that only lacks a digit is mended.
        typed.pop("code", None)
    try:
        status = await status_of(request, slug, pending, concealed=concealed)
    except CodeExpired as gone:
        status, refusal = Status("expired", None, 0, 0), refusal or gone
    if status.state == "used":
        return None
    if refusal is None and status.state == "expired":
        refusal = CodeExpired()
    if refusal is None and status.attempts_left == 0:
        refusal = TooManyAttempts(status.expires_in)
    resend_in = refusal.retry_after if isinstance(refusal, RateLimited) else pending.resend_in(now)
    return await form_page(
        request,
        template,
        refusal,
        slug=slug,
        code_length=pending.code_length,
        expires_at=now + timedelta(seconds=status.expires_in),
        channel=status.channel,
        state=status.state,
        resend_in=resend_in,
        values=typed,
        notice=notice(request, NOTICES),
        **context,
    )
