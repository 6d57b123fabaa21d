"""`gatehouse member …`: the people inside a tenant."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, BinaryIO, Final, TypeVar
from uuid import UUID

import click

from app.cli.factors import Owner, reset_factors_of
from app.cli.output import one_line, print_cleared, print_fields, print_json, print_table, warn
from app.cli.services import OPERATOR, SHELL, Services, with_services
from app.errors import NotFound
from app.members.invitations import Invitation
from app.members.model import Member
from app.members.search import MAX_LIMIT, Filters

F = TypeVar("F", bound=Callable[..., Any])

_FAILED: Final = 1
_CLEARED: Final[dict[str, object]] = {"email": None, "phone_number": None, "preferred_method": None, "locale": "en"}
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_who = click.argument("who", metavar="MEMBER")


def _field_options(command: F) -> F:
    """What `add` and `set` have in common. An option that isn't given says nothing; an empty one clears."""
    for option in (
        click.option("--must-verify/--no-must-verify", default=None, help="An address counts once it is proven."),
        click.option("--codes/--no-codes", "codes_enabled", default=None, help="Whether a code follows the password."),
        click.option("--locale", metavar="TAG", help="Language of messages, such as de or de-CH."),
        click.option("--method", "preferred_method", metavar="METHOD", help="email, sms or whatsapp."),
        click.option("--phone", "phone_number", metavar="NUMBER", help="With its country code: +447700900123."),
        click.option("--email", metavar="ADDRESS"),
        click.option("--status", metavar="STATUS", help="active, suspended, or pending for somebody invited."),
    ):
        command = option(command)
    return command


@click.group()
def member() -> None:
    """People inside a tenant. MEMBER is an id, an email address or a phone number."""


@member.command()
@click.argument("slug")
@click.option("--name", required=True)
@_field_options
@_json_option
def add(slug: str, as_json: bool, **options: Any) -> None:
    """Add a member to a tenant."""
    values = _values(options)
    _show(with_services(lambda s: s.members.create(slug, values, actor=OPERATOR, client=SHELL)), as_json=as_json)


@member.command("set")
@click.argument("slug")
@_who
@click.option("--name")
@_field_options
@_json_option
def set_(slug: str, who: str, as_json: bool, **options: Any) -> None:
    """Change a member; an empty value clears."""
    values = _values(options)
    if not values:
        raise click.UsageError("Nothing to set: give at least one option, such as --email.")
    _show(_change(slug, who, values), as_json=as_json)


@member.command()
@click.argument("slug")
@_who
@_json_option
def show(slug: str, who: str, as_json: bool) -> None:
    """Show a member."""
    _show(with_services(lambda s: _find(s, slug, who)), as_json=as_json)


@member.command("list")
@click.argument("slug")
@click.option("--search", default="", help="Part of a name, email or phone number.")
@click.option("--status", help="active, suspended or pending.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Most members to list.")
@_json_option
def list_(slug: str, search: str, status: str | None, limit: int, as_json: bool) -> None:
    """List the members of a tenant by name."""
    members, more = with_services(lambda s: _list(s, slug, search, status, limit))
    if as_json:
        print_json([found.as_json() for found in members])
    else:
        head = ["name", "status", "email", "phone", "codes"]
        print_table(
            head, [(m.name, m.status, m.email, m.phone_number, "on" if m.codes_enabled else "off") for m in members]
        )
    if more:
        warn(f"There are more than these {limit}: narrow the search or raise --limit.")


@member.command("import")
@click.argument("slug")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and list every fault.")
@_json_option
def import_(slug: str, file: BinaryIO, dry_run: bool, as_json: bool) -> int:
    """Add and change members from a CSV FILE, all or nothing; - reads stdin.

    Its header has the fields' names: name, email, phone_number, preferred_method, locale, status, codes_enabled,
    must_verify. A row with faults ends with exit code 1.
    """
    body = file.read()
    report = with_services(lambda s: s.members.import_(slug, body, dry_run=dry_run, actor=OPERATOR, client=SHELL))
    if as_json:
        faults = [{"row": fault.row, "field": fault.field, "detail": fault.detail} for fault in report.faults]
        print_json({"applied": report.applied, **report.counts, "errors": faults})
    else:
        for fault in report.faults:
            print(one_line(f"row {fault.row}: {fault.field}: {fault.detail}"))
        done = "Done" if report.applied else "Nothing was changed"
        counted = ", ".join(
            f"{number} {outcome}" for outcome, number in report.counts.items() if number or outcome != "faulty"
        )
        print(f"{done}: {counted}.")
    return _FAILED if report.faults else 0


@member.command()
@click.argument("slug")
@_json_option
def stats(slug: str, as_json: bool) -> None:
    """Count members' codes and sign-ins, over 24 hours, 7 and 30 days."""
    spans = with_services(lambda s: s.members.stats(slug))
    if as_json:
        print_json([asdict(span) | {"success_rate": span.success_rate} for span in spans])
        return
    head = ["last", "asked for", "sent", "delivered", "wrong", "locked", "signed in", "success"]
    rows = [
        (s.name, s.requested, s.sent, s.delivered, s.wrong, s.locked, s.verified, _percent(s.success_rate))
        for s in spans
    ]
    print_table(head, [tuple(map(str, row)) for row in rows])


