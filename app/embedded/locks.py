"""Two locks on a data directory: who runs the servers, and who uses them.

flock(2) rather than a file with a number in it: the kernel lets go when the holder dies, however it dies.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Final, Self

_POLL_SECONDS: Final = 0.02
# Looking whether a lock is held means holding it for an instant; so whoever wants it in earnest asks more than once.
_PROBE_SECONDS: Final = 0.2


class Lock:
    """An advisory lock on a file, made 0600 if it isn't there. Raises OSError when it can't be opened."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        # Root in another user's directory must not shut its owner out.
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(self._descriptor, owner.st_uid, owner.st_gid)

    def take(self, *, patience: float = _PROBE_SECONDS) -> bool:
        """Takes it alone, waiting `patience` seconds at most. False when somebody else kept it."""
        deadline = time.monotonic() + patience
        while not self._flock(fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def share(self) -> bool:
        """Takes it together with others, at once or not at all."""
        return self._flock(fcntl.LOCK_SH)

    def _flock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def sign(self) -> None:
        """Writes down who holds it, for people."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def holder(self) -> int | None:
        """The process that signed last."""
        signed = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
        return int(signed) if signed.isdecimal() else None

    def close(self) -> None:
        """Lets go. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
