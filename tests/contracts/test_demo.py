"""What `gatehouse demo` begins with."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from app.cli.demo import demo, seed
from app.errors import ConfigurationError
from app.settings import Settings
from app.storage.db import Database
from app.storage.migrate import upgrade
from tests.stores import StoresOfTests


async def test_it_has_tenants_in_every_state_and_nothing_twice(settings: Settings, stores: StoresOfTests) -> None:
    """An empty database gets tenants with and without contacts, one suspended; a second start adds none."""
    name = f"demo_{uuid4().hex[:8]}"
    await stores.create_database(name)
    await upgrade(stores.owner_url_for(name), datetime.now(UTC))
    url = stores.app_url_for(name)
    running = replace(settings, environment="development", database_url=url, sms_enabled=True, whatsapp_enabled=True)
    assert (await seed(running))[0] == "admin@example.com is the first owner."
    await seed(running)
    db = Database(url)
    await db.open()
    async with db.every_tenant() as connection:
        rows = await connection.fetch("SELECT slug, status, email, phone_number FROM tenants WHERE slug <> '_system'")
    await db.close()
    assert len(rows) == 8
    assert {row["slug"] for row in rows if row["status"] == "suspended"} == {"old-mill"}
    assert {row["slug"] for row in rows if not row["email"] and not row["phone_number"]} == {"quiet-corner"}


def test_it_keeps_off_other_peoples_data(settings: Settings) -> None:
    """With a database of somebody's, or in production, it says no."""
    for refused in (settings, replace(settings, database_url=None, environment="production")):
        with pytest.raises(ConfigurationError):
            demo(refused)
