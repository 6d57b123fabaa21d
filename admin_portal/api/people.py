"""Who may do all this: admins and API keys."""

from typing import Annotated, Final, TypeAlias
from uuid import UUID

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import JSONBody, PathParameter

from admin_portal.api.documents import Once
from admin_portal.api.guards import OWNER, VIEWER, caller, require_fresh
from admin_portal.api.office import office
from admin_portal.api.payloads import (
    AdminBody,
    AdminChangeRequest,
    AdminCreateRequest,
    AdminListBody,
    ApiKeyBody,
    ApiKeyCreateRequest,
    ApiKeyListBody,
    NewApiKeyBody,
)
from admin_portal.api.tenants import REFUSED, IfMatch, etag, version_in
from app.errors import AlreadyExists, EditConflict, NotFound
from app.web.caller import client_of
from app.web.docs import refusals
from app.web.services import AnyRequest, services

AdminId: TypeAlias = Annotated[UUID, PathParameter(description="The admin's id.")]
KeyId: TypeAlias = Annotated[UUID, PathParameter(description="The key's id.")]


@get("/admins", opt=VIEWER, summary="List admins", responses=refusals(*REFUSED))
async def list_admins(request: AnyRequest) -> AdminListBody:
    """All of them, suspended ones too."""
    masked = not caller(request).sees_contacts
    return AdminListBody([AdminBody.of(admin, masked=masked) for admin in await office(request).admins.list()])


@post(
    "/admins",
    opt=OWNER,
    summary="Add an admin",
    responses=refusals(*REFUSED, AlreadyExists),
    operation_class=Once,
)
async def add_admin(request: AnyRequest, data: JSONBody[AdminCreateRequest]) -> Response[AdminBody]:
    """They can sign in at once."""
    require_fresh(request)
    admin = await office(request).admins.add(
        data.email, data.role, data.name, actor=caller(request).actor, client=client_of(request)
    )
    return Response(AdminBody.of(admin), status_code=201, headers={"ETag": etag(admin.version)})


@patch(
    "/admins/{admin_id:uuid}",
    opt=OWNER,
    summary="Change an admin",
    responses=refusals(*REFUSED, NotFound, EditConflict),
)
async def change_admin(
    request: AnyRequest, admin_id: AdminId, data: JSONBody[AdminChangeRequest], if_match: IfMatch = None
) -> Response[AdminBody]:
    """A new role holds within 3 seconds. The last owner stays one."""
    require_fresh(request)
    admin = await office(request).admins.change(
        admin_id,
        name=data.name,
        role=data.role,
        status=data.status,
        expected_version=version_in(if_match),
        actor=caller(request).actor,
        client=client_of(request),
    )
    return Response(AdminBody.of(admin), headers={"ETag": etag(admin.version)})


@delete(
    "/admins/{admin_id:uuid}",
    opt=OWNER,
    summary="Suspend an admin",
    responses=refusals(*REFUSED, NotFound),
)
async def suspend_admin(request: AnyRequest, admin_id: AdminId) -> None:
    """Signed out at once. What they did keeps their name, so nobody is removed."""
    require_fresh(request)
    await office(request).admins.change(
        admin_id, status="suspended", actor=caller(request).actor, client=client_of(request)
    )


@get("/api-keys", opt=VIEWER, summary="List API keys", responses=refusals(*REFUSED))
async def list_keys(request: AnyRequest) -> ApiKeyListBody:
    """Without their secrets, which nobody has."""
    return ApiKeyListBody(
        [msgspec.convert(key.as_json(), ApiKeyBody) for key in await services(request).api_keys.list()]
    )


@post(
    "/api-keys",
    opt=OWNER,
    summary="Make an API key",
    responses=refusals(*REFUSED, AlreadyExists),
    operation_class=Once,
)
async def add_key(request: AnyRequest, data: JSONBody[ApiKeyCreateRequest]) -> NewApiKeyBody:
    """The key itself is shown this once."""
    require_fresh(request)
    key, text = await services(request).api_keys.create(
        data.name, data.role, data.scopes, actor=caller(request).actor, client=client_of(request)
    )
    return msgspec.convert({**key.as_json(), "key": text}, NewApiKeyBody)


@delete(
    "/api-keys/{key_id:uuid}",
    opt=OWNER,
    summary="Revoke an API key",
    responses=refusals(*REFUSED, NotFound),
)
async def revoke_key(request: AnyRequest, key_id: KeyId) -> None:
    """Refused from the next call on."""
    require_fresh(request)
    await services(request).api_keys.revoke(key_id, actor=caller(request).actor, client=client_of(request))


HANDLERS: Final = (list_admins, add_admin, change_admin, suspend_admin, list_keys, add_key, revoke_key)
