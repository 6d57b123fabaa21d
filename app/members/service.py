"""Members of a tenant: added, changed, suspended, found, erased, for the admin API, portal and command line alike."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import asyncpg

from app.audit.log import Actor, Client, record
from app.errors import AlreadyExists, EditConflict, InvalidRequest, NotFound, TenantNotFound
from app.members import changes, effects, personal, search
from app.members.files import Report, RowFault, faults_of, read_csv
from app.members.model import SELECTED, Member
from app.members.search import MemberPage
from app.settings import Settings
from app.storage.db import Database
from app.tenants.rules import check_slug, region_of

_TENANT: Final = "SELECT id, locale, timezone FROM tenants WHERE slug = $1"
_GET: Final = f"SELECT {SELECTED} FROM members WHERE tenant_id = $1 AND id = $2"
_BY_CONTACT: Final = f"SELECT {SELECTED} FROM members WHERE tenant_id = $1 AND (email = $2 OR phone_number = $2)"
_SWITCH_ALL: Final = """
UPDATE members SET codes_enabled = $2, version = version + 1, updated_at = greatest($3, updated_at)
WHERE tenant_id = $1 AND codes_enabled <> $2 AND ($4::uuid[] IS NULL OR id = ANY ($4))
RETURNING id
"""


class _TakeBack(Exception):
    """Nothing of an import is to stay."""


@dataclass(frozen=True, slots=True)
class _Home:
    """The tenant whose members a call is about, in a transaction that sees no other's."""

    connection: asyncpg.Connection
    tenant_id: UUID
    region: str | None


