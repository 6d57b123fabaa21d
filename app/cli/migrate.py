"""`gatehouse migrate`."""

import asyncio

import asyncpg
import click
from sqlalchemy.exc import SQLAlchemyError

from app.cli.services import DatabaseRefused, now
from app.cli.stores import open_stores
from app.settings import load
from app.storage.migrate import head, upgrade


@click.command()
def migrate() -> None:
    """Bring the database to the newest schema. Needs DATABASE_OWNER_URL where DATABASE_URL may not change tables."""
    with open_stores(load()) as settings:
        owner_url = settings.database_owner_url or settings.database_url
        assert owner_url is not None  # noqa: S101 - open_stores has filled it in
        try:
            asyncio.run(upgrade(owner_url, now()))
        except (OSError, asyncpg.PostgresError, SQLAlchemyError) as error:
            reason = getattr(error, "orig", None) or error
            raise DatabaseRefused(f"The database can't be migrated: {reason}") from error
    print(f"The database is at revision {head()}.")
