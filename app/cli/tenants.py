"""`gatehouse tenant …`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from app.cli.factors import Owner, reset_factors_of
from app.cli.import_export import export, import_
from app.cli.output import print_cleared, print_fields, print_json, print_table, warn
from app.cli.services import OPERATOR, SHELL, Services, with_services
from app.tenants.model import Tenant
from app.tenants.rules import parse_policy_assignments
from app.tenants.search import MAX_LIMIT, SORTS, Filters

F = TypeVar("F", bound=Callable[..., Any])

# What an empty option puts back; a name has no such thing.
_CLEARED: Final[dict[str, object]] = {
    "email": None,
    "phone_number": None,
    "otp_delivery_method": "email",
    "locale": "en",
    "timezone": "UTC",
}

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _field_options(command: F) -> F:
    """What `add` and `set` have in common. An option that isn't given says nothing; an empty one clears."""
    for option in (
        click.option("--policy", multiple=True, metavar="KEY=VALUE", help="Override a policy; may be repeated."),
        click.option("--timezone", metavar="ZONE", help="Such as Europe/Zurich."),
        click.option("--locale", metavar="TAG", help="Language of messages, such as de or de-CH."),
        click.option("--fallback", multiple=True, metavar="METHOD", help="Next methods, in order; may be repeated."),
        click.option("--method", "otp_delivery_method", metavar="METHOD", help="email, sms, whatsapp or push."),
        click.option("--phone", "phone_number", metavar="NUMBER", help="With its country code: +447700900123."),
        click.option("--email", metavar="ADDRESS"),
    ):
        command = option(command)
    return command


@click.group()
def tenant() -> None:
    """Customer organisations."""


@tenant.command()
@click.argument("slug")
@click.option("--name", required=True)
@_field_options
@_json_option
def add(slug: str, as_json: bool, policy: Sequence[str], fallback: Sequence[str], **options: str | None) -> None:
    """Add a tenant."""
    values = {"slug": slug, **_values(policy, fallback, options)}
    added = with_services(lambda s: s.tenants.create(values, actor=OPERATOR, client=SHELL))
    _show(added, as_json=as_json)


@tenant.command("set")
@click.argument("slug")
@click.option("--name")
@_field_options
@click.option("--status", metavar="STATUS", help="active or suspended.")
@_json_option
def set_(slug: str, as_json: bool, policy: Sequence[str], fallback: Sequence[str], **options: str | None) -> None:
    """Change a tenant; an empty value clears."""
    values = _values(policy, fallback, options)
    if not values:
        raise click.UsageError("Nothing to set: give at least one option, such as --email.")
    _show(with_services(lambda s: s.tenants.update(slug, values, actor=OPERATOR, client=SHELL)), as_json=as_json)


@tenant.command()
@click.argument("slug")
@_json_option
def show(slug: str, as_json: bool) -> None:
    """Show a tenant."""
    _show(with_services(lambda s: s.tenants.get(slug)), as_json=as_json)


@tenant.command("list")
@click.option("--search", default="", help="Part of a name, slug, email or phone number.")
@click.option("--status", help="active or suspended.")
@click.option("--method", help="email, sms, whatsapp or push.")
@click.option("--contact-missing", is_flag=True, default=None, help="Only those no code can be sent to.")
@click.option("--failing", is_flag=True, default=None, help="Only those whose contact a provider called bad.")
@click.option("--sort", default="slug", show_default=True, help=f"{', '.join(SORTS)}; -{SORTS[0]} the other way round.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Most tenants to list.")
@_json_option
def list_(
    search: str,
    status: str | None,
    method: str | None,
    contact_missing: bool | None,
    failing: bool | None,
    sort: str,
    limit: int,
    as_json: bool,
) -> None:
    """List tenants."""
    filters = Filters(
        contacts=True,
        search=search,
        status=status,
        method=method,
        contact_missing=contact_missing,
        failing=failing,
    )
    tenants, more = with_services(lambda s: _list(s, filters, sort, limit))
    if as_json:
        print_json([found.as_json() for found in tenants])
    else:
        head = ["slug", "name", "status", "method", "email", "phone"]
        print_table(head, [(t.slug, t.name, t.status, t.otp_delivery_method, t.email, t.phone_number) for t in tenants])
    if more:
        warn(f"There are more than these {limit}: narrow the search or raise --limit.")


