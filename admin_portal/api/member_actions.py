"""What is done for one member: invited again, unlocked."""

from typing import Annotated, Final

from litestar import post
from msgspec import Meta, Struct

from admin_portal.api.documents import Once
from admin_portal.api.guards import MANAGER, caller
from admin_portal.api.members import MemberId
from admin_portal.api.payloads import ClearedBody, UnlockBody
from admin_portal.api.tenants import REFUSED, Slug
from admin_portal.desk import desk
from app.errors import (
    AlreadyExists,
    ChannelUnavailable,
    Forbidden,
    NotFound,
    RateLimited,
    TenantNotFound,
    TenantSuspended,
)
from app.web.caller import client_of
from app.web.docs import refusals
from app.web.services import AnyRequest

_REFUSALS: Final = (
    *REFUSED,
    TenantNotFound,
    NotFound,
    AlreadyExists,
    ChannelUnavailable,
    Forbidden,
    RateLimited,
    TenantSuspended,
)


class InvitationBody(Struct, frozen=True):
    """The invitation is on its way."""

    channel: Annotated[str, Meta(examples=["email"])]


@post(
    "/tenants/{slug:str}/members/{member_id:uuid}/invite",
    opt=MANAGER,
    status_code=202,
    summary="Invite a member again",
    responses=refusals(*dict.fromkeys(_REFUSALS)),
    operation_class=Once,
)
async def invite_member(request: AnyRequest, slug: Slug, member_id: MemberId) -> InvitationBody:
    """To a pending member, with a link to the page where they register; at most once a minute. Adding one as `pending`
    sends the first, unless registration is closed.
    """
    sent = await desk(request).members.invite(slug, member_id, actor=caller(request).actor, client=client_of(request))
    return InvitationBody(sent.channel)


@post(
    "/tenants/{slug:str}/members/{member_id:uuid}/unlock",
    opt=MANAGER,
    status_code=200,
    summary="Unlock a member",
    responses=refusals(*REFUSED, TenantNotFound, NotFound, AlreadyExists),
    operation_class=Once,
)
async def unlock_member(request: AnyRequest, slug: Slug, member_id: MemberId) -> UnlockBody:
    """Forgets wrong codes and passwords, lock and hourly quota of the member, so that a code can be asked for now."""
    own, who = desk(request), caller(request)
    member = await own.members.get(slug, member_id)
    return UnlockBody(
        await own.unlocking.unlock(member.tenant_id, member.id, actor=who.actor, client=client_of(request))
    )


@post(
    "/tenants/{slug:str}/members/{member_id:uuid}/clear-failing",
    opt=MANAGER,
    status_code=200,
    summary="Take the mark off a member's contact",
    responses=refusals(*REFUSED, TenantNotFound, NotFound, AlreadyExists),
    operation_class=Once,
)
async def clear_failing_member(request: AnyRequest, slug: Slug, member_id: MemberId) -> ClearedBody:
    """As for a tenant's contact."""
    own, who = desk(request), caller(request)
    member = await own.members.get(slug, member_id)
    cleared = await own.marks.clear(member.tenant_id, member.id, actor=who.actor, client=client_of(request))
    return ClearedBody(list(cleared))


HANDLERS: Final = (invite_member, unlock_member, clear_failing_member)
