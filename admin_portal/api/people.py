"""Who may do all this: admins and API keys."""

from datetime import datetime
from functools import partial
from typing import Annotated, Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta, Struct

from admin_portal.api.documents import Once, OnceShown
from admin_portal.api.guards import OWNER, VIEWER, YOUNG, caller
from admin_portal.api.payloads import Email, Name, StatusWord
from admin_portal.api.tenants import REFUSED, IfMatch
from admin_portal.desk import desk
from app.auth.admins import ROLES, Admin
from app.auth.api_keys import SCOPES, Scope
from app.errors import AlreadyExists, EditConflict, NotFound
from app.masking import mask_email
from app.web.caller import client_of
from app.web.docs import refusals
from app.web.etags import etag, expected_version
from app.web.services import AnyRequest, services

AdminId: TypeAlias = Annotated[UUID, PathParameter(description="The admin's id.")]
KeyId: TypeAlias = Annotated[UUID, PathParameter(description="The key's id.")]


_HEIR: Final = "With a suspension: the owner who takes over the admin's API keys. Without one they end."
HeirId: TypeAlias = Annotated[UUID | None, QueryParameter(description=_HEIR)]

Role: TypeAlias = Literal["owner", "manager", "viewer"]
RoleWord = Annotated[str, Meta(description=", ".join(ROLES), examples=["viewer"])]


class AdminCreateRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A new admin, who can sign in at once."""

    email: Email
    role: RoleWord = "viewer"
    name: Name | None = None


class AdminChangeRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """What is to be changed. Who is suspended is signed out at once, and so is whose role changes."""

    name: Name | None = None
    role: RoleWord | None = None
    status: StatusWord | None = None
    keys_to: Annotated[UUID | None, Meta(description=_HEIR)] = None


class AdminBody(Struct, frozen=True):
    """An admin. Viewers see addresses masked."""

    id: UUID
    email: Email
    name: Name
    role: Role
    status: StatusWord
    version: int
    created_at: datetime
    updated_at: datetime
    last_sign_in_at: datetime | None

    @classmethod
    def of(cls, admin: Admin, *, masked: bool) -> "AdminBody":
        """This admin, for somebody who may (not) see contacts."""
        body = msgspec.convert(admin.as_json(), cls)
        if not masked:
            return body
        # Without a name of their own people are shown by their address.
        name = mask_email(body.name) if "@" in body.name else body.name
        return msgspec.structs.replace(body, email=mask_email(body.email), name=name)


class AdminListBody(Struct, frozen=True):
    """All admins by address, suspended ones too."""

    admins: list[AdminBody]


class ApiKeyCreateRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A new key."""

    name: Name
    role: RoleWord = "viewer"
    scopes: list[Scope] = msgspec.field(default_factory=lambda: list(SCOPES))


class ApiKeyBody(Struct, frozen=True):
    """A key without its secret."""

    id: UUID
    name: Name
    role: Role
    scopes: list[Scope]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    admin_id: Annotated[UUID | None, Meta(description="Whose it is: it ends when they are suspended.")]


class NewApiKeyBody(ApiKeyBody, frozen=True):
    """A new key. `key` is shown this once."""

    key: Annotated[str, Meta(examples=["ghk_…"])]


class ApiKeyListBody(Struct, frozen=True):
    """All keys, revoked ones too, oldest first."""

    api_keys: list[ApiKeyBody]


@get("/admins", opt=VIEWER, summary="List admins", responses=refusals(*REFUSED))
async def list_admins(request: AnyRequest) -> AdminListBody:
    """All of them, suspended ones too."""
    masked = not caller(request).sees_contacts
    return AdminListBody([AdminBody.of(admin, masked=masked) for admin in await desk(request).admins.list()])


@post(
    "/admins",
    opt=OWNER | YOUNG,
    summary="Add an admin",
    responses=refusals(*REFUSED, AlreadyExists),
    operation_class=Once,
)
async def add_admin(request: AnyRequest, data: JSONBody[AdminCreateRequest]) -> Response[AdminBody]:
    """They can sign in at once."""
    admin = await desk(request).admins.add(
        data.email, data.role, data.name, actor=caller(request).actor, client=client_of(request)
    )
    return Response(AdminBody.of(admin, masked=False), status_code=201, headers={"ETag": etag(admin.version)})


@patch(
    "/admins/{admin_id:uuid}",
    opt=OWNER | YOUNG,
    summary="Change an admin",
    responses=refusals(*REFUSED, NotFound, EditConflict),
)
async def change_admin(
    request: AnyRequest, admin_id: AdminId, data: JSONBody[AdminChangeRequest], if_match: IfMatch = None
) -> Response[AdminBody]:
    """A new role holds at once and signs them out: it takes a sign-in of its own. A lower one lowers their API keys.
    The last owner stays one.
    """
    admin = await desk(request).admins.change(
        admin_id,
        name=data.name,
        role=data.role,
        status=data.status,
        keys_to=data.keys_to,
        expected_version=await expected_version(if_match, partial(_version, request, admin_id)),
        actor=caller(request).actor,
        client=client_of(request),
    )
    return Response(AdminBody.of(admin, masked=False), headers={"ETag": etag(admin.version)})


@delete(
    "/admins/{admin_id:uuid}",
    opt=OWNER | YOUNG,
    summary="Suspend an admin",
    responses=refusals(*REFUSED, NotFound, EditConflict),
)
async def suspend_admin(
    request: AnyRequest, admin_id: AdminId, keys_to: HeirId = None, if_match: IfMatch = None
) -> None:
    """Signed out at once; their API keys end, or go to `keys_to`. What they did keeps their name: nobody is removed."""
    await desk(request).admins.change(
        admin_id,
        status="suspended",
        keys_to=keys_to,
        expected_version=await expected_version(if_match, partial(_version, request, admin_id)),
        actor=caller(request).actor,
        client=client_of(request),
    )


@get("/api-keys", opt=VIEWER, summary="List API keys", responses=refusals(*REFUSED))
async def list_keys(request: AnyRequest) -> ApiKeyListBody:
    """Without their secrets, which nobody has."""
    return ApiKeyListBody(
        [msgspec.convert(key.as_json(), ApiKeyBody) for key in await services(request).api_keys.list()]
    )


@post(
    "/api-keys",
    opt=OWNER | YOUNG,
    summary="Make an API key",
    responses=refusals(*REFUSED, AlreadyExists),
    operation_class=OnceShown,
)
async def add_key(request: AnyRequest, data: JSONBody[ApiKeyCreateRequest]) -> Response[NewApiKeyBody]:
    """The key itself is shown this once."""
    key, text = await services(request).api_keys.create(
        data.name, data.role, data.scopes, actor=caller(request).actor, client=client_of(request)
    )
    body = msgspec.convert({**key.as_json(), "key": text}, NewApiKeyBody)
    return Response(body, status_code=201, headers={"Location": f"{request.scope['path']}/{key.id}"})


@delete(
    "/api-keys/{key_id:uuid}",
    opt=OWNER | YOUNG,
    summary="Revoke an API key",
    responses=refusals(*REFUSED, NotFound),
)
async def revoke_key(request: AnyRequest, key_id: KeyId) -> None:
    """Refused from the next call on."""
    await services(request).api_keys.revoke(key_id, actor=caller(request).actor, client=client_of(request))


HANDLERS: Final = (list_admins, add_admin, change_admin, suspend_admin, list_keys, add_key, revoke_key)


async def _version(request: AnyRequest, admin_id: UUID) -> int:
    return (await desk(request).admins.get(admin_id)).version
