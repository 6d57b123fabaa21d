"""The embedded servers when things go wrong: killed supervisors, strangers, bad data, two at once."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from app import embedded
from app.cli.stores import open_stores
from app.embedded import DataDirectoryBusy, DataDirectoryUnusable, StoreFailed
from app.embedded import account as accounts
from app.embedded.account import server_account
from app.embedded.process import Server, launch_command
from app.embedded.valkey import Valkey
from app.settings import load

# Starts servers, says so, and holds them until its stdin ends. Started off the main thread they outlive a SIGKILL.
HOLD = """
import sys, threading
from pathlib import Path
from app import embedded

def hold():
    global stores
    stores = getattr(embedded, sys.argv[1])(Path(sys.argv[2]), unsafe_for_tests=True)
    print("up", flush=True)

if "aside" in sys.argv:
    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
else:
    hold()
sys.stdin.read()
stores.stop()
"""


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory which every user may enter: root's servers run as one of them."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def data_dir(open_dir: Path) -> Iterator[Path]:
    """Where a test's servers live, and die with it."""
    yield open_dir / "data"
    for process in servers_of(open_dir):
        process.kill()


@contextmanager
def holder(verb: str, data_dir: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the servers of `data_dir` up, by `start` or `share`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, verb, str(data_dir), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process


@contextmanager
def strangers(*commands: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that have nothing to do with us."""
    processes = [subprocess.Popen(command, cwd="/") for command in commands]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def servers_of(data_dir: Path) -> list[psutil.Process]:
    """The server processes that work below a directory, without those that one of them has made for its own work."""
    below = str(data_dir.resolve())
    found = [
        process
        for process in psutil.process_iter(["name", "cmdline", "ppid"])
        if process.info["name"] in {"postgres", "valkey-server"} and below in " ".join(process.info["cmdline"] or ())
    ]
    # A child of PostgreSQL has its command line for a moment.
    pids = {process.pid for process in found}
    return [process for process in found if process.info["ppid"] not in pids]


async def remember(stores: embedded.Stores, word: str) -> None:
    """Writes to the database as its owner."""
    connection = await asyncpg.connect(stores.owner_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
    await connection.execute("INSERT INTO words VALUES ($1)", word)
    await connection.close()


async def remembered(stores: embedded.Stores) -> list[str]:
    """What was written."""
    connection = await asyncpg.connect(stores.owner_url)
    words = [row["word"] for row in await connection.fetch("SELECT word FROM words")]
    await connection.close()
    return words


async def test_data_and_addresses_survive_a_restart(data_dir: Path) -> None:
    """Stopped and started again, the servers have the same data behind the same database URL."""
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        await remember(stores, "kept")
        url = stores.database_url
    assert servers_of(data_dir) == []
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        assert await remembered(stores) == ["kept"]
        assert stores.database_url == url


async def test_the_roles_are_under_row_level_security(data_dir: Path) -> None:
    """Neither role is a superuser or bypasses policies; only the owner may make tables."""
    with embedded.start(data_dir) as stores:
        rights = "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        for url in (stores.database_url, stores.owner_url):
            connection = await asyncpg.connect(url)
            assert tuple(await connection.fetchrow(rights)) == (False, False, False, False)
            await connection.close()
        app = await asyncpg.connect(stores.database_url)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute("CREATE TABLE public.mine ()")
        await app.close()
        owner = await asyncpg.connect(stores.owner_url)
        await owner.execute("CREATE SCHEMA fn CREATE TABLE theirs ()")
        await owner.close()


async def test_data_is_written_safely(data_dir: Path) -> None:
    """Outside tests a commit is on disk, pages carry checksums, and nothing listens on the network."""
    with embedded.start(data_dir, valkey=False) as stores:
        connection = await asyncpg.connect(stores.database_url)
        names = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums", "listen_addresses")
        found = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
        await connection.close()
    assert found == ["on", "on", "on", "on", ""]


async def test_nobody_gets_in_without_the_password(data_dir: Path) -> None:
    """A local user who reaches the sockets still needs a password, and the superuser has none to be guessed."""
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        assert stores.database_url is not None
        assert stores.redis_url is not None
        password = urlsplit(stores.database_url).password or ""
        for login in ("gatehouse_app:wrong", "gatehouse_app:", f"gatehouse_superuser:{password}"):
            url = stores.database_url.replace(f"gatehouse_app:{password}", login)
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(url, passfile=data_dir / "none")
        client = Redis.from_url(stores.redis_url.replace(urlsplit(stores.redis_url).password or "", "wrong"))
        with pytest.raises(RedisError, match="invalid username-password"):
            await client.ping()
        await client.aclose()
        client = Redis.from_url(stores.redis_url)
        assert await client.ping()
        await client.aclose()


def test_everything_below_the_data_directory_is_private(data_dir: Path) -> None:
    """No file or directory, passwords and sockets included, has a bit for group or others; nor is a URL shown."""
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        open_to_others = [
            path for path in data_dir.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077 and not path.is_symlink()
        ]
        assert open_to_others == []
        # Root's servers run as somebody else, who has to pass through.
        assert stat.S_IMODE(data_dir.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
        assert "postgresql://" not in repr(stores)
        passwords = [urlsplit(url or "").password or "" for url in (stores.database_url, stores.redis_url)]
        for server in servers_of(data_dir):
            assert not any(password in " ".join(server.cmdline()) for password in passwords)
    assert not (data_dir / "runtime.json").exists()


async def test_servers_leave_an_account_that_others_run_as(data_dir: Path) -> None:
    """What an earlier release gave to `nobody` becomes the servers' own, data and all; a file that is somebody else's
    does not, however it got there. Whoever isn't root has no choice.
    """
    own = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else "gatehouse"
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        await remember(stores, "kept")
    home = data_dir / "servers"
    nobody = pwd.getpwnam("nobody")
    for path in (home, *home.rglob("*")):
        if not os.geteuid():
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    planted = data_dir.parent / "shadow"
    planted.touch()
    os.link(planted, home / "planted")
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        assert await remembered(stores) == ["kept"]
        users = {server.username() for server in servers_of(data_dir)}
    assert users == {own}
    assert {path.owner() for path in home.rglob("*") if path.name != "planted"} == {own}
    assert planted.stat().st_uid == os.geteuid()


def test_a_second_start_is_refused_clearly(data_dir: Path) -> None:
    """Whoever starts the same directory again is told who has it; the first is not disturbed."""
    with holder("start", data_dir) as first:
        with pytest.raises(DataDirectoryBusy, match=f"already running on .*pid {first.pid}") as refused:
            embedded.start(data_dir)
        assert refused.value.pid == first.pid == embedded.holder(data_dir)
        assert len(servers_of(data_dir)) == 2
    assert embedded.holder(data_dir) is None


async def test_running_servers_are_found_and_left_alone(data_dir: Path) -> None:
    """A command finds the servers of another process and does not stop them; a leftover file fools nobody."""
    assert embedded.running(data_dir) is None
    with holder("start", data_dir):
        found = embedded.running(data_dir)
        assert found is not None
        await remember(found, "seen")
        found.stop()
        assert len(servers_of(data_dir)) == 2
        leftover = (data_dir / "runtime.json").read_bytes()
    (data_dir / "runtime.json").write_bytes(leftover)
    assert embedded.running(data_dir) is None


def test_the_starter_waits_for_those_who_joined(data_dir: Path) -> None:
    """A command that started the servers doesn't pull them from under another that found them running."""
    starter = embedded.share(data_dir, unsafe_for_tests=True)
    with holder("share", data_dir) as user:
        starter_alone = embedded.running(data_dir)
        assert starter_alone is not None
        starter_alone.stop()
        assert user.stdin is not None
        user.stdin.close()
        starter.stop(wait_for_users=30)
        assert user.wait(30) == 0
    assert servers_of(data_dir) == []


@pytest.mark.parametrize("orphaned", ["by the main thread", "aside"])
async def test_after_kill_9_the_next_start_works(data_dir: Path, orphaned: str) -> None:
    """Servers whose supervisor was killed are gone or are ended, their data is kept, and none is left over."""
    with holder("start", data_dir, orphaned) as first:
        stores = embedded.running(data_dir)
        assert stores is not None
        await remember(stores, "kept")
        stores.stop()
        before = {process.pid for process in servers_of(data_dir)}
        first.kill()
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        assert await remembered(stores) == ["kept"]
        after = {process.pid for process in servers_of(data_dir)}
        assert len(after) == 2
        assert after.isdisjoint(before)
    assert servers_of(data_dir) == []


def test_on_linux_kill_9_leaves_no_servers(data_dir: Path) -> None:
    """The kernel ends the servers with their supervisor, without waiting for a next start. Only Linux does that."""
    with holder("start", data_dir) as first:
        servers = servers_of(data_dir)
        assert len(servers) == 2
        first.kill()
    _, alive = psutil.wait_procs(servers, timeout=30)
    assert alive == [] or sys.platform != "linux"


async def test_a_stranger_with_a_recycled_number_is_spared(data_dir: Path) -> None:
    """After a crash the number in the lock file may be anybody's: the start succeeds and that process lives on.

    So does one that merely has our files among its arguments.
    """
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        await remember(stores, "kept")
        home = (data_dir / "servers").resolve()
        lock_file = (home / "postgres" / "postmaster.pid").read_text()
    sleeper = ["/bin/sleep", "60"]
    editor = [sys.executable, "-c", "import time; time.sleep(60)", str(home / "postgres"), str(home / "valkey.conf")]
    # The same user as the server's, or PostgreSQL would know by itself that it is a stranger.
    commands = [launch_command(sleeper, account=server_account(home)), editor]
    with strangers(*commands) as alive:
        old_number = lock_file.splitlines()[0]
        (home / "postgres" / "postmaster.pid").write_text(lock_file.replace(old_number, str(alive[0].pid), 1))
        with embedded.start(data_dir, unsafe_for_tests=True) as stores:
            assert await remembered(stores) == ["kept"]
        assert [stranger.poll() for stranger in alive] == [None, None]


def tended(stores: embedded.Stores, until: Callable[[], bool]) -> None:
    """Looks after the servers, as `gatehouse run` does, until something is so."""
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        stores.tend()
        time.sleep(0.02)


def answers(url: str | None) -> bool:
    """Whether Valkey takes a connection and knows the password."""
    client = SyncRedis.from_url(url or "", socket_timeout=1)
    with suppress(RedisError, OSError), client:
        return bool(client.ping())
    return False


async def test_a_server_that_died_is_brought_back(data_dir: Path) -> None:
    """Both are started again on the same data and addresses; while nothing is amiss nothing is done."""
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        await remember(stores, "kept")
        before = servers_of(data_dir)
        stores.tend()
        assert servers_of(data_dir) == before
        for server in before:
            server.kill()
            server.wait()
        with capture_logs() as logs:
            tended(stores, lambda: sum("is back" in line["event"] for line in logs) == 2)
        assert await remembered(stores) == ["kept"]
        assert answers(stores.redis_url)
    assert {(line["server"], line["event"]) for line in logs} >= {
        (name, event)
        for name in ("PostgreSQL", "Valkey")
        for event in ("Embedded server ended; it is started again", "Embedded server is back")
    }
    assert servers_of(data_dir) == []


def test_valkey_killed_again_and_again_while_it_restarts(data_dir: Path) -> None:
    """Five times, each as soon as its process is there: it is tried again with growing pauses, and PostgreSQL stays."""
    with embedded.start(data_dir, unsafe_for_tests=True) as stores, capture_logs() as logs:
        (database,) = [server for server in servers_of(data_dir) if server.name() == "postgres"]
        for _ in range(5):
            tended(stores, lambda: killed(data_dir, "valkey-server"))
        tended(stores, lambda: logs[-1]["event"] == "Embedded server is back" and answers(stores.redis_url))
        assert database.is_running()
    pauses = [line["seconds"] for line in logs if "seconds" in line]
    assert len(pauses) >= 5
    assert pauses == sorted(pauses)
    assert pauses[4] > pauses[0]
    assert servers_of(data_dir) == []


def killed(data_dir: Path, name: str) -> bool:
    """Kills the server of that name if it is there; whether it was."""
    found = [server for server in servers_of(data_dir) if server.name() == name]
    for server in found:
        server.kill()
    for server in found:
        with suppress(psutil.NoSuchProcess):
            server.wait(10)
    return bool(found)


def test_a_program_that_fails_to_start_is_tried_on(data_dir: Path) -> None:
    """A binary that ends at once, several times: each failure is an error in the log; mended, the server is back."""
    with embedded.start(data_dir, unsafe_for_tests=True) as stores, capture_logs() as logs:
        (cache,) = [server for server in stores._servers if server.name == "Valkey"]
        program = cache.argv[0]
        cache.argv[0] = "/bin/false"
        assert killed(data_dir, "valkey-server")
        tended(stores, lambda: sum(line["log_level"] == "error" for line in logs) == 4)
        cache.argv[0] = program
        tended(stores, lambda: answers(stores.redis_url))
    assert "exit code 1" in logs[-2]["reason"]


def test_pauses_are_capped_and_begin_anew_after_a_healthy_while(data_dir: Path) -> None:
    """Half a minute at most, however long it goes on; a server that was up for a while starts from the beginning."""
    server = Server("Valkey", ["/bin/false"], None, lambda _: False, ((signal.SIGKILL, 5),))
    with capture_logs() as logs:
        server.launch()
        now = time.monotonic()
        for _ in range(15):
            server._process.wait()  # type: ignore[union-attr]
            server.tend(now)
            now += logs[-1]["seconds"]
            server.tend(now)
        assert [line["seconds"] for line in logs][-3:] == [30.0, 30.0, 30.0]
        server._process.wait()  # type: ignore[union-attr]
        server.argv = ["/bin/sleep", "60"]
        server.launch()
        server.is_ready = lambda _: True
        server.tend(now)
        server._process.kill()  # type: ignore[union-attr]
        server._process.wait()  # type: ignore[union-attr]
        server.tend(now + 60)
    assert logs[-1]["seconds"] < 1
    server.stop()


def test_without_valkey_the_start_succeeds(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator that can't be started takes nothing else down; it is tried on."""
    usual = Valkey.server

    def broken(self: Valkey, password: str) -> Server:
        server = usual(self, password)
        server.argv.insert(0, "/bin/false")
        return server

    monkeypatch.setattr(Valkey, "server", broken)
    with capture_logs() as logs, embedded.start(data_dir, unsafe_for_tests=True) as stores:
        assert [server.name() for server in servers_of(data_dir)] == ["postgres"]
        (cache,) = [server for server in stores._servers if server.name == "Valkey"]
        del cache.argv[0]
        tended(stores, lambda: answers(stores.redis_url))
    assert logs[0]["event"] == "Going on without an embedded server"


def test_a_start_that_fails_leaves_nothing_running(data_dir: Path) -> None:
    """When PostgreSQL can't start, its reason is told, Valkey is stopped again, and the lock is free."""
    with embedded.start(data_dir, unsafe_for_tests=True):
        pass
    (data_dir / "servers" / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(StoreFailed, match="pg_control"):
        embedded.start(data_dir)
    assert servers_of(data_dir) == []
    assert embedded.holder(data_dir) is None


def test_another_versions_data_is_not_touched(data_dir: Path) -> None:
    """A cluster of another major version stops the start with advice instead of PostgreSQL's own words."""
    with embedded.start(data_dir, unsafe_for_tests=True):
        pass
    (data_dir / "servers" / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(DataDirectoryUnusable, match="PostgreSQL 17"):
        embedded.start(data_dir)


async def test_a_half_made_cluster_is_made_again(data_dir: Path) -> None:
    """Killed between initdb and the roles, the first start is simply done over."""
    with embedded.start(data_dir, unsafe_for_tests=True):
        pass
    (data_dir / "credentials.json").unlink()
    (data_dir / "servers" / "postgres.new").mkdir()
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        await remember(stores, "works")


@pytest.mark.parametrize("name", ["x" * 120, 'it\'s a, "dir" %41 é: \\'])
async def test_any_path_will_do(open_dir: Path, name: str) -> None:
    """Sockets of a path too long or too odd for one go to a private directory, which is gone afterwards."""
    data_dir = open_dir / name / "data"
    with embedded.start(data_dir, unsafe_for_tests=True) as stores:
        await remember(stores, "works")
        sockets = (data_dir / "servers" / "run").resolve()
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert not sockets.is_relative_to(open_dir)
        client = Redis.from_url(stores.redis_url or "")
        assert await client.ping()
        await client.aclose()
    assert not sockets.exists()


async def test_the_environment_does_not_mislead_anybody(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PG* variables meant for another server change neither ours nor the way to it."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGOPTIONS", "-c broken")
    with embedded.start(data_dir, valkey=False, unsafe_for_tests=True) as stores:
        monkeypatch.delenv("PGOPTIONS")  # asyncpg's own business
        await remember(stores, "works")


async def test_no_parent_directory_is_opened_up(open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a private directory all modes stay as they were. Root's servers, who can't go there, live elsewhere, and
    data survives a restart there too.
    """
    state = open_dir / "state"
    monkeypatch.setattr(accounts, "_STATE", state)
    home = open_dir / "home"
    checkout = home / "checkout"
    for directory in (home, checkout):
        directory.mkdir(mode=0o700)
    before = [(path, path.stat().st_mode) for path in (open_dir, home, checkout, *open_dir.parents)]
    data_dir = checkout / "data"
    for _ in range(2):
        with embedded.start(data_dir, valkey=False, unsafe_for_tests=True) as stores:
            await remember(stores, "kept")
            words = await remembered(stores)
    assert words == ["kept", "kept"]
    assert [(path, path.stat().st_mode) for path, _ in before] == before
    assert (data_dir / "servers").is_symlink() == state.exists() == (os.geteuid() == 0)


async def test_programs_out_of_reach_are_copied(open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's environment may be installed where its servers' user can't go: they run from a copy, made once."""
    monkeypatch.setattr(accounts, "_STATE", open_dir / "state")
    monkeypatch.setattr(accounts.Account, "enters", reaches_all_but(Path(sys.prefix)))
    for _ in range(2):
        with embedded.start(open_dir / "data", unsafe_for_tests=True) as stores:
            await remember(stores, "works")
            programs = {Path(server.exe()) for server in servers_of(open_dir / "data")}
    copied = {program for program in programs if program.is_relative_to(open_dir)}
    assert copied == (programs if os.geteuid() == 0 else set())
    assert len(list((open_dir / "state").glob("*"))) == (1 if os.geteuid() == 0 else 0)


def reaches_all_but(private: Path) -> Callable[[accounts.Account, Path], bool]:
    """Stands for a 0700 directory above the environment, which a test can't make."""
    return lambda _, directory: not directory.is_relative_to(private)


async def test_commands_use_what_runs_or_start_their_own(data_dir: Path) -> None:
    """`open_stores` fills in the URLs either way, and leaves an outside server alone."""
    environ = {"DATA_DIR": str(data_dir), "SECRET_KEY": "k" * 32}
    settings = load(environ, dotenv=None)
    with open_stores(settings) as own:
        assert len(servers_of(data_dir)) == 2
        assert own.database_url != own.database_owner_url
        with open_stores(settings) as joined:
            assert joined == own
    assert servers_of(data_dir) == []
    outside = {"DATABASE_URL": "postgresql://elsewhere/db", "REDIS_URL": "redis://elsewhere"}
    settings = load(environ | outside, dotenv=None)
    with open_stores(settings) as same:
        assert same is settings
    settings = load(environ | {"DATABASE_URL": outside["DATABASE_URL"]}, dotenv=None)
    with open_stores(settings) as mixed:
        assert mixed.database_url == outside["DATABASE_URL"]
        assert [server.name() for server in servers_of(data_dir)] == ["valkey-server"]
        with pytest.raises(StoreFailed, match="same DATABASE_URL"), open_stores(load(environ, dotenv=None)):
            pass


def test_ctrl_c_while_stopping_only_hastens(data_dir: Path) -> None:
    """A second Ctrl-C while the servers stop leaves none behind."""
    stores = embedded.start(data_dir, unsafe_for_tests=True)
    postgres = next(server for server in servers_of(data_dir) if server.name() == "postgres")
    postgres.suspend()  # it won't hear SIGINT; SIGQUIT neither
    alarm_before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        stores.stop()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm_before)
    assert servers_of(data_dir) == []