@tenant.command()
@click.argument("slug")
@click.option("--reason", help="Kept at the tenant and in its history.")
@_json_option
def suspend(slug: str, reason: str | None, as_json: bool) -> None:
    """Let nobody of a tenant sign in any more; sessions end at once."""
    _show(with_services(lambda s: s.tenants.suspend(slug, reason, actor=OPERATOR, client=SHELL)), as_json=as_json)


@tenant.command()
@click.argument("slug")
@_json_option
def resume(slug: str, as_json: bool) -> None:
    """Let a suspended tenant sign in again."""
    _show(with_services(lambda s: s.tenants.resume(slug, actor=OPERATOR, client=SHELL)), as_json=as_json)


@tenant.command()
@click.argument("slug")
@_json_option
def unlock(slug: str, as_json: bool) -> None:
    """Forget a tenant's wrong codes, lock and hourly quota, so that a code can be asked for now."""

    async def work(services: Services) -> bool:
        found = await services.tenants.get(slug)
        return await services.unlocking.unlock(found.id, actor=OPERATOR, client=SHELL)

    unlocked = with_services(work)
    if as_json:
        print_json({"unlocked": unlocked})
    else:
        print(f"{slug} is unlocked." if unlocked else f"There was nothing to unlock for {slug}.")


@tenant.command("clear-failing")
@click.argument("slug")
@_json_option
def clear_failing(slug: str, as_json: bool) -> None:
    """Say that a tenant's contact works again, though a provider said that there is no such address or number."""

    async def work(services: Services) -> Sequence[str]:
        found = await services.tenants.get(slug)
        return await services.marks.clear(found.id, actor=OPERATOR, client=SHELL)

    print_cleared(slug, with_services(work), as_json)


@tenant.command("reset-factors")
@click.argument("slug")
def reset_factors(slug: str) -> None:
    """Take away the second factor of a tenant that lost it, and end its sessions. Audited; the contacts are told."""

    async def find(services: Services) -> Owner:
        found = await services.tenants.get(slug)
        return found.id, "tenant", found.id

    reset_factors_of(slug, find)


tenant.add_command(import_)
tenant.add_command(export)


async def _list(services: Services, filters: Filters, sort: str, limit: int) -> tuple[list[Tenant], bool]:
    """The first `limit` tenants, and whether there are more."""
    found: list[Tenant] = []
    cursor: str | None = None
    while len(found) < limit:
        size = min(MAX_LIMIT, limit - len(found))
        page = await services.tenants.list(filters, sort=sort, cursor=cursor, limit=size)
        found += page.tenants
        cursor = page.next
        if cursor is None:
            break
    return found, cursor is not None


def _values(policy: Sequence[str], fallback: Sequence[str], options: dict[str, str | None]) -> dict[str, object]:
    """The fields that the given options name, in the form of the HTTP contract."""
    values: dict[str, object] = {
        name: _CLEARED.get(name, text) if text == "" else text for name, text in options.items() if text is not None
    }
    if fallback:
        values["fallback_methods"] = [method.strip() for listed in fallback for method in listed.split(",") if method]
    if policy:
        values["policy"] = parse_policy_assignments(policy)
    return values


def _show(shown: Tenant, *, as_json: bool) -> None:
    if as_json:
        print_json(shown.as_json())
        return
    fields = shown.as_json()
    if shown.status_reason:
        fields["status"] = f"{shown.status} ({shown.status_reason})"
    print_fields(fields)
    if shown.contact_missing:
        sys.stdout.flush()
        warn(f"No code can be sent to {shown.slug}: Tenant contact information missing.")
