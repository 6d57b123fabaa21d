"""Commands that are processes: all in one, web, worker; and the migration that comes before them."""

import asyncio

import asyncpg
import click

from app.cli.services import DatabaseRefused, now
from app.cli.stores import open_stores
from app.errors import ConfigurationError
from app.settings import load


@click.command()
def run() -> int:
    """Run everything until Ctrl-C: embedded stores if needed, migrations, web and worker."""
    from app.cli.run import run_everything  # noqa: PLC0415 - each command imports its own process only

    return run_everything(load())


@click.command()
def web() -> int | None:
    """Answer HTTP requests with WEB_WORKERS processes."""
    from app.cli.web import serve  # noqa: PLC0415

    return serve(load())


@click.command()
def worker() -> None:
    """Send what is queued, and clear away what has had its time."""
    from app.worker import main  # noqa: PLC0415

    main(load())


@click.command()
def migrate() -> None:
    """Bring the database to the newest schema. Needs DATABASE_OWNER_URL where DATABASE_URL may not change tables."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    from app.storage.migrate import head, upgrade  # noqa: PLC0415

    settings = load()
    with open_stores(settings) as filled:
        owner_url = filled.database_owner_url or filled.database_url
        if owner_url is None:
            raise ConfigurationError(["DATABASE_URL is missing."])
        try:
            asyncio.run(upgrade(owner_url, now()))
        except (OSError, asyncpg.PostgresError, SQLAlchemyError) as error:
            reason = getattr(error, "orig", None) or error
            raise DatabaseRefused(f"The database can't be migrated: {reason}") from error
    print(f"The database is at revision {head()}.")
