"""`gatehouse demo`: an instance to play with, with tenants in every state, beside the data of `gatehouse run`."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from app.cli.run import run_everything
from app.cli.seed import first_run
from app.cli.services import OPERATOR, SHELL, services
from app.errors import AlreadyExists, ConfigurationError
from app.settings import Settings, load

_TENANTS: Final[tuple[dict[str, Any], ...]] = (
    {"slug": "northwind", "name": "Northwind Energy", "email": "office@northwind.example", "locale": "en-GB"},
    {"slug": "helvetia-bau", "name": "Helvetia Bau AG", "email": "post@helvetia-bau.example", "locale": "de-CH"},
    {"slug": "maison-claire", "name": "Maison Claire", "email": "contact@maison-claire.example", "locale": "fr-FR"},
    {
        "slug": "al-noor",
        "name": "Al Noor Trading",
        "email": "info@al-noor.example",
        "phone_number": "+971501234567",
        "otp_delivery_method": "whatsapp",
        "fallback_methods": ["sms", "email"],
        "locale": "ar-AE",
        "timezone": "Asia/Dubai",
    },
    {
        "slug": "ganges-retail",
        "name": "Ganges Retail",
        "phone_number": "+919876543210",
        "otp_delivery_method": "sms",
        "locale": "hi-IN",
        "timezone": "Asia/Kolkata",
        "policy": {"max_attempts": 3, "code_ttl_seconds": 180, "per_minute_limit": 3},
    },
    {"slug": "quiet-corner", "name": "Quiet Corner (no contact yet)"},
    {"slug": "old-mill", "name": "Old Mill Ltd", "email": "miller@old-mill.example"},
)
_SUSPENDED: Final = ("old-mill", "The contract ended in spring.")


def demo(settings: Settings) -> int:
    """Runs Gatehouse on data of its own below DATA_DIR.

    Raises `ConfigurationError` in production and where a database is named.
    """
    if settings.production or settings.database_url is not None:
        raise ConfigurationError(["ENVIRONMENT and DATABASE_URL: the demo runs in development, on its own database."])
    # The processes below read the environment too.
    os.environ["DATA_DIR"] = str(Path(settings.data_dir, "demo"))
    return run_everything(load(), seed)


async def seed(settings: Settings) -> list[str]:
    """What `gatehouse run` begins with, and tenants to look at. Adds nothing twice."""
    lines = await first_run(settings)
    async with services(settings) as opened:
        for fields in _TENANTS:
            with suppress(AlreadyExists):
                tenant = await opened.tenants.create(fields, actor=OPERATOR, client=SHELL)
                if tenant.slug == _SUSPENDED[0]:
                    await opened.tenants.suspend(tenant.slug, _SUSPENDED[1], actor=OPERATOR, client=SHELL)
    return [*lines, f"More tenants: {', '.join(fields['slug'] for fields in _TENANTS)}."]
