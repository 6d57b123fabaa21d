"""Private files and directories, locks, and where the servers keep theirs.

DATA_DIR/
  lock               held by whoever runs the servers; says who
  users              held, shared, by those who use them
  runtime.json       the URLs, while they are up
  credentials.json   the passwords, for good
  secret.key         made by app.settings, in development
  servers/           belongs to the servers' user (account.py); a link to /var/lib/gatehouse if they can't reach it here
    postgres/  valkey.conf  log/
    run/             sockets; a link to the temporary directory if this path doesn't do for one
"""

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.embedded.account import Account, leave_shared_account, server_account, state_dir
from app.embedded.errors import DataDirectoryUnusable
from app.settings.directory import unsafe

# sun_path holds 104 bytes on macOS and 108 on Linux, a NUL among them.
_SOCKET_PATH_LIMIT: Final = 103
_LONGEST_SOCKET: Final = "/.s.PGSQL.5432"
# Clients and servers read commas, colons, percent signs and quotes in a socket's path each in their own way.
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9/._-]+")
_OURS: Final = frozenset({"lock", "users", "runtime.json", "credentials.json", "secret.key"})


@contextmanager
def told_plainly(data_dir: Path) -> Iterator[None]:
    """Turns an OSError into `DataDirectoryUnusable`, which says what to do."""
    try:
        yield
    except OSError as error:
        raise DataDirectoryUnusable(
            f"The data directory {data_dir} can't be used: {error}. "
            "Make it writable for this user, or set DATA_DIR to another directory."
        ) from error


def prepare_data_dir(path: Path) -> Path:
    """Makes the directory if need be, 0700, and answers with its real path. Raises `DataDirectoryUnusable`."""
    data_dir = Path(os.path.realpath(path))
    with told_plainly(data_dir):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if reason := unsafe(path) or unsafe(data_dir):
            raise DataDirectoryUnusable(f"The data directory {reason}")
        if not os.access(data_dir, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied", str(data_dir))
    return data_dir


def prepare_servers_dir(data_dir: Path) -> tuple[Path, Account | None]:
    """The servers' own directory, 0700, and the user they run as. Raises `DataDirectoryUnusable`.

    The link it may be is kept, so data that once had to live elsewhere is found again.
    """
    link = data_dir / "servers"
    with told_plainly(data_dir):
        servers = Path(os.path.realpath(link))
        if link.is_symlink() and not servers.is_dir():
            raise DataDirectoryUnusable(
                f"{link} leads to {servers}, which is gone, and the data with it. Bring it back, or remove the link to "
                "start with an empty database."
            )
        if servers.is_dir():
            leave_shared_account(servers, data_dir)
            return servers, server_account(servers)
        account = server_account(data_dir)
        # The servers' user may pass through to what is its own; a directory with other things in it stays as it is.
        if account is not None and _OURS.issuperset(path.name for path in data_dir.iterdir()):
            data_dir.chmod(data_dir.stat().st_mode | 0o011)
        if account is not None and not account.enters(data_dir):
            servers = state_dir() / secrets.token_hex(8)
            link.symlink_to(servers)
        servers.mkdir(mode=0o700)
        _give(servers, account)
        return servers, account


def make_private_dir(path: Path) -> None:
    """A directory that only the owner of the one it is in may enter."""
    path.mkdir(mode=0o700, exist_ok=True)
    _inherit_owner(path)


def write_private(path: Path, data: str | bytes) -> None:
    """Replaces a file in one step: 0600 from its first byte, whole after a crash, never through a planted link.

    It belongs to the owner of its directory.
    """
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    _inherit_owner(beside)
    beside.replace(path)


def _inherit_owner(path: Path) -> None:
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _give(path: Path, account: Account | None) -> None:
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def prepare_socket_dir(servers: Path, account: Account | None) -> Path:
    """A directory for sockets, 0700, with a path that is short and plain enough for them."""
    here = servers / "run"
    if here.is_symlink():
        known = Path(os.path.realpath(here))
        if known.is_dir() and known.stat().st_uid == servers.stat().st_uid and known.stat().st_mode & 0o077 == 0:
            return known
        here.unlink()
    if _PLAIN_PATH.fullmatch(str(here)) and len(f"{here}{_LONGEST_SOCKET}") <= _SOCKET_PATH_LIMIT:
        make_private_dir(here)
        return here
    elsewhere = Path(tempfile.mkdtemp(prefix="gatehouse-"))
    if account is not None and not account.enters(elsewhere.parent):
        elsewhere.rmdir()
        elsewhere = Path(tempfile.mkdtemp(prefix="gatehouse-", dir="/tmp"))
    _give(elsewhere, account)
    here.symlink_to(elsewhere)
    return elsewhere


def remove_socket_dir(servers: Path) -> None:
    """Leaves nothing in the temporary directory."""
    here = servers / "run"
    if here.is_symlink():
        shutil.rmtree(os.path.realpath(here), ignore_errors=True)
        here.unlink()
