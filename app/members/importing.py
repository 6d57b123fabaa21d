"""Rows of a file put in place one after the other, in the caller's transaction: it stays or goes as a whole."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from app.audit.log import Actor, Client
from app.errors import AlreadyExists, ContactMissing, FieldError, InvalidRequest
from app.members import changes, invitations
from app.members.files import MemberRow, Outcome, Report, RowReport, faults_of, masked_faults
from app.members.home import Home
from app.members.model import DECIDED, SELECTED, changed_fields
from app.tenants.batches import one_by_one

_NAME_SHOWN: Final = 120
BY_CONTACT: Final = f"SELECT {SELECTED} FROM members WHERE tenant_id = $1 AND (email = $2 OR phone_number = $2)"

_LOCK: Final = "SELECT fn.lock_subject($1, false)"


async def load(
    home: Home,
    now: datetime,
    rows: Iterable[MemberRow],
    actor: Actor,
    client: Client,
    channels: Collection[str],
) -> Report:
    """Adds and changes members, row by row, and tells what each row did or what is wrong with it.

    Raises what reading the rows raises, which is done in a thread: others get their turn meanwhile.
    """
    # Before the first row is written: the removal of the tenant waits for both, in this order.
    await home.connection.execute(_LOCK, home.tenant_id)
    loading = _Loading(home, now, actor, client, channels)
    report = Report()
    async for row in one_by_one(rows):
        wrong = [*row.faults, *masked_faults(row.number, row.values)]
        outcome: Outcome = "faulty"
        fields: Sequence[str] = ()
        try:
            if not wrong:
                # A fault of one row leaves the transaction usable for the next.
                async with home.connection.transaction():
                    outcome, fields = await loading.put(row.number, row.values)
        except (InvalidRequest, AlreadyExists, ContactMissing) as refusal:
            wrong = faults_of(row.number, refusal)
        report.add(RowReport(row.number, str(row.values.get("name", ""))[:_NAME_SHOWN], outcome, fields), wrong)
    return report


@dataclass(frozen=True, slots=True)
class _Loading:
    """One file on its way in; `rows_of` tells which row each member of it was in."""

    home: Home
    now: datetime
    actor: Actor
    client: Client
    channels: Collection[str]
    rows_of: dict[UUID, int] = field(default_factory=dict)

    async def put(self, number: int, values: Mapping[str, Any]) -> tuple[Outcome, Sequence[str]]:
        """Puts one row in place. Raises `InvalidRequest`, `AlreadyExists`."""
        connection, tenant_id, region = self.home.connection, self.home.tenant_id, self.home.region
        draft = changes.drafted(tenant_id, values, self.now, region)
        row = None
        for contact in filter(None, (draft.email, draft.phone_number)):
            row = row or await connection.fetchrow(BY_CONTACT, tenant_id, contact)
        if row and row["id"] in self.rows_of:
            # One of the two would be lost without a word.
            named = "email" if row["email"] == draft.email else "phone_number"
            earlier = self.rows_of[row["id"]]
            raise InvalidRequest(FieldError(f"/{named}", f"Row {earlier} is about this member already."))
        before = await changes.locked(connection, tenant_id, row["id"]) if row else None
        member = changes.edited(before, values, region) if before else draft
        after = await changes.save(connection, self.now, before, member, self.actor, self.client, self.channels)
        self.rows_of[after.id] = number
        if before is None:
            await invitations.welcome(connection, self.now, after, self.actor, self.client, self.channels)
            return "new", [name for name in DECIDED if name in values and getattr(after, name) is not None]
        fields = changed_fields(before, after)
        return "changed" if fields else "unchanged", fields