class Members:
    """The members of this installation's tenants. Every call raises `Unavailable` when the database is away, and
    `TenantNotFound`; `InvalidRequest` for what is no slug.
    """

    def __init__(
        self,
        db: Database,
        settings: Settings,
        clock: Callable[[], datetime],
        wake_worker: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._wake_worker = wake_worker
        self._channels = frozenset(settings.providers)

    async def create(self, slug: str, values: Mapping[str, object], *, actor: Actor, client: Client) -> Member:
        """Adds a member; `name` is required, and `email` or `phone_number`. `pending` invites: they register first.

        Raises `InvalidRequest` with every fault, `AlreadyExists`.
        """
        now = self._clock()
        async with self._home(slug) as home:
            member = changes.drafted(home.tenant_id, values, now, home.region)
            return await changes.save(home.connection, now, None, member, actor, client, self._channels)

    async def get(self, slug: str, member_id: UUID) -> Member:
        """Raises `NotFound`."""
        async with self._home(slug) as home:
            return _found(await home.connection.fetchrow(_GET, home.tenant_id, member_id))

    async def find(self, slug: str, contact: str) -> Member:
        """The member with exactly this email (in lower case) or E.164 number. Raises `NotFound`."""
        async with self._home(slug) as home:
            return _found(await home.connection.fetchrow(_BY_CONTACT, home.tenant_id, contact.strip().lower()))

    async def update(
        self,
        slug: str,
        member_id: UUID,
        values: Mapping[str, object],
        *,
        expected_version: int | None = None,
        actor: Actor,
        client: Client,
    ) -> Member:
        """Changes the fields that are named. A contact's change voids codes, ends sessions, tells both addresses.

        Raises what `create` does, `NotFound`, and `EditConflict` if `expected_version` is not the stored one.
        """
        now = self._clock()
        async with self._home(slug) as home:
            before = await changes.locked(home.connection, home.tenant_id, member_id)
            if before is None:
                raise _nobody()
            if expected_version is not None and expected_version != before.version:
                raise EditConflict(before.version)
            edited = changes.edited(before, values, home.region)
            after = await changes.save(home.connection, now, before, edited, actor, client, self._channels)
        if after.version == before.version:
            return after
        if (after.email, after.phone_number) != (before.email, before.phone_number):
            # A request that still read the old address may have committed while we were at it.
            async with self._db.tenant(after.tenant_id) as connection:
                await effects.void_codes(connection, now, after.tenant_id, after.id)
        self._wake_worker()
        return after

    async def import_(self, slug: str, body: bytes, *, dry_run: bool, actor: Actor, client: Client) -> Report:
        """Adds and changes members from a CSV, all of them or, with a fault or as a `dry_run`, none.

        A row is about the member who has its email, or else its phone number. Raises `InvalidRequest` for what is no
        such file.
        """
        rows = read_csv(body)
        now = self._clock()
        counts = {"new": 0, "changed": 0, "unchanged": 0}
        faults: list[RowFault] = []
        try:
            async with self._home(slug) as home:
                for number, values in enumerate(rows, start=2):
                    try:
                        # A fault of one row leaves the transaction usable for the next.
                        async with home.connection.transaction():
                            counts[await self._put(home, now, values, actor, client)] += 1
                    except (InvalidRequest, AlreadyExists) as refusal:
                        faults += faults_of(number, refusal)
                if faults or dry_run:
                    raise _TakeBack
        except _TakeBack:
            return Report(**counts, faults=faults)
        self._wake_worker()
        return Report(**counts, faults=faults)

    async def _put(
        self, home: _Home, now: datetime, values: Mapping[str, Any], actor: Actor, client: Client
    ) -> Literal["new", "changed", "unchanged"]:
        draft = changes.drafted(home.tenant_id, values, now, home.region)
        row = None
        for contact in filter(None, (draft.email, draft.phone_number)):
            row = row or await home.connection.fetchrow(_BY_CONTACT, home.tenant_id, contact)
        before = await changes.locked(home.connection, home.tenant_id, row["id"]) if row else None
        member = changes.edited(before, values, home.region) if before else draft
        after = await changes.save(home.connection, now, before, member, actor, client, self._channels)
        if before is None:
            return "new"
        return "changed" if after.version != before.version else "unchanged"

    async def suspend(self, slug: str, member_id: UUID, *, actor: Actor, client: Client) -> Member:
        """Open codes are void and all sessions end, in one transaction. Raises `NotFound`."""
        return await self.update(slug, member_id, {"status": "suspended"}, actor=actor, client=client)

    async def resume(self, slug: str, member_id: UUID, *, actor: Actor, client: Client) -> Member:
        """Sign-in works again. Raises `NotFound`."""
        return await self.update(slug, member_id, {"status": "active"}, actor=actor, client=client)

    async def switch_codes(
        self, slug: str, on: bool, *, only: Sequence[UUID] | None = None, actor: Actor, client: Client
    ) -> int:
        """Switches codes on or off for all members, or for `only` those; how many it made a difference to.

        Off means that the password alone signs in, where the tenant asks for one; elsewhere it means nothing.
        """
        now = self._clock()
        async with self._home(slug) as home:
            rows = await home.connection.fetch(_SWITCH_ALL, home.tenant_id, on, now, only and list(only))
            for row in rows:
                await record(
                    home.connection,
                    now,
                    home.tenant_id,
                    "member.changed",
                    actor,
                    client,
                    subject=("member", row["id"]),
                    data={"changes": [{"field": "codes_enabled", "before": not on, "after": on}]},
                )
        return len(rows)

    async def list(
        self,
        slug: str,
        *,
        search_for: str = "",
        status: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> MemberPage:
        """A page of members by name. `search_for` is part of a name, email or phone number. Raises `InvalidRequest`."""
        async with self._home(slug) as home:
            query = search.build(home.tenant_id, search_for, status, cursor, limit)
            return query.page(await home.connection.fetch(query.sql, *query.args))

    async def export(self, slug: str, member_id: UUID, *, actor: Actor, client: Client) -> dict[str, Any]:
        """All that is kept of one person, for them to read (GDPR, article 15). Audited. Raises `NotFound`."""
        now = self._clock()
        async with self._home(slug) as home:
            member = _found(await home.connection.fetchrow(_GET, home.tenant_id, member_id))
            await changes.log(home.connection, now, member, "member.exported", actor, client)
            return await personal.read(home.connection, member)

    async def erase(self, slug: str, member_id: UUID, *, actor: Actor, client: Client) -> None:
        """Deletes all that is kept of one person (GDPR, article 17). There is no way back. Raises `NotFound`.

        The audit log keeps its events under the member's random id, which then leads to nobody.
        """
        now = self._clock()
        async with self._home(slug) as home:
            member = await changes.locked(home.connection, home.tenant_id, member_id)
            if member is None:
                raise _nobody()
            rows = await personal.erase(home.connection, member)
            await changes.log(home.connection, now, member, "member.erased", actor, client, {"rows": rows})

    @asynccontextmanager
    async def _home(self, slug: str) -> AsyncIterator[_Home]:
        check_slug(slug)
        async with self._db.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.tenant_slug', $1, true)", slug)
            row = await connection.fetchrow(_TENANT, slug)
            if row is None:
                raise TenantNotFound(f"No tenant has the slug {slug}.")
            await connection.execute("SELECT set_config('app.tenant_id', $1, true)", str(row["id"]))
            yield _Home(connection, row["id"], region_of(row["locale"], row["timezone"]))


def _found(row: asyncpg.Record | None) -> Member:
    if row is None:
        raise _nobody()
    return Member.of(row)


def _nobody() -> NotFound:
    return NotFound("There is no such member here.")
