"""Members of a tenant: added, changed, suspended, found, erased, for the admin API, portal and command line alike."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from app.audit.log import Actor, Client, record
from app.cleaning import plain
from app.errors import EditConflict, InvalidRequest, NotFound
from app.members import changes, effects, invitations, personal, search
from app.members.files import Report, as_csv, csv_head, read_csv
from app.members.home import Home, home_of
from app.members.importing import BY_CONTACT, load
from app.members.invitations import Invitation
from app.members.model import SELECTED, Member
from app.members.search import MAX_LIMIT, Filters, MemberPage
from app.members.stats import SignInCounts, keep_hours, read_stats, read_stats_of
from app.members.story import About, read_changes, read_story, told
from app.settings import Settings
from app.storage.db import Database, repeatable
from app.tenants.history import Change
from app.tenants.rules import normalise_email, normalise_phone

_GET: Final = f"SELECT {SELECTED} FROM members WHERE tenant_id = $1 AND id = $2"
_SWITCH: Final = """
UPDATE members SET codes_enabled = {on}, version = version + 1, updated_at = greatest({now}, updated_at)
WHERE {found} AND codes_enabled <> {on} AND ({only}::uuid[] IS NULL OR id = ANY ({only}))
RETURNING id
"""
_COUNT: Final = "SELECT count(*) FROM (SELECT FROM members WHERE {found} LIMIT {at_most}) AS found"
# Neither searched for nor shown to anybody.
_EVERYBODY: Final = Filters(contacts=False)


class _TakeBack(Exception):
    """Nothing of an import is to stay."""


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

    @repeatable
    async def create(self, slug: str, values: Mapping[str, object], *, actor: Actor, client: Client) -> Member:
        """Adds a member; `name` is required, and `email` or `phone_number`. `pending` invites: they register first, and
        are told where to, unless registration is closed.

        Raises `InvalidRequest` with every fault, `AlreadyExists`.
        """
        now = self._clock()
        async with self._home(slug) as home:
            member = changes.drafted(home.tenant_id, values, now, home.region)
            member = await changes.save(home.connection, now, None, member, actor, client, self._channels)
            invited = await invitations.welcome(home.connection, now, member, actor, client, self._channels)
        if invited:
            self._wake_worker()
        return member

    async def invite(self, slug: str, member_id: UUID, *, actor: Actor, client: Client) -> Invitation:
        """Sends a pending member the invitation again, at most once a minute.

        Raises `NotFound`, and what `invitations.again` does.
        """
        now = self._clock()
        async with self._home(slug) as home:
            member = await _held(home, member_id)
            invitation = await invitations.again(home.connection, now, member, actor, client, self._channels)
        self._wake_worker()
        return invitation

    async def get(self, slug: str, member_id: UUID) -> Member:
        """Raises `NotFound`."""
        async with self._home(slug) as home:
            return _found(await home.connection.fetchrow(_GET, home.tenant_id, member_id))

    async def find(self, slug: str, contact: str) -> Member:
        """The member with this email or phone number, however it is written. Raises `NotFound`."""
        async with self._home(slug) as home:
            stored = _as_stored(contact, home.region)
            return _found(await home.connection.fetchrow(BY_CONTACT, home.tenant_id, stored))

    @repeatable
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
            before = await _held(home, member_id, expected_version)
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

    @repeatable
    async def import_(
        self, slug: str, body: bytes, *, dry_run: bool, as_is: bool = False, actor: Actor, client: Client
    ) -> Report:
        """Adds and changes members from a CSV, all of them or, with a fault or as a `dry_run`, none.

        A row is about the member who has its email, or else its phone number. Text that looks wrongly decoded is a
        fault, unless it is taken `as_is`. Raises `PayloadTooLarge`, and `InvalidRequest` for what is no such file.
        """
        report = Report()
        # Read once to its end: what is no such file, or too long, is refused before anything is done.
        await asyncio.to_thread(deque, read_csv(body), 0)
        try:
            async with self._home(slug) as home:
                report = await load(home, self._clock(), read_csv(body, as_is=as_is), actor, client, self._channels)
                if dry_run or report.faults:
                    raise _TakeBack
        except _TakeBack:
            return report
        self._wake_worker()
        return replace(report, applied=True)

    @repeatable
    async def switch_codes(
        self,
        slug: str,
        on: bool,
        *,
        only: Sequence[UUID] | None = None,
        found: Filters = _EVERYBODY,
        actor: Actor,
        client: Client,
    ) -> int:
        """Switches codes on or off for all members `found`, or for `only` those; how many it made a difference to.

        Off means that the password alone signs in, where the tenant asks for one; elsewhere it means nothing.
        """
        now = self._clock()
        async with self._home(slug) as home:
            where, args = search.matching(home.tenant_id, found)
            places = {name: f"${len(args) + n}" for n, name in enumerate(("on", "now", "only"), start=1)}
            sql = _SWITCH.format(found=where, **places)
            rows = await home.connection.fetch(sql, *args, on, now, None if only is None else list(only))
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

    async def page(self, slug: str, found: Filters, *, cursor: str | None = None, limit: int = 50) -> MemberPage:
        """A page of the members found, by name, masked as `found` says. Raises `InvalidRequest`."""
        async with self._home(slug) as home:
            query = search.build(home.tenant_id, found, cursor, limit)
            return query.page(await home.connection.fetch(query.sql, *query.args))

    async def count(self, slug: str, found: Filters = _EVERYBODY, *, at_most: int) -> int:
        """How many members are found; counting stops at `at_most`. Raises `InvalidRequest`."""
        async with self._home(slug) as home:
            where, args = search.matching(home.tenant_id, found)
            number: int = await home.connection.fetchval(
                _COUNT.format(found=where, at_most=f"${len(args) + 1}"), *args, at_most
            )
        return number

    async def export_list(self, slug: str, found: Filters, *, actor: Actor, client: Client) -> AsyncIterator[bytes]:
        """The members found, by name, as a CSV of any length, masked as `found` says. Audited.

        Raises `InvalidRequest` before the first chunk. A page is one transaction: a slow reader holds no connection.
        """
        page = await self.page(slug, found, limit=MAX_LIMIT)
        async with self._home(slug) as home:
            data = {"contacts": "shown" if found.contacts else "masked"}
            await record(home.connection, self._clock(), home.tenant_id, "members.exported", actor, client, data=data)
        return self._as_csv(slug, found, page)

    async def stats(self, slug: str) -> Sequence[SignInCounts]:
        """How all members together got on with signing in, over 24 hours, 7 and 30 days."""
        now, kept = self._clock(), False
        while not kept:
            async with self._home(slug) as home:
                kept = await keep_hours(home.connection, home.tenant_id, now)
                if kept:
                    counts = await read_stats(home.connection, home.tenant_id, now)
        return counts

    async def about(self, member: Member, *, sees_contacts: bool, limit: int = 30) -> About:
        """What happened to a member, and who changed what about them: the newest `limit` of each; colleagues by their
        address for those who may see contacts.
        """
        async with self._db.every_tenant() as connection:
            happenings = await read_story(
                connection, member.tenant_id, member.id, sees_contacts=sees_contacts, limit=limit
            )
            return About(
                told(happenings),
                happenings,
                await read_changes(connection, member.tenant_id, member.id, sees_contacts=sees_contacts, limit=limit),
                await read_stats_of(connection, member.tenant_id, self._clock(), member.id),
            )

    async def history(self, member: Member, *, sees_contacts: bool, limit: int) -> Sequence[Change]:
        """Who changed what about a member, newest first."""
        async with self._db.every_tenant() as connection:
            return await read_changes(connection, member.tenant_id, member.id, sees_contacts=sees_contacts, limit=limit)

    @repeatable
    async def export(self, slug: str, member_id: UUID, *, actor: Actor, client: Client) -> dict[str, Any]:
        """All that is kept of one person, for them to read (GDPR, article 15). Audited. Raises `NotFound`."""
        now = self._clock()
        async with self._home(slug) as home:
            member = _found(await home.connection.fetchrow(_GET, home.tenant_id, member_id))
            await changes.log(home.connection, now, member, "member.exported", actor, client)
            return await personal.read(home.connection, member)

    @repeatable
    async def erase(
        self, slug: str, member_id: UUID, *, expected_version: int | None = None, actor: Actor, client: Client
    ) -> None:
        """Deletes all that is kept of one person (GDPR, article 17). There is no way back.

        Raises `NotFound`, and `EditConflict` as `update` does.

        The audit log keeps its events under the member's random id, which then leads to nobody.
        """
        now = self._clock()
        async with self._home(slug) as home:
            member = await _held(home, member_id, expected_version)
            rows = await personal.erase(home.connection, member)
            await changes.log(home.connection, now, member, "member.erased", actor, client, {"rows": rows})

    async def _as_csv(self, slug: str, found: Filters, page: MemberPage) -> AsyncIterator[bytes]:
        yield csv_head()
        while True:
            yield as_csv(page.members)
            if page.next is None:
                return
            page = await self.page(slug, found, cursor=page.next, limit=MAX_LIMIT)

    def _home(self, slug: str) -> AbstractAsyncContextManager[Home]:
        return home_of(self._db, slug)


async def _held(home: Home, member_id: UUID, expected_version: int | None = None) -> Member:
    """The member, whom nobody else changes until the transaction ends. Raises `NotFound`, `EditConflict`."""
    member = await changes.locked(home.connection, home.tenant_id, member_id)
    if member is None:
        raise _nobody()
    if expected_version is not None and expected_version != member.version:
        raise EditConflict(member.version)
    return member


def _as_stored(contact: str, region: str | None) -> str:
    try:
        return normalise_email(contact) if "@" in plain(contact) else normalise_phone(contact, region=region)
    except InvalidRequest:
        raise _nobody() from None


def _found(row: asyncpg.Record | None) -> Member:
    if row is None:
        raise _nobody()
    return Member.of(row)


def _nobody() -> NotFound:
    return NotFound("There is no such member here.")
