"""Admins: the people who look after tenants. They live under the reserved system tenant and sign in like anybody."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from app.access import revoking
from app.audit.log import Actor, Client, record
from app.errors import AlreadyExists, EditConflict, FieldError, Forbidden, InvalidRequest, NotFound
from app.masking import mask_email
from app.storage import SYSTEM_TENANT
from app.storage.db import Database, repeatable
from app.tenants.rules import check_name, normalise_email

ROLES: Final = ("owner", "manager", "viewer")
STATUSES: Final = ("active", "suspended")

_COLUMNS: Final = "id, email, name, role, status, version, created_at, updated_at, last_sign_in_at"
_INSERT: Final = """
INSERT INTO admins (tenant_id, id, email, name, role, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6)
"""
_LIST: Final = f"SELECT {_COLUMNS} FROM admins WHERE tenant_id = $1 ORDER BY email"
_FIND: Final = f"SELECT {_COLUMNS} FROM admins WHERE tenant_id = $1 AND email = $2"
_GET: Final = f"SELECT {_COLUMNS} FROM admins WHERE tenant_id = $1 AND id = $2"
# With every owner, in one order: of two who take each other's role at once, the second sees what the first did.
_LOCK: Final = f"""
SELECT {_COLUMNS} FROM admins WHERE tenant_id = $1 AND (id = $2 OR role = 'owner') ORDER BY id FOR UPDATE
"""
_UPDATE: Final = """
UPDATE admins SET name = $3, role = $4, status = $5, version = $6, updated_at = $7 WHERE tenant_id = $1 AND id = $2
"""
_SETTLE_KEYS: Final = "SELECT fn.settle_keys($1, $2, $3, $4, $5, $6, $7, $8)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """A person of the company's staff. Owners may do everything, managers look after tenants, viewers read."""

    id: UUID
    email: str
    name: str
    role: str
    status: str = "active"
    version: int = 1
    created_at: datetime
    updated_at: datetime
    last_sign_in_at: datetime | None = None

    def as_json(self) -> dict[str, object]:
        """The public members."""
        return {name: getattr(self, name) for name in self.__slots__}


def check_role(role: str, pointer: str = "/role") -> str:
    """The role itself. Raises `InvalidRequest`."""
    if role not in ROLES:
        raise InvalidRequest(FieldError(pointer, f"A role is one of {', '.join(ROLES)}."))
    return role


def check_status(status: str, pointer: str = "/status") -> str:
    """The status itself. Raises `InvalidRequest`."""
    if status not in STATUSES:
        raise InvalidRequest(FieldError(pointer, f"This must be one of {', '.join(STATUSES)}."))
    return status


