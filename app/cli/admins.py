"""`gatehouse admin …` and `gatehouse api-key …`."""

from uuid import UUID

import click

from app.auth.admins import ROLES, Admin
from app.auth.api_keys import SCOPES, ApiKey
from app.auth.links import LIFETIME, Links
from app.auth.sessions import Sessions
from app.cli.factors import Owner, reset_factors_of
from app.cli.output import print_json, print_table
from app.cli.services import OPERATOR, SHELL, Services, now, with_services
from app.errors import NotFound
from app.keys import KeyRing
from app.storage import SYSTEM_TENANT

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_role_option = click.option("--role", default="viewer", show_default=True, help=f"{', '.join(ROLES)}.")


@click.group()
def admin() -> None:
    """People who look after tenants."""


@admin.command("add")
@click.argument("email")
@click.option("--role", default="owner", show_default=True, help=f"{', '.join(ROLES)}.")
@click.option("--name", help="Shown to colleagues instead of the address.")
@_json_option
def add_admin(email: str, role: str, name: str | None, as_json: bool) -> None:
    """Add an admin, who can sign in at once."""
    added = with_services(lambda s: s.admins.add(email, role, name, actor=OPERATOR, client=SHELL))
    if as_json:
        print_json(added.as_json())
    else:
        print(f"{added.email} is now an admin ({added.role}).")


@admin.command("list")
@_json_option
def list_admins(as_json: bool) -> None:
    """List all admins."""
    admins = with_services(lambda s: s.admins.list())
    if as_json:
        print_json([admin.as_json() for admin in admins])
    else:
        print_table(["email", "name", "role", "status", "last sign-in"], map(_admin_row, admins))


@admin.command("suspend")
@click.argument("email")
@click.option("--keys-to", metavar="EMAIL", help="The owner who takes over the admin's API keys; without it they end.")
def suspend_admin(email: str, keys_to: str | None) -> None:
    """Shut an admin out: signed out at once, and no code, link or API key of theirs works any more."""

    async def suspend(services: Services) -> Admin:
        found = await _admin(services, email)
        heir = await _admin(services, keys_to) if keys_to else None
        return await services.admins.change(
            found.id, status="suspended", keys_to=heir.id if heir else None, actor=OPERATOR, client=SHELL
        )

    suspended = with_services(suspend)
    print(f"{suspended.email} is suspended." + (f" Their API keys are {keys_to}'s now." if keys_to else ""))


@admin.command("login-link")
@click.argument("email")
@_json_option
def login_link(email: str, as_json: bool) -> None:
    """Print a link that signs an admin in, once, within ten minutes: for when nothing else works. Audited."""
    url = with_services(lambda s: _login_link(s, email))
    if as_json:
        print_json({"url": url, "expires_in": int(LIFETIME.total_seconds())})
    else:
        print(url)


@admin.command("reset-factors")
@click.argument("email")
def reset_factors(email: str) -> None:
    """Take away the second factor of an admin who lost it, and end their sessions. Audited; the admin is told."""

    async def find(services: Services) -> Owner:
        return SYSTEM_TENANT, "admin", (await _admin(services, email)).id

    reset_factors_of(email, find)


@click.group()
def api_key() -> None:
    """Keys to the admin API."""


@api_key.command("add")
@click.argument("name")
@_role_option
@click.option("--scope", "scopes", multiple=True, help=f"{', '.join(SCOPES)}; repeatable; all without it.")
@_json_option
def add_key(name: str, role: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make a key and show it, this once."""
    key, text = with_services(lambda s: s.api_keys.create(name, role, scopes or SCOPES, actor=OPERATOR, client=SHELL))
    if as_json:
        print_json({**key.as_json(), "key": text})
    else:
        print(text)


@api_key.command("list")
@_json_option
def list_keys(as_json: bool) -> None:
    """List all keys, without their secrets."""
    keys = with_services(lambda s: s.api_keys.list())
    if as_json:
        print_json([key.as_json() for key in keys])
    else:
        print_table(["id", "name", "role", "scopes", "created", "last used", "revoked"], map(_key_row, keys))


@api_key.command("revoke")
@click.argument("key_id", metavar="ID", type=click.UUID)
def revoke_key(key_id: UUID) -> None:
    """Refuse a key from now on."""
    with_services(lambda s: s.api_keys.revoke(key_id, actor=OPERATOR, client=SHELL))
    print("The key is revoked.")


async def _admin(services: Services, email: str) -> Admin:
    """The admin with this address. Raises `NotFound`."""
    found = await services.admins.find(email)
    if found is None:
        raise NotFound(f"No admin has the address {email}.")
    return found


async def _login_link(services: Services, email: str) -> str:
    found = await services.admins.find(email)
    if found is None or found.status != "active":
        raise NotFound(f"No active admin has the address {email}.")
    settings = services.settings
    links = Links(services.db, Sessions(services.db, KeyRing(settings.secret_keys), settings, now), now)
    token = await links.create(SYSTEM_TENANT, ("admin", found.id), OPERATOR, SHELL)
    return f"{settings.public_url}/admin/link/{token}"


def _admin_row(admin: Admin) -> list[object]:
    return [admin.email, admin.name, admin.role, admin.status, admin.last_sign_in_at]


def _key_row(key: ApiKey) -> list[object]:
    return [key.id, key.name, key.role, " ".join(key.scopes), key.created_at, key.last_used_at, key.revoked_at]
