"""The invitation to register, sent again."""

from typing import Annotated, Final

from litestar import post
from msgspec import Meta, Struct

from admin_portal.api.documents import Once
from admin_portal.api.guards import MANAGER, caller
from admin_portal.api.members import MemberId
from admin_portal.api.office import office
from admin_portal.api.tenants import REFUSED, Slug
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
    sent = await office(request).members.invite(slug, member_id, actor=caller(request).actor, client=client_of(request))
    return InvitationBody(sent.channel)


HANDLERS: Final = (invite_member,)
