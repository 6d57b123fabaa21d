"""A page with a form, and what was wrong with it. Pages and API tell a refusal with the same status and headers."""

from collections.abc import Sequence
from typing import Any, Final

from litestar.datastructures import Cookie

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
from app.web.services import AnyRequest, services
from tenant_portal.texts import errors_of

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
