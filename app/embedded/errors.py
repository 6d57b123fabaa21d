"""What can go wrong with the embedded servers.

GatehouseError
├── DataDirectoryBusy       another process runs the servers of this directory
├── DataDirectoryUnusable   it can't be written, or isn't safe, or is another version's
└── StoreFailed             a server did not start; carries what it said
"""

from pathlib import Path

from app.errors import GatehouseError


class DataDirectoryBusy(GatehouseError):
    """Somebody else holds the lock. `pid` is theirs, None in the instant before they have written it down."""

    code = "data-directory-busy"

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        self.pid = pid
        who = f"pid {pid}" if pid else "pid not known yet"
        super().__init__(
            f"Gatehouse is already running on {data_dir} ({who}). Stop it, or set DATA_DIR to another directory."
        )


class DataDirectoryUnusable(GatehouseError):
    """The directory needs the operator's hand before anything can be kept in it."""

    code = "data-directory-unusable"


class StoreFailed(GatehouseError):
    """An embedded server did not come up, or did not stay up."""

    code = "store-failed"
