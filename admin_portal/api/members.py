"""Members of a tenant: listed, added, imported, changed, exported, erased."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, TypeAlias
from uuid import UUID

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import UNSET, Meta, Struct, UnsetType

from admin_portal.api.documents import Once
from admin_portal.api.guards import MANAGER, OWNER, VIEWER, YOUNG, caller
from admin_portal.api.payloads import Next, given
from admin_portal.api.tenants import REFUSED, Cursor, IfMatch, Slug
from admin_portal.desk import desk
from app.errors import AlreadyExists, ContactMissing, EditConflict, NotFound, TenantNotFound
from app.members.model import Member
from app.members.rules import METHODS, STATUSES
from app.members.search import MAX_LIMIT, Filters
from app.web.caller import client_of
from app.web.docs import refusals
from app.web.etags import etag, expected_version
from app.web.services import AnyRequest

MemberId: TypeAlias = Annotated[UUID, PathParameter(description="The member's id.")]
StatusWord = Annotated[str, Meta(extra_json_schema={"enum": list(STATUSES)})]
Method = Annotated[str, Meta(extra_json_schema={"enum": list(METHODS)})]


class MemberChangeRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What is to be changed; null clears. What isn't named stays."""

    name: str | UnsetType = UNSET
    email: str | UnsetType | None = UNSET
    phone_number: str | UnsetType | None = UNSET
    preferred_method: Method | UnsetType | None = UNSET
    locale: str | UnsetType = UNSET
    status: StatusWord | UnsetType = UNSET
    codes_enabled: bool | UnsetType = UNSET
    must_verify: bool | UnsetType = UNSET


