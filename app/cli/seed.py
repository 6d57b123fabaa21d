"""What a new installation begins with: its first owner and, in development, a tenant to try."""

from contextlib import suppress
from typing import Final

from app.cli.services import OPERATOR, SHELL, Services, services
from app.errors import AlreadyExists
from app.settings import Settings
from app.tenants.search import Filters

_DEMO: Final = {
    "slug": "demo",
    "name": "Demo Organisation",
    "email": "demo@example.com",
    "phone_number": "+447700900123",
    "otp_delivery_method": "email",
}


async def first_run(settings: Settings) -> list[str]:
    """Makes what isn't there; answers with lines that tell of it, or of what somebody has to do.

    Needs migrated stores whose URLs are in `settings`. Doing it again, or twice at once, makes nothing twice.
    Raises `Unavailable`.
    """
    async with services(settings) as opened:
        lines = await _first_owner(opened)
        if settings.environment == "development":
            lines += await _demo_tenant(opened)
    return lines


async def _first_owner(opened: Services) -> list[str]:
    if await opened.admins.list():
        return []
    email = opened.settings.admin_email
    if email is None:
        return ["There is no admin yet: gatehouse admin add you@your-company.example --role owner"]
    with suppress(AlreadyExists):
        await opened.admins.add(email, "owner", actor=OPERATOR, client=SHELL)
    return [f"{email} is the first owner."]


async def _demo_tenant(opened: Services) -> list[str]:
    if await opened.tenants.count(Filters(contacts=False), at_most=1):
        return []
    with suppress(AlreadyExists):
        await opened.tenants.create(_DEMO, actor=OPERATOR, client=SHELL)
    return [f"A tenant to try is there: {_DEMO['slug']} ({_DEMO['email']}, {_DEMO['phone_number']})."]
