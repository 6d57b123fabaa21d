"""The embedded PostgreSQL: makes the cluster, its roles and its configuration, and knows when it is ready."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.embedded.account import Account
from app.embedded.binaries import Binaries
from app.embedded.errors import DataDirectoryUnusable, StoreFailed
from app.embedded.files import make_private_dir, write_private
from app.embedded.process import Server, Steps, end_strays, launch_command, server_environment

POSTGRES: Final = "PostgreSQL"
DATABASE: Final = "gatehouse"
OWNER_ROLE: Final = "gatehouse_owner"
APP_ROLE: Final = "gatehouse_app"
# It has no password, so nobody can log in as it: single-user mode is the only way in.
_SUPERUSER: Final = "gatehouse_superuser"
_MAJOR: Final = "18"

# Smart shutdown would wait for idle clients; "fast" rolls back and checkpoints; "immediate" leaves recovery to do.
END: Final[Steps] = ((signal.SIGINT, 30), (signal.SIGQUIT, 5), (signal.SIGKILL, 5))

_CONFIGURATION: Final = """\
# Written anew at every start of Gatehouse.
listen_addresses = ''
port = 5432
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
max_connections = 200
shared_buffers = '128MB'

# Short queries on a small machine: neither compiling them nor splitting them among processes pays.
jit = off
max_parallel_workers_per_gather = 0

# A week of logs, then each day replaces the one a week before. An error is logged without its DETAIL and statement:
# they quote rows, and rows hold addresses.
logging_collector = on
log_directory = {logs}
log_filename = 'postgres.%a.log'
log_rotation_age = '1d'
log_rotation_size = 0
log_truncate_on_rotation = on
log_error_verbosity = terse
log_min_error_statement = panic
log_checkpoints = off

