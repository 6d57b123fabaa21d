"""`gatehouse run` and its children: endings asked for, endings not asked for, and starts that can't be."""

import asyncio
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from app import embedded
from app.cli import run
from app.cli.stores import with_stores
from app.cli.supervisor import Child, Supervisor
from app.embedded.locks import Lock
from app.settings import Settings, load

# A child tells its process id over TCP, then waits; what it does at SIGTERM is said by its second argument. A failing
# one tells that instead, and fails when it is answered.
CHILD = """
import os, signal, socket, sys
line = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, lambda *_: line.sendall(b"no\\n"))
else:
    signal.signal(signal.SIGTERM, lambda *_: (line.sendall(b"bye\\n"), sys.exit(0)))
if sys.argv[2] == "failing":
    line.sendall(b"failing\\n")
    line.recv(1)
    sys.exit(3)
line.sendall(f"{os.getpid()}\\n".encode())
while True:
    signal.pause()
"""
SUPERVISOR = """
import asyncio, os, sys
from app.cli.supervisor import Child, Supervisor

async def ready():
    return True

children = [Child("child", (sys.executable, "-c", sys.argv[1], sys.argv[2], "polite"))]
asyncio.run(Supervisor(children, os.environ, ready, lambda: None).run())
"""


class Line:
    """What one child says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def word(self) -> str:
        """Its next word; empty when it has hung up, which a process does by ending."""
        return (await self._reader.readline()).decode().strip()

    async def process(self) -> psutil.Process:
        """The child, which says its number first."""
        return psutil.Process(int(await self.word()))


class Switchboard:
    """Where children report, so that a test waits for events and not for time to pass."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Line] = asyncio.Queue()
        self.port = 0

    def child(self, name: str = "child", manner: str = "polite") -> Child:
        """A child that reports here."""
        return Child(name, (sys.executable, "-c", CHILD, str(self.port), manner))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes a call."""
        await self.calls.put(Line(reader, writer))


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and children inherit that."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture
async def board() -> AsyncIterator[Switchboard]:
    switchboard = Switchboard()
    server = await asyncio.start_server(switchboard.answer, "127.0.0.1", 0)
    switchboard.port = server.sockets[0].getsockname()[1]
    yield switchboard
    while not switchboard.calls.empty():
        switchboard.calls.get_nowait().writer.close()
    server.close()


async def always_ready() -> bool:
    return True


async def never_ready() -> bool:
    return False


def supervisor(
    *children: Child,
    on_ready: Callable[[], None] = lambda: None,
    tend: Callable[[], None] = lambda: None,
    patience: float = 30.0,
) -> Supervisor:
    return Supervisor(
        children, dict(os.environ), always_ready, on_ready, tend=tend, patience=patience, first_delay=0.01
    )


@asynccontextmanager
async def supervised(work: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    """The supervisor at work; it is stopped however the test ends."""
    task = asyncio.create_task(work.run())
    try:
        yield task
    finally:
        while not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait([task], timeout=0.1)


async def ended(line: Line) -> bool:
    """Waits for the child at the other end to end."""
    while await line.word():
        pass
    line.writer.close()
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_children_get_sigterm_and_time(board: Switchboard, number: signal.Signals) -> None:
    """Whichever way it is asked to stop, it passes SIGTERM on and returns when all children have ended."""
    async with supervised(supervisor(board.child("web"), board.child("worker"))) as task:
        lines = [await board.calls.get(), await board.calls.get()]
        processes = [await line.process() for line in lines]
        os.kill(os.getpid(), number)
        await task
        assert [await line.word() for line in lines] == ["bye", "bye"]
        assert not any(process.is_running() for process in processes)
        assert all([await ended(line) for line in lines])


async def test_a_second_signal_hastens(board: Switchboard) -> None:
    """A child that won't end is killed at the second Ctrl-C."""
    async with supervised(supervisor(board.child(manner="stubborn"))) as task:
        line = await board.calls.get()
        process = await line.process()
        os.kill(os.getpid(), signal.SIGINT)
        assert await line.word() == "no"
        assert process.is_running()
        os.kill(os.getpid(), signal.SIGINT)
        await task
        assert await ended(line)


async def test_patience_ends(board: Switchboard) -> None:
    """A child that won't end is killed when its time is up."""
    async with supervised(supervisor(board.child(manner="stubborn"), patience=0.1)) as task:
        line = await board.calls.get()
        await line.process()
        os.kill(os.getpid(), signal.SIGTERM)
        await task
        assert await ended(line)


