"""The stores a command works on: outside servers, the embedded ones that `gatehouse run` has up, or its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from app import embedded
from app.embedded import StoreFailed, Stores
from app.settings import Settings

# A command that started the servers waits so long for another that has joined in.
_WAIT_FOR_USERS: Final = 30.0


@contextmanager
def open_stores(settings: Settings) -> Iterator[Settings]:
    """The settings with every store's URL filled in, for as long as the context lasts.

    A store with a URL is an outside server and stays the caller's business. The others are the running embedded ones
    or, when there are none, started here and stopped again. Synchronous: open it before the event loop.
    Raises `DataDirectoryBusy`, `DataDirectoryUnusable`, `StoreFailed`.
    """
    if not needs_embedded(settings):
        yield settings
        return
    stores = embedded.share(
        settings.data_dir, postgres=settings.database_url is None, valkey=settings.redis_url is None
    )
    try:
        yield with_stores(settings, stores)
    finally:
        stores.stop(wait_for_users=_WAIT_FOR_USERS)


def needs_embedded(settings: Settings) -> bool:
    """Whether a store has no URL."""
    return settings.database_url is None or settings.redis_url is None


def with_stores(settings: Settings, stores: Stores) -> Settings:
    """Fills in the URLs that are missing. Raises `StoreFailed` when these stores lack one of them."""
    filled = settings
    if settings.database_url is None:
        filled = replace(filled, database_url=stores.database_url, database_owner_url=stores.owner_url)
    if settings.redis_url is None:
        filled = replace(filled, redis_url=stores.redis_url)
    if needs_embedded(filled):
        raise StoreFailed(
            "The running Gatehouse uses an outside server where this command has no URL for one: "
            "give both the same DATABASE_URL and REDIS_URL."
        )
    return filled