class Admins:
    """The admins of this installation. Every call raises `Unavailable` when the database is away."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock

    @repeatable
    async def add(
        self, email: str, role: str = "viewer", name: str | None = None, *, actor: Actor, client: Client
    ) -> Admin:
        """A new admin, who can sign in at once; without a name the address is shown.

        Raises `InvalidRequest`, and `AlreadyExists` for an address that is an admin's already.
        """
        address = normalise_email(email)
        now = self._clock()
        admin = Admin(
            id=uuid4(),
            email=address,
            name=check_name(name) if name else address,
            role=check_role(role),
            created_at=now,
            updated_at=now,
        )
        try:
            async with self._db.tenant(SYSTEM_TENANT) as connection:
                await connection.execute(_INSERT, SYSTEM_TENANT, admin.id, admin.email, admin.name, admin.role, now)
                data = {"email": mask_email(admin.email), "role": admin.role}
                subject = ("admin", admin.id)
                await record(connection, now, SYSTEM_TENANT, "admin.added", actor, client, subject=subject, data=data)
        except asyncpg.UniqueViolationError:
            raise AlreadyExists(f"{address} is an admin already.") from None
        return admin

    async def list(self) -> Sequence[Admin]:
        """All admins by address, suspended ones too."""
        async with self._db.tenant(SYSTEM_TENANT) as connection:
            return [Admin(**row) for row in await connection.fetch(_LIST, SYSTEM_TENANT)]

    async def find(self, email: str) -> Admin | None:
        """The admin with this address. Raises `InvalidRequest` for what is no address."""
        address = normalise_email(email)
        async with self._db.tenant(SYSTEM_TENANT) as connection:
            row = await connection.fetchrow(_FIND, SYSTEM_TENANT, address)
        return Admin(**row) if row else None

    async def get(self, admin_id: UUID) -> Admin:
        """The admin with this id. Raises `NotFound`."""
        async with self._db.tenant(SYSTEM_TENANT) as connection:
            row = await connection.fetchrow(_GET, SYSTEM_TENANT, admin_id)
        if row is None:
            raise NotFound("There is no such admin.")
        return Admin(**row)

    @repeatable
    async def change(
        self,
        admin_id: UUID,
        *,
        name: str | None = None,
        role: str | None = None,
        status: str | None = None,
        keys_to: UUID | None = None,
        expected_version: int | None = None,
        actor: Actor,
        client: Client,
    ) -> Admin:
        """Changes what is given. Whose role is another one is signed out: the new one takes a sign-in of its own.

        Who is suspended is signed out too, no open code or link lets them in, and their API keys end, unless `keys_to`
        names an owner who takes them over.

        Raises `InvalidRequest`, `NotFound`, `EditConflict` if `expected_version` is not the stored one, and `Forbidden`
        for what would leave nobody who may do everything.
        """
        given: dict[str, Any] = {
            "name": check_name(name) if name is not None else None,
            "role": check_role(role) if role is not None else None,
            "status": check_status(status) if status is not None else None,
        }
        if keys_to is not None and status != "suspended":
            raise InvalidRequest(FieldError("/keys_to", "Keys are handed over when their owner is suspended."))
        now = self._clock()
        async with self._db.tenant(SYSTEM_TENANT) as connection:
            await revoking.lock(connection, admin_id)
            found = {row["id"]: Admin(**row) for row in await connection.fetch(_LOCK, SYSTEM_TENANT, admin_id)}
            before = found.pop(admin_id, None)
            if before is None:
                raise NotFound("There is no such admin.")
            if expected_version is not None and expected_version != before.version:
                raise EditConflict(before.version)
            wanted = {field: value for field, value in given.items() if value is not None}
            changes = [
                {"field": field, "before": _shown(getattr(before, field)), "after": _shown(value)}
                for field, value in wanted.items()
                if value != getattr(before, field)
            ]
            if not changes:
                return before
            after = replace(before, version=before.version + 1, updated_at=max(now, before.updated_at), **wanted)
            if _owns(before) and not any(_owns(admin) for admin in (after, *found.values())):
                raise Forbidden("This is the last owner. Make somebody else an owner first.")
            await connection.execute(
                _UPDATE, SYSTEM_TENANT, after.id, after.name, after.role, after.status, after.version, after.updated_at
            )
            suspended = before.status == "active" and after.status == "suspended"
            action = "admin.suspended" if suspended else "admin.changed"
            subject = ("admin", admin_id)
            data: dict[str, Any] = {"changes": changes, "version": after.version}
            if suspended:
                if keys_to is not None and keys_to not in {heir.id for heir in found.values() if _owns(heir)}:
                    raise InvalidRequest(FieldError("/keys_to", "Keys go to another owner who is active."))
                data["codes_voided"] = await revoking.void_codes(connection, now, SYSTEM_TENANT, subject)
            if suspended or before.role != after.role:
                reason = "admin-suspended" if suspended else "role-changed"
                data["sessions_ended"] = await revoking.end_sessions(
                    connection, now, SYSTEM_TENANT, subject, reason, actor=actor, client=client
                )
                role, heir_id = (None, keys_to) if suspended else (after.role, None)
                data["keys_settled"] = await connection.fetchval(
                    _SETTLE_KEYS,
                    now,
                    SYSTEM_TENANT,
                    admin_id,
                    role,
                    heir_id,
                    actor.kind,
                    actor.id,
                    client.as_json(),
                )
            await record(connection, now, SYSTEM_TENANT, action, actor, client, subject=subject, data=data)
        return after


def _owns(admin: Admin) -> bool:
    return admin.role == "owner" and admin.status == "active"


def _shown(value: str) -> str:
    """For the audit log. The name of somebody without one is their address."""
    return mask_email(value) if "@" in value else value