async def test_a_child_that_dies_is_started_again(board: Switchboard) -> None:
    """After kill -9 of the worker a new one comes, with a new number, each time; the other child isn't touched."""
    async with supervised(supervisor(board.child("worker"), Child("web", ("/bin/sleep", "60")))) as task:
        seen = set()
        for _ in range(4):
            line = await board.calls.get()
            process = await line.process()
            seen.add(process.pid)
            process.kill()
            assert await ended(line)
        assert len(seen) == 4
        line = await board.calls.get()
        assert (await line.process()).is_running()
        assert not task.done()
        line.writer.close()


async def test_a_child_that_cannot_start_is_tried_on(board: Switchboard) -> None:
    """Seven failures in a row, of whichever child: it is started an eighth time, and the other one isn't touched."""
    with capture_logs() as logs:
        async with supervised(supervisor(board.child("gatehouse web", "failing"), board.child("worker"))) as task:
            lines = {await line.word(): line for line in (await board.calls.get(), await board.calls.get())}
            failing = lines.pop("failing")
            ((pid, other),) = lines.items()
            for _ in range(7):
                failing.writer.write(b".")
                assert await ended(failing)
                failing = await board.calls.get()
                assert await failing.word() == "failing"
            assert psutil.Process(int(pid)).is_running()
            assert not task.done()
            failing.writer.close()
    pauses = [line["seconds"] for line in logs if line.get("process") == "gatehouse web"]
    assert pauses[:7] == sorted(pauses[:7])
    assert pauses[6] > pauses[0]
    assert "exit code 3" in logs[0]["reason"]
    other.writer.close()


async def test_a_program_that_is_gone_is_tried_on(board: Switchboard, tmp_path: Path) -> None:
    """While an upgrade replaces it there may be none: that ends nothing either, and it is found when it is back."""
    program = tmp_path / "gatehouse"
    with capture_logs() as logs:
        async with supervised(supervisor(Child("web", (str(program), str(board.port))))):
            while len(logs) < 3:  # noqa: ASYNC110 - another process fails
                await asyncio.sleep(0.01)
            inner = board.child()
            program.write_text(f"#!/bin/sh\nexec {shlex.join(inner.command)}\n")
            program.chmod(0o755)
            line = await board.calls.get()
            await line.process()
            line.writer.close()