timezone = 'UTC'
log_timezone = 'UTC'
default_text_search_config = 'pg_catalog.english'
"""
_UNSAFE_FOR_TESTS: Final = """
# Tests only: a crash of the machine (not of a process) loses or breaks data.
fsync = off
full_page_writes = off
"""
_ACCESS: Final = """\
# Written anew at every start of Gatehouse. No TCP; a password even for those who reach the private socket.
local all all scram-sha-256
"""
_CHECK_ROLES: Final = (
    "SELECT count(*) AS made FROM pg_database, pg_roles WHERE datname = 'gatehouse' "
    "AND rolname IN ('gatehouse_owner', 'gatehouse_app') AND rolcanlogin AND NOT (rolsuper OR rolbypassrls)"
)


@dataclass(frozen=True, slots=True)
class Postgres:
    """A cluster below `servers`, which belongs to `account`."""

    servers: Path
    sockets: Path
    account: Account | None
    binaries: Binaries
    unsafe_for_tests: bool = False

    @property
    def cluster(self) -> Path:
        """PGDATA."""
        return self.servers / "postgres"

    def url(self, role: str, password: str, database: str = DATABASE) -> str:
        """The address for asyncpg. It names the port, or PGPORT in somebody's environment would pick another socket."""
        return f"postgresql://{role}:{password}@/{database}?host={self.sockets}&port=5432"

    def end_strays(self) -> None:
        """Ends the server that a killed supervisor left behind."""
        end_strays("postgres", str(self.cluster), END)

    def make_cluster(self) -> bool:
        """Makes the cluster unless it is there; True when it did.

        Raises `DataDirectoryUnusable` for another major version's cluster, `StoreFailed` when initdb fails.
        """
        found = self.cluster / "PG_VERSION"
        if found.exists():
            if (major := found.read_text("ascii").strip()) != _MAJOR:
                raise DataDirectoryUnusable(
                    f"The data in {self.cluster} is PostgreSQL {major}'s and this release of Gatehouse brings "
                    f"PostgreSQL {_MAJOR}. Dump it with the release that wrote it and load it into a new DATA_DIR."
                )
            return False
        # Made beside and moved into place whole: what a crash leaves is no cluster yet, and goes.
        beside = self.servers / "postgres.new"
        shutil.rmtree(beside, ignore_errors=True)
        options = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options += [
            "--username",
            _SUPERUSER,
            "--auth=reject",
            "--data-checksums",
            "--no-sync",
            "--no-instructions",
        ]
        self._tool(self.binaries.initdb, "-D", beside, *options)
        if not self.unsafe_for_tests:
            self._tool(self.binaries.initdb, "-D", beside, "--sync-only")
        beside.rename(self.cluster)
        return True

    def make_roles(self, owner_password: str, app_password: str) -> None:
        """Makes the two roles and the database, and sets the passwords. May be run again. Raises `StoreFailed`.

        In single-user mode, which takes one statement a line, carries on after errors, and prints what is selected.
        """
        createdb = "CREATEDB" if self.unsafe_for_tests else "NOCREATEDB"
        rights = "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION"
        lines = [
            f"CREATE ROLE {OWNER_ROLE}",
            f"CREATE ROLE {APP_ROLE}",
            f"ALTER ROLE {OWNER_ROLE} {rights} {createdb} PASSWORD '{owner_password}'",
            f"ALTER ROLE {APP_ROLE} {rights} NOCREATEDB PASSWORD '{app_password}'",
            f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE}",
            _CHECK_ROLES,
        ]
        script = "".join(f"{line};\n" for line in lines)
        quiet = ("-c", "log_min_error_statement=panic")  # the statements hold the passwords
        said = self._tool(self.binaries.postgres, "--single", "-D", self.cluster, *quiet, "postgres", typed=script)
        if 'made = "2"' not in said:
            raise StoreFailed(f"The embedded PostgreSQL's roles could not be made. It said:\n{said}")

    def configure(self) -> None:
        """Writes the configuration of this release."""
        logs = self.servers / "log"
        make_private_dir(logs)
        text = _CONFIGURATION.format(sockets=self.sockets, logs=_quoted(logs))
        if self.unsafe_for_tests:
            text += _UNSAFE_FOR_TESTS
        write_private(self.cluster / "postgresql.conf", text)
        write_private(self.cluster / "pg_hba.conf", _ACCESS)

    def server(self) -> Server:
        """The server, not yet started."""
        return Server(
            name=POSTGRES,
            argv=[str(self.binaries.postgres), "-D", str(self.cluster)],
            account=self.account,
            is_ready=self._is_ready,
            end=END,
            environment=self._environment,
            # Its last processes go a moment after a killed postmaster; until then it rightly refuses to start.
            not_yet="is still in use",
        )

    def _is_ready(self, pid: int) -> bool:
        # The eighth line of postmaster.pid is what pg_ctl waits for, too.
        lines = self._lock_file()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"  # noqa: PLR2004

    def _lock_file(self) -> list[str]:
        try:
            return (self.cluster / "postmaster.pid").read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []

    def _environment(self) -> dict[str, str]:
        """Lets the server start although its old lock file names a process that exists.

        `end_strays` has run: that process is a stranger who got the number after a crash. Removing the file would
        take PostgreSQL's own guard against left-over backends with it. So we tell it, as pg_ctl does, to take no
        notice of this one number.
        """
        environment = server_environment()
        if (lines := self._lock_file()) and lines[0].lstrip("-").isdecimal():
            environment["PG_GRANDPARENT_PID"] = lines[0].lstrip("-")
        return environment

    def _tool(self, program: Path, *arguments: str | os.PathLike[str], typed: str = "") -> str:
        done = subprocess.run(
            launch_command([str(program), *map(str, arguments)], account=self.account, on_parent_death=signal.SIGTERM),
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment(),
            cwd="/",
            start_new_session=True,
            check=False,
        )
        if done.returncode != 0:
            raise StoreFailed(f"The embedded PostgreSQL could not be set up: {program.name} said:\n{done.stdout}")
        return done.stdout


def _quoted(path: Path) -> str:
    """A string in postgresql.conf."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "''") + "'"
