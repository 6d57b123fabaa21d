"""Whether a directory is one to keep secrets in."""

import os
import pwd
from pathlib import Path
from typing import Final

_WRITABLE_BY_OTHERS: Final = 0o022


def unsafe(directory: Path) -> str | None:
    """Why nothing secret can be kept in this directory, and what to do; None if nothing speaks against it.

    Whoever may write to it can put files of their own in the place of ours. Root may use another user's directory:
    that user's word is good for what is kept there. Raises OSError when it isn't there.
    """
    ours = {0, os.geteuid()}
    if directory.is_symlink() and directory.lstat().st_uid not in ours:
        return (
            f"{directory} is a link that belongs to {_name(directory.lstat().st_uid)}, who may lead it elsewhere. "
            "Set DATA_DIR to the directory itself."
        )
    found = directory.stat()
    if os.geteuid() != 0 and found.st_uid not in ours:
        owner = _name(found.st_uid)
        return f"{directory} belongs to {owner}. Make it yours (chown), or set DATA_DIR to another directory."
    if found.st_mode & _WRITABLE_BY_OTHERS:
        whom = "every user of this machine" if found.st_mode & 0o002 else "every user of its group"
        return (
            f"{directory} can be changed by {whom}. Forbid it (chmod o-w,g-w {directory}), "
            "or set DATA_DIR to another directory."
        )
    return None


def _name(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user {uid}"
