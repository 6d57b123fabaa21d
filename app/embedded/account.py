"""Which user the servers run as, and what that user can reach.

PostgreSQL refuses to run as root. So when Gatehouse is root, its servers run as somebody else, who can't enter
directories such as /root. Nothing of the operator's is opened up for them: what they can't reach is kept, or copied to,
`/var/lib/gatehouse` instead. (The other way, a user namespace in which root has another number, is forbidden in most
containers, which is just where people are root.)
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.embedded.errors import DataDirectoryUnusable

_STATE: Final = Path("/var/lib/gatehouse")
_ACCOUNTS: Final = ("gatehouse", "postgres", "nobody")


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

    As root it is the directory's owner, so that `sudo` and its absence can take turns; for root's own directories
    an account made for this purpose if there is one, else the one that keeps databases anyway, else the one with no
    rights. PostgreSQL insists on a user with a name. Raises `DataDirectoryUnusable` when there is none.
    """
    if os.geteuid() != 0:
        return None
    owner = owner_of.stat().st_uid
    for candidate in (owner, *_ACCOUNTS):
        try:
            found = pwd.getpwuid(candidate) if isinstance(candidate, int) else pwd.getpwnam(candidate)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(found.pw_uid, found.pw_gid)
    raise DataDirectoryUnusable(
        "PostgreSQL does not run as root and there is no other user for it: run Gatehouse as an ordinary user, add a "
        "user `gatehouse`, or set DATABASE_URL and REDIS_URL."
    )


def state_dir() -> Path:
    """Where root keeps what the servers' user can't reach elsewhere; made if need be. Raises OSError."""
    _STATE.mkdir(exist_ok=True)
    _STATE.chmod(0o755)
    return _STATE