class MemberCreateRequest(MemberChangeRequest, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A new member, with an email address or a phone number or both. `pending` invites: they register themselves."""

    name: Annotated[str, Meta(examples=["Ana Silva"])]


class CodesRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """Codes on or off for all members, or for those named."""

    codes_enabled: bool
    members: Annotated[list[UUID], Meta(max_length=1000)] | None = None


class CodesBody(Struct, frozen=True):
    """How many members it made a difference to."""

    changed: int


class MemberBody(Struct, frozen=True):
    """A member. Viewers see contacts masked."""

    id: UUID
    name: str
    email: str | None
    phone_number: str | None
    preferred_method: Method | None
    locale: str
    status: StatusWord
    codes_enabled: bool
    must_verify: bool
    has_password: bool
    email_verified_at: datetime | None
    phone_verified_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime
    last_sign_in_at: datetime | None

    @classmethod
    def of(cls, member: Member) -> "MemberBody":
        """This member."""
        return msgspec.convert(member.as_json(), cls)


class MemberPageBody(Struct, frozen=True):
    """By name."""

    members: list[MemberBody]
    next: Next


@get("/tenants/{slug:str}/members", opt=VIEWER, summary="List members", responses=refusals(*REFUSED, TenantNotFound))
async def list_members(
    request: AnyRequest,
    slug: Slug,
    search: Annotated[str, QueryParameter(description="Part of a name, email or phone number.")] = "",
    status: Annotated[str | None, QueryParameter(description="active, suspended or pending.")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="Entries a page.")] = 50,
) -> MemberPageBody:
    """In pages that stay right while members come and go."""
    filters = Filters(search, status, contacts=caller(request).sees_contacts)
    page = await desk(request).members.page(slug, filters, cursor=cursor, limit=limit)
    return MemberPageBody([MemberBody.of(member) for member in page.members], page.next)


@post(
    "/tenants/{slug:str}/members",
    opt=MANAGER | YOUNG,
    summary="Add a member",
    responses=refusals(*REFUSED, TenantNotFound, AlreadyExists, ContactMissing),
    operation_class=Once,
)
async def add_member(request: AnyRequest, slug: Slug, data: JSONBody[MemberCreateRequest]) -> Response[MemberBody]:
    """They can sign in at once, unless `pending`."""
    member = await desk(request).members.create(
        slug, given(data), actor=caller(request).actor, client=client_of(request)
    )
    return _answer(request, member, 201, {"Location": f"{request.scope['path']}/{member.id}"})


@get(
    "/tenants/{slug:str}/members/{member_id:uuid}",
    opt=VIEWER,
    summary="Read a member",
    responses=refusals(*REFUSED, TenantNotFound, NotFound),
)
async def get_member(request: AnyRequest, slug: Slug, member_id: MemberId) -> Response[MemberBody]:
    """One of this tenant's."""
    return _answer(request, await desk(request).members.get(slug, member_id), 200)


@patch(
    "/tenants/{slug:str}/members/{member_id:uuid}",
    opt=MANAGER | YOUNG,
    summary="Change a member",
    responses=refusals(*REFUSED, TenantNotFound, NotFound, AlreadyExists, EditConflict, ContactMissing),
)
async def change_member(
    request: AnyRequest,
    slug: Slug,
    member_id: MemberId,
    data: JSONBody[MemberChangeRequest],
    if_match: IfMatch = None,
) -> Response[MemberBody]:
    """A contact's change voids open codes, ends sessions by policy, and tells the old and the new address."""
    member = await desk(request).members.update(
        slug,
        member_id,
        given(data),
        expected_version=await expected_version(if_match, partial(_version, request, slug, member_id)),
        actor=caller(request).actor,
        client=client_of(request),
    )
    return _answer(request, member, 200)


@post(
    "/tenants/{slug:str}/members/codes",
    opt=MANAGER | YOUNG,
    status_code=200,
    summary="Switch codes on or off",
    responses=refusals(*REFUSED, TenantNotFound),
    operation_class=Once,
)
async def switch_codes(request: AnyRequest, slug: Slug, data: JSONBody[CodesRequest]) -> CodesBody:
    """Off: the password alone signs in, where the tenant asks for one. Elsewhere it means nothing."""
    changed = await desk(request).members.switch_codes(
        slug, data.codes_enabled, only=data.members, actor=caller(request).actor, client=client_of(request)
    )
    return CodesBody(changed)


@get(
    "/tenants/{slug:str}/members/{member_id:uuid}/export",
    opt=MANAGER | YOUNG,
    summary="Export all that is kept of a person",
    responses=refusals(*REFUSED, TenantNotFound, NotFound),
)
async def export_member(request: AnyRequest, slug: Slug, member_id: MemberId) -> Response[dict[str, Any]]:
    """For the person to read; without secrets. Audited."""
    found = await desk(request).members.export(slug, member_id, actor=caller(request).actor, client=client_of(request))
    return Response(found, headers={"Content-Disposition": 'attachment; filename="member.json"'})


@delete(
    "/tenants/{slug:str}/members/{member_id:uuid}",
    opt=OWNER | YOUNG,
    summary="Erase a member",
    responses=refusals(*REFUSED, TenantNotFound, NotFound, EditConflict),
)
async def erase_member(request: AnyRequest, slug: Slug, member_id: MemberId, if_match: IfMatch = None) -> None:
    """For good; the audit log keeps events under an id that leads to nobody. To only stop somebody, suspend them."""
    await desk(request).members.erase(
        slug,
        member_id,
        expected_version=await expected_version(if_match, partial(_version, request, slug, member_id)),
        actor=caller(request).actor,
        client=client_of(request),
    )


HANDLERS: Final = (
    list_members,
    add_member,
    get_member,
    change_member,
    switch_codes,
    export_member,
    erase_member,
)


async def _version(request: AnyRequest, slug: str, member_id: UUID) -> int:
    return (await desk(request).members.get(slug, member_id)).version


def _shown(request: AnyRequest, member: Member) -> MemberBody:
    return MemberBody.of(member if caller(request).sees_contacts else member.masked())


def _answer(
    request: AnyRequest, member: Member, status: int, headers: dict[str, Any] | None = None
) -> Response[MemberBody]:
    return Response(
        _shown(request, member), status_code=status, headers={"ETag": etag(member.version), **(headers or {})}
    )
