"""Tenants: listed, added, read, changed, removed."""

from functools import partial
from typing import Annotated, Any, Final, TypeAlias

from litestar import Response, delete, get, patch, post
from litestar.params import HeaderParameter, JSONBody, PathParameter, QueryParameter

from admin_portal.api.documents import Once
from admin_portal.api.guards import MANAGER, OWNER, VIEWER, YOUNG, caller, require_fresh
from admin_portal.api.payloads import (
    TenantBody,
    TenantChangeRequest,
    TenantCreateRequest,
    TenantPageBody,
    given,
)
from admin_portal.desk import desk
from app.errors import (
    AlreadyExists,
    ChannelUnavailable,
    ContactMissing,
    EditConflict,
    Forbidden,
    InvalidRequest,
    InvalidToken,
    RateLimited,
    TenantNotFound,
    Unavailable,
)
from app.tenants.model import Tenant
from app.tenants.search import MAX_LIMIT, SORTS, Filters
from app.web.caller import client_of
from app.web.docs import refusals
from app.web.etags import etag, expected_version
from app.web.services import AnyRequest

Slug: TypeAlias = Annotated[str, PathParameter(description="The tenant's slug.")]
IfMatch: TypeAlias = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match", description="The ETag that was read, or several of them. Without it the last change wins."
    ),
]
Search: TypeAlias = Annotated[str, QueryParameter(description="Part of a name, slug, email or phone number.")]
Status: TypeAlias = Annotated[str | None, QueryParameter(description="active or suspended.")]
Method: TypeAlias = Annotated[str | None, QueryParameter(description="email, sms, whatsapp or push.")]
Missing: TypeAlias = Annotated[bool | None, QueryParameter(description="Whether codes have nowhere to go.")]
Bad: TypeAlias = Annotated[
    bool | None, QueryParameter(description="Whether a provider said that nothing can arrive at the contact.")
]
Cursor: TypeAlias = Annotated[str | None, QueryParameter(description="`next` or `previous` of another page.")]
Limit: TypeAlias = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="Entries a page.")]

REFUSED: Final = (InvalidRequest, InvalidToken, Forbidden, RateLimited, Unavailable)
# What decides who gets in. So does lifting a suspension; to suspend is quick, for whoever has to stop an attack.
_DANGEROUS: Final = frozenset({"email", "phone_number", "policy"})


@get("/tenants", opt=VIEWER, summary="List tenants", responses=refusals(*REFUSED))
async def list_tenants(
    request: AnyRequest,
    search: Search = "",
    status: Status = None,
    method: Method = None,
    contact_missing: Missing = None,
    failing: Bad = None,
    sort: Annotated[str, QueryParameter(description=f"{', '.join(SORTS)}; with a leading - the other way round.")] = (
        "name"
    ),
    cursor: Cursor = None,
    limit: Limit = 50,
) -> TenantPageBody:
    """In pages that stay right while tenants come and go."""
    filters = Filters(
        contacts=caller(request).sees_contacts,
        search=search,
        status=status,
        method=method,
        contact_missing=contact_missing,
        failing=failing,
    )
    page = await desk(request).tenants.list(filters, sort=sort, cursor=cursor, limit=limit)
    return TenantPageBody([TenantBody.of(tenant) for tenant in page.tenants], page.next, page.previous)


@post(
    "/tenants",
    opt=MANAGER | YOUNG,
    summary="Add a tenant",
    responses=refusals(*REFUSED, AlreadyExists, ContactMissing, ChannelUnavailable),
    operation_class=Once,
)
async def add_tenant(request: AnyRequest, data: JSONBody[TenantCreateRequest]) -> Response[TenantBody]:
    """The preferred method needs its contact, and a provider that is switched on."""
    tenant = await desk(request).tenants.create(given(data), actor=caller(request).actor, client=client_of(request))
    return _answer(tenant, 201, {"Location": f"{request.scope['path']}/{tenant.slug}"})


@get("/tenants/{slug:str}", opt=VIEWER, summary="Read a tenant", responses=refusals(*REFUSED, TenantNotFound))
async def get_tenant(request: AnyRequest, slug: Slug) -> Response[TenantBody]:
    """Its version is the ETag."""
    return _answer(caller(request).shown(await desk(request).tenants.get(slug)), 200)


@patch(
    "/tenants/{slug:str}",
    opt=MANAGER,
    summary="Change a tenant",
    responses=refusals(*REFUSED, TenantNotFound, EditConflict, ContactMissing, ChannelUnavailable),
)
async def change_tenant(
    request: AnyRequest, slug: Slug, data: JSONBody[TenantChangeRequest], if_match: IfMatch = None
) -> Response[TenantBody]:
    """A changed contact voids open codes, ends sessions and is told to the old and the new address."""
    changes = given(data)
    if not changes.keys().isdisjoint(_DANGEROUS) or changes.get("status") == "active":
        require_fresh(request)
    tenant = await desk(request).tenants.update(
        slug,
        changes,
        expected_version=await expected_version(if_match, partial(_version, request, slug)),
        actor=caller(request).actor,
        client=client_of(request),
    )
    return _answer(tenant, 200)


@delete(
    "/tenants/{slug:str}",
    opt=OWNER | YOUNG,
    summary="Remove a tenant",
    responses=refusals(*REFUSED, TenantNotFound, EditConflict),
)
async def remove_tenant(request: AnyRequest, slug: Slug, if_match: IfMatch = None) -> None:
    """For good, with its sessions, codes and deliveries; only the audit log stays. To only stop it, suspend it."""
    await desk(request).removal.remove(
        slug,
        expected_version=await expected_version(if_match, partial(_version, request, slug)),
        actor=caller(request).actor,
        client=client_of(request),
    )


HANDLERS: Final = (list_tenants, add_tenant, get_tenant, change_tenant, remove_tenant)


async def _version(request: AnyRequest, slug: str) -> int:
    return (await desk(request).tenants.get(slug)).version


def _answer(tenant: Tenant, status: int, headers: dict[str, Any] | None = None) -> Response[TenantBody]:
    return Response(
        TenantBody.of(tenant), status_code=status, headers={"ETag": etag(tenant.version), **(headers or {})}
    )
