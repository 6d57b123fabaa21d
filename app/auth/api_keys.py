"""API keys: what other programs call the admin API with. Shown once, stored as a hash. See `sql/api_keys.sql`."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias
from uuid import UUID, uuid4

from app.audit.log import Actor, Client, record
from app.auth.admins import check_role
from app.auth.tokens import token_hash
from app.errors import FieldError, Forbidden, InvalidRequest, NotFound
from app.storage import SYSTEM_TENANT
from app.storage.db import Database, repeatable
from app.tenants.rules import check_name

_PREFIX: Final = "ghk"
# 256 bits (ASVS 5.0, 11.5.1 asks for 128).
_SECRET_BYTES: Final = 32
# How exactly `last_used_at` is kept: a write at each call would cost more than the call.
_TOUCH_SPAN: Final = timedelta(minutes=1)

_COLUMNS: Final = "id, name, role, scopes, created_at, last_used_at, revoked_at, admin_id"
_OWN: Final = "SELECT * FROM fn.own_new_key($1, $2, $3, $4)"
_INSERT: Final = """
INSERT INTO api_keys (tenant_id, id, name, role, scopes, secret_hash, created_at, admin_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_LIST: Final = f"SELECT {_COLUMNS} FROM api_keys WHERE tenant_id = $1 ORDER BY created_at, id"
_REVOKE: Final = """
UPDATE api_keys SET revoked_at = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL RETURNING name
"""
_FIND: Final = "SELECT * FROM fn.api_key($1, $2)"
_TOUCH: Final = "SELECT fn.touch_api_key($1, $2, $3, $4)"


# What a key may be used for: to ask for codes as a disclosed caller, to introspect tokens, to call the admin API.
Scope: TypeAlias = Literal["sign-in", "introspect", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("sign-in", "introspect", "admin")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `role` is how much it may in the admin API. It ends with the access of `admin_id`."""

    id: UUID
    name: str
    role: str
    scopes: Sequence[str]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    admin_id: UUID | None = None

    def as_json(self) -> dict[str, object]:
        """The public members."""
        return {name: getattr(self, name) for name in self.__slots__}

    def require(self, scope: Scope) -> None:
        """Raises `Forbidden` for a key that was made for something else."""
        if scope not in self.scopes:
            raise Forbidden(f"This API key doesn't have the scope {scope}.")


class ApiKeys:
    """The keys of this installation. Every call raises `Unavailable` when the database is away."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock

    @repeatable
    async def create(
        self, name: str, role: str, scopes: Sequence[str] = SCOPES, *, actor: Actor, client: Client
    ) -> tuple[ApiKey, str]:
        """A new key and its text `ghk_<id>_<secret>`, which is nowhere kept.

        It is the admin's who makes it, or whose key makes it. Raises `InvalidRequest`, and `Forbidden` for somebody who
        is suspended at this moment or may less than the key would.
        """
        name, role, scopes = check_name(name), check_role(role), _check_scopes(scopes)
        now = self._clock()
        key_id = uuid4()
        text = f"{_PREFIX}_{key_id.hex}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        async with self._db.tenant(SYSTEM_TENANT) as connection:
            owner = await connection.fetchrow(_OWN, SYSTEM_TENANT, actor.kind, actor.id, role)
            if not owner["may"]:
                raise Forbidden("You may not make a key of this role.")
            key = ApiKey(key_id, name, role, scopes, now, None, None, owner["owner"])
            await connection.execute(
                _INSERT, SYSTEM_TENANT, key.id, name, role, scopes, token_hash(text), now, key.admin_id
            )
            data = {"name": name, "role": role, "scopes": scopes}
            subject = ("api-key", key.id)
            await record(connection, now, SYSTEM_TENANT, "api-key.created", actor, client, subject=subject, data=data)
        return key, text

    async def authenticate(self, presented: str) -> ApiKey | None:
        """The key whose text this is; None for every other text and for a revoked key."""
        key_id = _read_id(presented)
        row = await self._db.row(_FIND, SYSTEM_TENANT, key_id) if key_id else None
        if key_id is None or row is None:
            return None
        if not secrets.compare_digest(row["secret_hash"], token_hash(presented)) or row["revoked_at"] is not None:
            return None
        now = self._clock()
        if row["last_used_at"] is None or row["last_used_at"] <= now - _TOUCH_SPAN:
            await self._db.run(_TOUCH, now, SYSTEM_TENANT, key_id, _TOUCH_SPAN)
        return ApiKey(key_id, row["name"], row["role"], row["scopes"], row["created_at"], row["last_used_at"], None)

    @repeatable
    async def revoke(self, key_id: UUID, *, actor: Actor, client: Client) -> None:
        """The key is refused from now on. Raises `NotFound` for one that isn't there or was revoked before."""
        now = self._clock()
        async with self._db.tenant(SYSTEM_TENANT) as connection:
            name = await connection.fetchval(_REVOKE, SYSTEM_TENANT, key_id, now)
            if name is None:
                raise NotFound("There is no such API key in force.")
            data = {"name": name}
            subject = ("api-key", key_id)
            await record(connection, now, SYSTEM_TENANT, "api-key.revoked", actor, client, subject=subject, data=data)

    async def list(self) -> Sequence[ApiKey]:
        """All keys, revoked ones too, oldest first."""
        async with self._db.tenant(SYSTEM_TENANT) as connection:
            return [ApiKey(**row) for row in await connection.fetch(_LIST, SYSTEM_TENANT)]


def _check_scopes(scopes: Sequence[str]) -> list[str]:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise InvalidRequest(FieldError("/scopes", f"Name one or more of {', '.join(SCOPES)}."))
    return [scope for scope in SCOPES if scope in scopes]


def _read_id(presented: str) -> UUID | None:
    """The id in a key's text, or None if it isn't shaped like one. A text that passes can be hashed (ASCII)."""
    prefix, _, rest = presented.partition("_")
    identity, _, secret = rest.partition("_")
    if prefix != _PREFIX or not secret or not presented.isascii():
        return None
    try:
        key_id = UUID(hex=identity)
    except ValueError:
        return None
    return key_id if key_id.hex == identity else None
