"""Resetting the second factor of a tenant or a member who lost the phone: asked before, with a young sign-in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from litestar import get, post
from litestar.params import FromPath

from admin_portal.desk import desk
from admin_portal.guards import MANAGER, fresh, sign_in_address, signed_in
from admin_portal.views import show
from app.web.browser import ADMIN, Answer, redirect, visitor
from app.web.services import AnyRequest, services

_WHAT: Final = (
    "For somebody who lost phone and backup codes, and whom you know. Both stop working, {who} is signed out "
    "everywhere, and every contact is told."
)


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose second factor it is; `page` is the page about them, `who` what the text calls them, `above` what a trail to
    that page begins with.
    """

    tenant_id: UUID
    kind: str
    id: UUID
    name: str
    who: str
    page: str
    above: Sequence[tuple[str, str]] = ()

    @property
    def address(self) -> str:
        """Where it is asked for and done."""
        return f"{self.page}/reset-factors"


@get("/tenants/{slug:str}/reset-factors", opt=MANAGER)
async def ask_tenant(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """What resetting a tenant's second factor does."""
    return await _ask(request, await _tenant(request, slug))


@post("/tenants/{slug:str}/reset-factors", opt=MANAGER)
async def reset_tenant(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """Takes a tenant's away."""
    return await _reset(request, await _tenant(request, slug))


@get("/tenants/{slug:str}/members/{member_id:uuid}/reset-factors", opt=MANAGER)
async def ask_member(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """What resetting a member's second factor does."""
    return await _ask(request, await _member(request, slug, member_id))


@post("/tenants/{slug:str}/members/{member_id:uuid}/reset-factors", opt=MANAGER)
async def reset_member(request: AnyRequest, slug: FromPath[str], member_id: FromPath[UUID]) -> Answer:
    """Takes a member's away."""
    return await _reset(request, await _member(request, slug, member_id))


HANDLERS: Final = (ask_tenant, reset_tenant, ask_member, reset_member)


async def _tenant(request: AnyRequest, slug: str) -> _Owner:
    tenant = await desk(request).tenants.get(slug)
    who = "whoever signed in by the contact"
    return _Owner(tenant.id, "tenant", tenant.id, tenant.name, who, f"/admin/tenants/{slug}")


async def _member(request: AnyRequest, slug: str, member_id: UUID) -> _Owner:
    member = await desk(request).members.get(slug, member_id)
    page = f"/admin/tenants/{slug}/members/{member.id}"
    above = [(f"/admin/tenants/{slug}/members", "Members")]
    return _Owner(member.tenant_id, "member", member.id, member.name, "the member", page, above)


async def _ask(request: AnyRequest, owner: _Owner) -> Answer:
    return await show(
        request,
        "admin/confirm.html",
        section="tenants",
        heading=f"Reset the second factor of {owner.name}?",
        what=_WHAT.format(who=owner.who),
        action=owner.address,
        label="Reset the second factor",
        back=owner.page,
        trail=[*owner.above, (owner.page, owner.name)],
    )


async def _reset(request: AnyRequest, owner: _Owner) -> Answer:
    """Takes it away. Needs a young sign-in, as a change of the contact does."""
    await ADMIN.form(request)
    if not fresh(request):
        return redirect(sign_in_address(owner.address, "again"))
    done = await services(request).factors.reset(
        owner.tenant_id, owner.kind, owner.id, actor=signed_in(request).actor, client=visitor(request)
    )
    return redirect(f"{owner.page}?done={'factor-reset' if done else 'no-factor'}")
