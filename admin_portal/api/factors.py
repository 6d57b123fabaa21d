"""Second factors of people who lost theirs, taken away by those who look after them."""

from typing import Final
from uuid import UUID

from litestar import delete

from admin_portal.api.guards import MANAGER, YOUNG, caller
from admin_portal.api.members import MemberId
from admin_portal.api.tenants import REFUSED, Slug
from admin_portal.desk import desk
from app.errors import NotFound, TenantNotFound
from app.web.caller import client_of
from app.web.docs import refusals
from app.web.services import AnyRequest, services


@delete(
    "/tenants/{slug:str}/factors",
    opt=MANAGER | YOUNG,
    summary="Reset a tenant's second factor",
    responses=refusals(*REFUSED, TenantNotFound, NotFound),
)
async def reset_tenant(request: AnyRequest, slug: Slug) -> None:
    """For a lost phone: app and backup codes stop working, whoever signed in by the contact is signed out and told."""
    tenant = await desk(request).tenants.get(slug)
    await _reset(request, tenant.id, "tenant", tenant.id)


@delete(
    "/tenants/{slug:str}/members/{member_id:uuid}/factors",
    opt=MANAGER | YOUNG,
    summary="Reset a member's second factor",
    responses=refusals(*REFUSED, TenantNotFound, NotFound),
)
async def reset_member(request: AnyRequest, slug: Slug, member_id: MemberId) -> None:
    """For a lost phone: app and backup codes stop working, the member is signed out everywhere and told."""
    member = await desk(request).members.get(slug, member_id)
    await _reset(request, member.tenant_id, "member", member.id)


HANDLERS: Final = (reset_tenant, reset_member)


async def _reset(request: AnyRequest, tenant_id: UUID, kind: str, subject_id: UUID) -> None:
    if not await services(request).factors.reset(
        tenant_id, kind, subject_id, actor=caller(request).actor, client=client_of(request)
    ):
        raise NotFound("There is no second factor to reset.")
