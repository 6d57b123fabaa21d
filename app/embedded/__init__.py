"""PostgreSQL and Valkey from wheels, for whoever has set neither DATABASE_URL nor REDIS_URL."""

from app.embedded.errors import DataDirectoryBusy, DataDirectoryUnusable, StoreFailed
from app.embedded.postgres import APP_ROLE, DATABASE, OWNER_ROLE
from app.embedded.stores import Stores, holder, running, share, start

__all__ = [
    "APP_ROLE",
    "DATABASE",
    "OWNER_ROLE",
    "DataDirectoryBusy",
    "DataDirectoryUnusable",
    "StoreFailed",
    "Stores",
    "holder",
    "running",
    "share",
    "start",
]
