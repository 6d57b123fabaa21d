"""Admins: the people who look after tenants. They live under the reserved system tenant and sign in like anybody."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from app.audit.log import Actor, Client, record
from app.errors import AlreadyExists, FieldError, InvalidRequest
from app.masking import mask_email
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.tenants.rules import check_name, normalise_email

ROLES: Final = ("owner", "manager", "viewer")

_COLUMNS: Final = "id, email, name, role, status, version, created_at, updated_at, last_sign_in_at"
_INSERT: Final = """
INSERT INTO admins (tenant_id, id, email, name, role, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6)
"""
_LIST: Final = f"SELECT {_COLUMNS} FROM admins WHERE tenant_id = $1 ORDER BY email"
_FIND: Final = f"SELECT {_COLUMNS} FROM admins WHERE tenant_id = $1 AND email = $2"


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


class Admins:
    """The admins of this installation. Every call raises `Unavailable` when the database is away."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock

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
