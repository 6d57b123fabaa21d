"""`gatehouse audit …`."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import click

from app.audit.chain import month_name, month_of
from app.audit.checkpoints import Checkpoint
from app.audit.export import EventFilters, as_csv, as_json_lines, event_pages
from app.audit.retention import MONTHS_KEPT, Pruned, default_month, prune
from app.audit.sealing import seal_once
from app.audit.verdict import Verdict
from app.audit.verification import verify
from app.cli.output import print_fields, print_json, warn
from app.cli.services import Services, now, with_services
from app.keys import KeyRing
from app.storage.db import Database

_FAILED: Final = 1
_FORMATS: Final = {"csv": as_csv, "jsonl": as_json_lines}
_MOMENTS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]


@click.group()
def audit() -> None:
    """The tamper-evident log of who did what."""


@audit.command("verify")
@click.option("--checkpoint", "checkpoints", multiple=True, metavar="GHC", help="One kept elsewhere; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_(checkpoints: Sequence[str], as_json: bool) -> int:
    """Check the whole log against its seals. Exit code 1 when anything was changed, removed or inserted."""
    given = [Checkpoint.parse(text) for text in checkpoints]
    verdict = with_services(lambda s: verify(s.db, _ring(s), checkpoints=given))
    if as_json:
        print_json(verdict.as_json())
    else:
        _show(verdict)
    return 0 if verdict.intact else _FAILED


@audit.command()
@click.option("--format", "format_", type=click.Choice(list(_FORMATS)), default="csv", show_default=True)
@click.option("--tenant", "slug", metavar="SLUG", help="Of one tenant only.")
@click.option("--from", "start", type=click.DateTime(_MOMENTS), help="Earliest time, UTC.")
@click.option("--to", "end", type=click.DateTime(_MOMENTS), help="Time before which events end, UTC.")
@click.option("--action", help="Such as tenant.updated, or tenant.* for all that begin like it.")
def export(format_: str, slug: str | None, start: datetime | None, end: datetime | None, action: str | None) -> None:
    """Write events to stdout, oldest first."""

    async def work(services: Services) -> None:
        tenant = await services.tenants.get(slug) if slug else None
        filters = EventFilters(tenant.id if tenant else None, _utc(start), _utc(end), action)
        async for chunk in _FORMATS[format_](event_pages(services.db, filters, sees_contacts=True)):
            sys.stdout.write(chunk.decode())

    with_services(work)


@audit.command("prune")
@click.option("--before", metavar="YYYY-MM", help=f"First month to keep. Default: {MONTHS_KEPT} months ago.")
def prune_(before: str | None) -> None:
    """Remove old months for good; the chain stays checkable. Needs DATABASE_OWNER_URL."""
    month = default_month(now()) if before is None else _month(before)

    async def work(services: Services) -> Pruned:
        await seal_once(services.db, _ring(services), now())
        url = services.settings.database_owner_url or services.settings.database_url
        assert url is not None  # noqa: S101 - with_services has filled it in
        owner = Database(url, size=1, application="gatehouse-cli", logs=False)
        await owner.open()
        try:
            return await prune(owner, _ring(services), now(), month)
        finally:
            await owner.close()

    pruned = with_services(work)
    print(f"Removed {pruned.events} events from before {month_name(month)}.")


def _show(verdict: Verdict) -> None:
    for finding in verdict.findings:
        print(finding.sentence)
    if verdict.faults > len(verdict.findings):
        print(f"... and {verdict.faults - len(verdict.findings)} more.")
    print("The audit log is intact." if verdict.intact else "The audit log is NOT intact.")
    print_fields(
        {
            "events checked": verdict.events,
            "batches": verdict.batches,
            "pruned by retention": f"{verdict.pruned_batches} batches, {verdict.pruned_events} events",
            "not sealed yet": f"{verdict.unsealed_events} events",
            "oldest of those": verdict.unsealed_since,
            "checkpoint": verdict.checkpoint,
        }
    )
    if verdict.unsealed_events:
        warn("Events that are not sealed yet can't be checked. A running worker seals within 10 seconds.")


def _ring(services: Services) -> KeyRing:
    return KeyRing(services.settings.secret_keys)


def _month(text: str) -> int:
    try:
        datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a month such as 2025-02.", param_hint="--before") from None
    return month_of(text)


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment else None