@member.command()
@click.argument("slug")
@_who
@_json_option
def suspend(slug: str, who: str, as_json: bool) -> None:
    """Let a member sign in no more; sessions end at once."""
    _show(_change(slug, who, {"status": "suspended"}), as_json=as_json)


@member.command()
@click.argument("slug")
@_who
@_json_option
def resume(slug: str, who: str, as_json: bool) -> None:
    """Let a suspended member sign in again."""
    _show(_change(slug, who, {"status": "active"}), as_json=as_json)


@member.command()
@click.argument("slug")
@_who
def invite(slug: str, who: str) -> None:
    """Send a pending member the invitation to register again."""

    async def work(services: Services) -> Invitation:
        found = await _find(services, slug, who)
        return await services.members.invite(slug, found.id, actor=OPERATOR, client=SHELL)

    print(f"The invitation goes out by {with_services(work).channel}.")


@member.command()
@click.argument("slug")
@_who
@_json_option
def unlock(slug: str, who: str, as_json: bool) -> None:
    """Forget wrong codes and passwords, the lock and the hourly quota of a member."""

    async def work(services: Services) -> bool:
        found = await _find(services, slug, who)
        return await services.unlocking.unlock(found.tenant_id, found.id, actor=OPERATOR, client=SHELL)

    unlocked = with_services(work)
    if as_json:
        print_json({"unlocked": unlocked})
    else:
        print("The member is unlocked." if unlocked else "There was nothing to unlock for this member.")


@member.command("clear-failing")
@click.argument("slug")
@_who
@_json_option
def clear_failing(slug: str, who: str, as_json: bool) -> None:
    """Say that a member's contact works again, though a provider said that there is no such address or number."""

    async def work(services: Services) -> Sequence[str]:
        found = await _find(services, slug, who)
        return await services.marks.clear(found.tenant_id, found.id, actor=OPERATOR, client=SHELL)

    print_cleared("the member", with_services(work), as_json)


@member.command("reset-factors")
@click.argument("slug")
@_who
def reset_factors(slug: str, who: str) -> None:
    """Take away the second factor of a member who lost it, and end their sessions. Audited; the member is told."""

    async def find(services: Services) -> Owner:
        found = await _find(services, slug, who)
        return found.tenant_id, "member", found.id

    reset_factors_of(who, find)


@member.command()
@click.argument("slug")
@click.argument("switch", type=click.Choice(["on", "off"]))
def codes(slug: str, switch: str) -> None:
    """Switch codes after the password on or off for all members of a tenant."""
    changed = with_services(lambda s: s.members.switch_codes(slug, switch == "on", actor=OPERATOR, client=SHELL))
    print(f"Codes are {switch}; {changed} members changed.")


@member.command()
@click.argument("slug")
@_who
def export(slug: str, who: str) -> None:
    """Print all that is kept of one person, as JSON."""

    async def work(services: Services) -> dict[str, Any]:
        found = await _find(services, slug, who)
        return await services.members.export(slug, found.id, actor=OPERATOR, client=SHELL)

    print_json(with_services(work))


@member.command()
@click.argument("slug")
@_who
@click.option("--yes", is_flag=True, help="Don't ask whether it is meant.")
def erase(slug: str, who: str, yes: bool) -> None:
    """Delete all that is kept of one person; the audit log keeps an id that leads to nobody."""
    if not yes and not _agrees("Delete all that is kept of this person? There is no way back."):
        raise click.UsageError("Nothing was erased: answer y, or give --yes.")

    async def work(services: Services) -> None:
        found = await _find(services, slug, who)
        await services.members.erase(slug, found.id, actor=OPERATOR, client=SHELL)

    with_services(work)
    print("Erased.")


def _agrees(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        # Nobody is there to answer.
        return False


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _change(slug: str, who: str, values: dict[str, object]) -> Member:
    async def work(services: Services) -> Member:
        found = await _find(services, slug, who)
        return await services.members.update(slug, found.id, values, actor=OPERATOR, client=SHELL)

    return with_services(work)


async def _find(services: Services, slug: str, who: str) -> Member:
    try:
        return await services.members.get(slug, UUID(who))
    except ValueError:
        return await services.members.find(slug, who)
    except NotFound:
        raise NotFound(f"No member of {slug} has the id {who}.") from None


async def _list(
    services: Services, slug: str, search: str, status: str | None, limit: int
) -> tuple[list[Member], bool]:
    """The first `limit` members, and whether there are more."""
    found: list[Member] = []
    cursor: str | None = None
    while len(found) < limit:
        size = min(MAX_LIMIT, limit - len(found))
        page = await services.members.page(slug, Filters(search, status, contacts=True), cursor=cursor, limit=size)
        found += page.members
        cursor = page.next
        if cursor is None:
            break
    return found, cursor is not None


def _values(options: dict[str, Any]) -> dict[str, object]:
    """The fields that the given options name."""
    return {
        name: _CLEARED.get(name, value) if value == "" else value
        for name, value in options.items()
        if value is not None
    }


def _show(shown: Member, *, as_json: bool) -> None:
    if as_json:
        print_json(shown.as_json())
    else:
        print_fields(shown.as_json())
