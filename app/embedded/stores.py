"""Starts the embedded servers, finds those that another process has up, and stops them."""

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import msgspec
import structlog

from app.embedded.binaries import binaries_for
from app.embedded.errors import DataDirectoryBusy, StoreFailed
from app.embedded.files import (
    prepare_data_dir,
    prepare_servers_dir,
    prepare_socket_dir,
    remove_socket_dir,
    told_plainly,
    write_private,
)
from app.embedded.locks import Lock
from app.embedded.postgres import APP_ROLE, OWNER_ROLE, POSTGRES, Postgres
from app.embedded.process import Server
from app.embedded.valkey import Valkey

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_POLL_SECONDS: Final = 0.05


class _Runtime(msgspec.Struct):
    """runtime.json: what others need to use the servers. The numbers are for people, never to kill by."""

    pid: int
    servers: dict[str, int | None]
    database_url: str | None
    owner_url: str | None
    redis_url: str | None


class _Credentials(msgspec.Struct):
    """credentials.json: the passwords of PostgreSQL's roles."""

    owner: str
    app: str


@dataclass(slots=True)
class Stores:
    """Embedded servers that are up; a URL is None for one that wasn't asked for. Use as a context, or `stop()`.

    `database_url` logs in as the application's role and `owner_url` as the owner of the database: neither is a
    superuser or gets past row-level security.
    """

    # Each holds a password, so none is shown.
    database_url: str | None = field(repr=False)
    owner_url: str | None = field(repr=False)
    redis_url: str | None = field(repr=False)
    _release: Callable[[float], None] | None = field(repr=False)
    _servers: Sequence[Server] = field(default=(), repr=False)

    def tend(self) -> None:
        """Starts again what died, for ever and without waiting: call it several times a second, in the main thread."""
        now = time.monotonic()
        for server in self._servers:
            server.tend(now)

    def stop(self, *, wait_for_users: float = 0) -> None:
        """Stops the servers if we started them, else only lets go of them. May be called twice.

        Other processes that use them are given `wait_for_users` seconds to end.
        """
        release, self._release = self._release, None
        if release is not None:
            release(wait_for_users)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(data_dir: Path, *, postgres: bool = True, valkey: bool = True, unsafe_for_tests: bool = False) -> Stores:
    """Brings the servers up on the data in `data_dir`; they take connections when it returns.

    What a killed supervisor left behind is ended first. On Linux the servers end with the calling thread if that is
    the main one. `unsafe_for_tests` trades the safety of the data for speed and lets the owner make databases.
    Raises `DataDirectoryBusy`, `DataDirectoryUnusable`, `StoreFailed`; nothing is left running then.
    """
    data_dir = prepare_data_dir(data_dir)
    with ExitStack() as undo, told_plainly(data_dir):
        lock = undo.enter_context(Lock(data_dir / "lock"))
        if not lock.take():
            raise DataDirectoryBusy(data_dir, lock.holder())
        lock.sign()
        runtime = data_dir / "runtime.json"
        runtime.unlink(missing_ok=True)
        users = undo.enter_context(Lock(data_dir / "users"))

        home, account = prepare_servers_dir(data_dir)
        sockets = prepare_socket_dir(home, account)
        undo.callback(remove_socket_dir, home)
        binaries = binaries_for(account)
        database = Postgres(home, sockets, account, binaries, unsafe_for_tests)
        cache = Valkey(home, sockets, account, binaries)
        # Both, whatever is asked for now: the settings may have changed since they were left behind.
        database.end_strays()
        cache.end_strays()

        servers: list[Server] = []
        database_url = owner_url = redis_url = None
        if valkey:
            password = secrets.token_urlsafe(24)
            redis_url = cache.url(password)
            servers.append(_launch(cache.server(password), undo))
        if postgres:
            credentials = _credentials(data_dir / "credentials.json", database)
            database_url = database.url(APP_ROLE, credentials.app)
            owner_url = database.url(OWNER_ROLE, credentials.owner)
            database.configure()
            servers.append(_launch(database.server(), undo))
        for server in servers:
            try:
                server.await_ready()
            except StoreFailed as error:
                if server.name == POSTGRES:
                    raise
                # What may be lost never takes down what must last. It is tried on.
                log.warning("Going on without an embedded server", server=server.name, reason=error.detail)
        pids = {server.name: server.pid for server in servers}
        record = _Runtime(lock.holder() or 0, pids, database_url, owner_url, redis_url)
        write_private(runtime, msgspec.json.encode(record))
        stop_all = undo.pop_all()

    def release(wait_for_users: float) -> None:
        # Held alone it also turns newcomers away, until all is down and they can start their own.
        with stop_all:
            users.take(patience=wait_for_users)
            runtime.unlink(missing_ok=True)

    return Stores(database_url, owner_url, redis_url, release, servers)


def _launch(server: Server, undo: ExitStack) -> Server:
    undo.callback(server.stop)
    server.launch()
    return server


def _credentials(path: Path, database: Postgres) -> _Credentials:
    """The passwords of the roles; makes cluster, roles and passwords where there are none.

    The file is written last: without it, whatever a crash left undone is done again.
    """
    if database.make_cluster():
        path.unlink(missing_ok=True)
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=_Credentials)
    credentials = _Credentials(owner=secrets.token_urlsafe(24), app=secrets.token_urlsafe(24))
    database.make_roles(credentials.owner, credentials.app)
    write_private(path, msgspec.json.encode(credentials))
    return credentials


def running(data_dir: Path) -> Stores | None:
    """The servers which another process has up on `data_dir`, or None. They stay up until we let go with `stop()`,
    unless whoever runs them is in a hurry. Raises `DataDirectoryUnusable` when the directory isn't ours to read.
    """
    data_dir = Path(data_dir).resolve()
    if not (data_dir / "runtime.json").exists():
        return None
    with ExitStack() as undo, told_plainly(data_dir):
        users = undo.enter_context(Lock(data_dir / "users"))
        if not users.share():
            return None  # they are about to be stopped
        with Lock(data_dir / "lock") as lock:
            if lock.share():
                return None  # the file is left over: nobody runs anything
        try:
            record = msgspec.json.decode((data_dir / "runtime.json").read_bytes(), type=_Runtime)
        except FileNotFoundError:
            return None
        let_go = undo.pop_all()
    return Stores(record.database_url, record.owner_url, record.redis_url, lambda _: let_go.close())


def share(
    data_dir: Path,
    *,
    postgres: bool = True,
    valkey: bool = True,
    unsafe_for_tests: bool = False,
    patience: float = 60,
) -> Stores:
    """The running servers or, if nobody runs any, started ones. Waits while another process starts or stops its own.

    Raises what `start` does; `DataDirectoryBusy` only after `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        if (stores := running(data_dir)) is not None:
            return stores
        try:
            return start(data_dir, postgres=postgres, valkey=valkey, unsafe_for_tests=unsafe_for_tests)
        except DataDirectoryBusy:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)


def holder(data_dir: Path) -> int | None:
    """The process that runs the servers of `data_dir`; None when nobody does."""
    if not (data_dir / "lock").exists():
        return None
    with told_plainly(data_dir), Lock(data_dir / "lock") as lock:
        return None if lock.share() else lock.holder()
