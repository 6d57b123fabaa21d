"""`gatehouse refusals`: what was refused before anybody was known."""

from datetime import UTC, datetime
from typing import Final

import click

from app.audit.listing import MAX_LIMIT
from app.audit.refused import REASONS, RefusedFilters, read_refused
from app.cli.output import print_json, print_table
from app.cli.services import Services, with_services
from app.storage.db import Row

_MOMENTS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]
_COLUMNS: Final = ("hour", "reason", "tenant", "name", "network", "count", "first_at", "last_at")


@click.command()
@click.option("--tenant", "slug", metavar="SLUG", help="At the door of this slug, whether a tenant has it or nobody.")
@click.option("--address", metavar="IP", help="From this address or network.")
@click.option("--reason", type=click.Choice(list(REASONS)), help="For this reason.")
@click.option("--from", "start", type=click.DateTime(_MOMENTS), help="Earliest time, UTC.")
@click.option("--to", "end", type=click.DateTime(_MOMENTS), help="Time before which they began, UTC.")
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=50, show_default=True, help="Rows, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def refusals(
    slug: str | None,
    address: str | None,
    reason: str | None,
    start: datetime | None,
    end: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List what was refused before anybody was known: the limit of an address, names that nobody has. By hour."""

    async def work(services: Services) -> list[Row]:
        filters = RefusedFilters(slug, address, reason, _utc(start), _utc(end), exact=True)
        return list((await read_refused(services.db, filters, cursor=None, limit=limit)).rows)

    rows = with_services(work)
    if as_json:
        print_json([{name: row[name] for name in _COLUMNS} for row in rows])
    else:
        print_table(_COLUMNS, ([row[name] for name in _COLUMNS] for row in rows))


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment else None
