"""Becomes another program: as another user if asked, and never outliving its parent where the kernel can see to that.

A script for a bare interpreter (`python -I -S launch.py SIGNAL PARENT UID GID PROGRAM [ARGUMENT...]`), because
`subprocess` can't do this: its `preexec_fn` is unsafe next to threads, and its `user=` would be in force before our
interpreter, perhaps out of that user's reach, is loaded.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)
_EXIT_ORPHAN = 125


def main(arguments: list[str]) -> None:
    """Replaces this process; returns only by exiting when the parent is gone already. UID -1 keeps the user.

    Raises OSError when the user can't be taken on or the program can't be run.
    """
    death_signal, parent, uid, gid = (int(argument) for argument in arguments[:4])
    os.umask(0o077)
    if uid != -1:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After the change of user, which would clear it; it survives the exec.
    if death_signal and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(_EXIT_ORPHAN)
    os.execv(arguments[4], arguments[4:])  # noqa: S606 - a fixed argument list, and no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
