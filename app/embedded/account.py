"""Which user the servers run as, and what that user can reach.

PostgreSQL refuses to run as root. So when Gatehouse is root, its servers run as a user of their own, `gatehouse`, which
is made if it isn't there: what another program of this machine runs as (`nobody`, `postgres`) could read all tenants'
data. That user can't enter directories such as /root. Nothing of the operator's is opened up for it: what it can't
reach is kept, or copied to, `/var/lib/gatehouse` instead. (The other way, a user namespace in which root has another
number, is forbidden in most containers, which is just where people are root.)
"""

import grp
import os
import pwd
import shutil
import stat
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from app.embedded.errors import DataDirectoryUnusable

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_STATE: Final = Path("/var/lib/gatehouse")
_NAME: Final = "gatehouse"
# What other programs run as, too. Earlier releases took them.
_SHARED: Final = ("nobody", "postgres")
_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_WHAT_TO_DO: Final = (
    f"Run Gatehouse as an ordinary user, add a user `{_NAME}` (useradd --system {_NAME}), or set DATABASE_URL and "
    "REDIS_URL."
)
_MAKE: Final = (
    ("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", _NAME),
    ("adduser", "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/sbin/nologin", _NAME),  # BusyBox
)
# Another program may be changing the list of users at this moment.
_TRIES: Final = 30
_PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Account:
    """A user other than root."""

    uid: int
    gid: int

    def enters(self, directory: Path) -> bool:
        """Whether this user gets into `directory` through all that lies above it. ACLs are not looked at."""
        directory = directory.resolve()
        return all(self._may_search(step) for step in (directory, *directory.parents))

    def _may_search(self, directory: Path) -> bool:
        found = directory.stat()
        if found.st_uid == self.uid:
            wanted = stat.S_IXUSR
        elif found.st_gid == self.gid:
            wanted = stat.S_IXGRP
        else:
            wanted = stat.S_IXOTH
        return bool(found.st_mode & wanted)


def server_account(owner_of: Path) -> Account | None:
    """The user for the servers of a directory: None, meaning ourselves, unless we are root.

    As root it is the directory's owner, so that `sudo` and its absence can take turns; for the directories of root, of
    `nobody` and of nobody who has a name it is the account of our own, made if need be. Raises `DataDirectoryUnusable`
    when there is none and none can be made.
    """
    if os.geteuid() != 0:
        return None
    try:
        owner = pwd.getpwuid(owner_of.stat().st_uid)
    except KeyError:
        return _own()
    if owner.pw_uid == 0 or owner.pw_name == "nobody":
        return _own()
    return Account(owner.pw_uid, owner.pw_gid)


def leave_shared_account(servers: Path, data_dir: Path) -> None:
    """Makes what an earlier release, as root, gave to an account that others run as belong to our own.

    Where the operator gave DATA_DIR itself to that account, it stays.
    """
    old = servers.stat().st_uid
    if os.geteuid() != 0 or old not in _shared_ids() or old == data_dir.stat().st_uid:
        return
    own = _own()
    sockets = servers / "run"
    if sockets.is_symlink():
        sockets.unlink()  # it leads to a directory of theirs; another is made
    for path in (*servers.rglob("*"), servers):
        # Only what is theirs: a link to somebody else's file, planted there, is none of ours.
        if path.lstat().st_uid == old:
            os.chown(path, own.uid, own.gid, follow_symlinks=False)


def _shared_ids() -> set[int]:
    found = set()
    for name in _SHARED:
        with suppress(KeyError):
            found.add(pwd.getpwnam(name).pw_uid)
    return found


def _own() -> Account:
    found = _known() or _make()
    if found.uid == 0:
        raise DataDirectoryUnusable(f"The user {_NAME} is root by another name. {_WHAT_TO_DO}")
    return found


def _known() -> Account | None:
    try:
        found = pwd.getpwnam(_NAME)
    except KeyError:
        return None
    return Account(found.pw_uid, found.pw_gid)


def _make() -> Account:
    command = next((command for command in _MAKE if shutil.which(command[0], path=_PATH)), None)
    if command is None:
        raise DataDirectoryUnusable(f"PostgreSQL does not run as root, and no user can be made here. {_WHAT_TO_DO}")
    said = ""
    for _ in range(_TRIES):
        group = ("--gid", _NAME) if command[0] == "useradd" and _group_exists() else ()
        done = subprocess.run(
            [*command[:-1], *group, _NAME], capture_output=True, text=True, env={"PATH": _PATH}, check=False
        )
        said = " ".join((done.stderr or done.stdout).split())
        if (made := _known()) is not None:
            log.info("Made an account for the embedded servers", detail=_NAME)
            return made
        if "lock" not in said:
            break
        time.sleep(_PAUSE_SECONDS)
    raise DataDirectoryUnusable(
        f"PostgreSQL does not run as root, and the user {_NAME} could not be made for it ({said}). {_WHAT_TO_DO}"
    )


def _group_exists() -> bool:
    try:
        grp.getgrnam(_NAME)
    except KeyError:
        return False
    return True


def state_dir() -> Path:
    """Where root keeps what the servers' user can't reach elsewhere; made if need be. Raises OSError."""
    _STATE.mkdir(exist_ok=True)
    _STATE.chmod(0o755)
    return _STATE
