"""Rows of a file put in place one after the other, in the caller's transaction: it stays or goes as a whole."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from app.audit.log import Actor, Client
from app.errors import AlreadyExists, InvalidRequest
from app.members import changes, invitations
from app.members.files import Outcome, Report, RowFault, RowReport, faults_of, masked_faults
from app.members.home import Home
from app.members.model import DECIDED, SELECTED, changed_fields

BY_CONTACT: Final = f"SELECT {SELECTED} FROM members WHERE tenant_id = $1 AND (email = $2 OR phone_number = $2)"


async def load(
    home: Home,
    now: datetime,
    rows: Sequence[Mapping[str, Any]],
    actor: Actor,
    client: Client,
    channels: Collection[str],
) -> Report:
    """Adds and changes members, row by row, and tells what each row did or what is wrong with it."""
    done: list[RowReport] = []
    faults: list[RowFault] = []
    for number, values in enumerate(rows, start=2):
        wrong = masked_faults(number, values)
        outcome: Outcome = "faulty"
        fields: Sequence[str] = ()
        try:
            # A fault of one row leaves the transaction usable for the next.
            async with home.connection.transaction():
                if not wrong:
                    outcome, fields = await _put(home, now, values, actor, client, channels)
        except (InvalidRequest, AlreadyExists) as refusal:
            wrong = faults_of(number, refusal)
        done.append(RowReport(number, str(values.get("name", "")), outcome, fields))
        faults += wrong
    return Report(done, faults)


async def _put(
    home: Home, now: datetime, values: Mapping[str, Any], actor: Actor, client: Client, channels: Collection[str]
) -> tuple[Outcome, Sequence[str]]:
    draft = changes.drafted(home.tenant_id, values, now, home.region)
    row = None
    for contact in filter(None, (draft.email, draft.phone_number)):
        row = row or await home.connection.fetchrow(BY_CONTACT, home.tenant_id, contact)
    before = await changes.locked(home.connection, home.tenant_id, row["id"]) if row else None
    member = changes.edited(before, values, home.region) if before else draft
    after = await changes.save(home.connection, now, before, member, actor, client, channels)
    if before is None:
        await invitations.welcome(home.connection, now, after, actor, client, channels)
        return "new", [name for name in DECIDED if name in values and getattr(after, name) is not None]
    fields = changed_fields(before, after)
    return "changed" if fields else "unchanged", fields