async def test_a_process_that_cannot_be_made_is_tried_on(board: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory or no process left on the machine: later there may be."""
    usual = asyncio.create_subprocess_exec
    refusals = iter([BlockingIOError(11, "Resource temporarily unavailable"), MemoryError(), OSError(12, "No memory")])

    async def short(*args: Any, **options: Any) -> asyncio.subprocess.Process:
        for refusal in refusals:
            raise refusal
        return await usual(*args, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", short)
    async with supervised(supervisor(board.child())):
        line = await board.calls.get()
        await line.process()
        line.writer.close()


async def test_the_end_is_prompt_during_a_pause(board: Switchboard) -> None:
    """Ctrl-C while a child waits to be started again doesn't wait for that."""
    child = Child("worker", ("/bin/false",))
    with capture_logs() as logs:
        work = Supervisor([child], dict(os.environ), always_ready, lambda: None, first_delay=1000.0)
        async with supervised(work) as task:
            while not logs:  # noqa: ASYNC110 - another process fails
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.wait_for(task, 5)
    assert logs[0]["seconds"] == 30.0


async def test_nothing_that_goes_wrong_at_tending_ends_the_rest(board: Switchboard) -> None:
    """Neither a fault of ours in looking after the servers nor a banner that nobody reads."""
    tended = asyncio.Event()

    def tend() -> None:
        tended.set()
        raise ZeroDivisionError

    def nobody_reads() -> None:
        raise BrokenPipeError

    async with supervised(supervisor(board.child(), tend=tend, on_ready=nobody_reads)) as task:
        line = await board.calls.get()
        process = await line.process()
        for _ in range(2):
            tended.clear()
            await tended.wait()
        assert process.is_running()
        assert not task.done()
        line.writer.close()


async def test_what_a_child_leaves_behind_ends_with_it(board: Switchboard) -> None:
    """The processes of a killed web process don't keep its port: its whole group goes."""
    inner = board.child()
    parent = f"import subprocess; subprocess.run({list(inner.command)!r})"
    async with supervised(supervisor(Child("web", (sys.executable, "-c", parent)))):
        line = await board.calls.get()
        grandchild = await line.process()
        child = grandchild.parent()
        assert child is not None
        child.kill()
        assert await ended(line)
        (await board.calls.get()).writer.close()


async def test_ready_is_announced_once(board: Switchboard) -> None:
    """The banner appears when the web process is ready, and not before."""
    told = asyncio.Event()
    async with supervised(supervisor(board.child(), on_ready=told.set)):
        await told.wait()
        line = await board.calls.get()
        await line.process()
        line.writer.close()
    told.clear()
    work = Supervisor([board.child()], dict(os.environ), never_ready, told.set)
    async with supervised(work):
        line = await board.calls.get()
        await line.process()
        line.writer.close()
    assert not told.is_set()


async def test_children_do_not_outlive_a_killed_supervisor(board: Switchboard) -> None:
    """After kill -9 of `gatehouse run`, on Linux, the children get SIGTERM and end in order."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SUPERVISOR, CHILD, str(board.port))
    line = await board.calls.get()
    child = await line.process()
    process.kill()
    await process.wait()
    if sys.platform != "linux":
        child.terminate()
    assert await line.word() == "bye"
    assert await ended(line)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {"DATA_DIR": str(tmp_path / "data"), "PORT": str(port), "SECRET_KEY": "k" * 32}
    return load(environ, dotenv=None)


@pytest.fixture
def listener(settings: Settings) -> Iterator[socket.socket]:
    with socket.create_server((settings.host, settings.port)) as taken:
        yield taken


def test_a_taken_port_is_one_clear_error(
    settings: Settings, listener: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and one line that names the port and what to set, before anything is started."""
    assert run.run_everything(settings) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(settings.port) in error
    assert "set HOST and PORT" in error
    assert not settings.data_dir.exists()


def test_a_second_run_is_one_clear_error(
    settings: Settings, listener: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second is told about the first and not about the port, which is only a consequence."""
    settings.data_dir.mkdir()
    with embedded_lock(settings.data_dir):
        assert run.run_everything(settings) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"already running on {settings.data_dir.resolve()} (pid {os.getpid()})" in error


def embedded_lock(data_dir: Path) -> Lock:
    """What a running Gatehouse holds."""
    lock = Lock(data_dir / "lock")
    assert lock.take()
    lock.sign()
    return lock


def test_children_learn_addresses_from_the_environment_only(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passwords are never on a command line, and what answers requests doesn't get the owner's."""
    monkeypatch.setenv("DATABASE_OWNER_URL", "postgresql://owner@elsewhere/db")
    stores = embedded.Stores("postgresql://app:pw@/db", "postgresql://owner:pw@/db", "unix://:pw@/s", None)
    filled = with_stores(settings, stores)
    environment = run.child_environment(filled)
    assert environment["DATABASE_URL"] == stores.database_url
    assert environment["REDIS_URL"] == stores.redis_url
    assert not any("owner" in value for value in environment.values() if "://" in value)
    assert environment["PATH"] == os.environ["PATH"]
    assert "pw" not in " ".join(run.gatehouse_command())


@pytest.mark.parametrize(("status", "expected"), [("200 OK", True), ("503 Service Unavailable", False)])
async def test_ready_means_200(settings: Settings, status: str, expected: bool) -> None:
    """Only the web process itself says that it is ready, under the name that browsers use."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        writer.close()

    assert not await run.ready(settings)
    server = await asyncio.start_server(answer, settings.host, settings.port)
    assert await run.ready(settings) is expected
    server.close()
    assert asked[0].startswith(b"GET /health/ready HTTP/1.1\r\n")
    assert f"Host: localhost:{settings.port}".encode() in asked[0]


def test_the_banner_says_what_to_do(settings: Settings) -> None:
    """What to open and curl on this very port, who the admin is, and where codes appear."""
    told = run.banner(settings, ["Made the tenant demo."])
    for part in (f":{settings.port}/login", f":{settings.port}/admin", "admin@example.com", "this log", "Ctrl-C"):
        assert part in told
    assert told.count("curl ") == 2
    assert "Made the tenant demo." in told
    mailed = load(
        {
            "ENVIRONMENT": "production",
            "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz-ABCDEF",
            "PUBLIC_URL": "https://id.example.org",
            "SMTP_ENABLED": "true",
            "SMTP_HOST": "mail.example.org",
            "SMTP_FROM_EMAIL": "codes@example.org",
        },
        dotenv=None,
    )
    told = run.banner(mailed, [])
    assert "mailed through mail.example.org" in told
    assert "https://id.example.org/login" in told
    assert "curl" not in told


def test_ctrl_c_before_anything_runs_is_no_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM during the start closes what is open and ends with exit code 0, as a stop that was asked for."""

    def interrupted(host: str, port: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr(run, "listen", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    assert run.run_everything(settings) == 0
    assert signal.getsignal(signal.SIGTERM) == before
