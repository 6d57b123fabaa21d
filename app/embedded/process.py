"""A server as a child process, and the servers that a killed supervisor left behind."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import structlog

from app.embedded.account import Account
from app.embedded.errors import StoreFailed

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_LAUNCH: Final = str(Path(__file__).with_name("launch.py"))
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_POLL_SECONDS: Final = 0.01
_START_SECONDS: Final = 60  # crash recovery of a large database takes its time
_TELL_BYTES: Final = 2000
# A server that ended is started again after a pause, which doubles until it has been up for a while.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0
_MOST_DOUBLINGS: Final = 10
_HEALTHY_SECONDS: Final = 10.0

Steps = Sequence[tuple[signal.Signals, float]]
"""Ever stronger signals to end a server, each with the seconds it is given."""


def launch_command(
    argv: Sequence[str], *, account: Account | None = None, on_parent_death: signal.Signals | None = None
) -> list[str]:
    """The command line that starts `argv` as `account` and, on Linux, signals it when this process dies.

    What Linux watches is the starting *thread*, so off the main thread, which may well end first, nothing is promised.
    """
    watched = on_parent_death if threading.current_thread() is threading.main_thread() else None
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    numbers = (watched or 0, os.getpid(), uid, gid)
    return [sys.executable, "-I", "-S", _LAUNCH, *(str(int(number)) for number in numbers), *argv]


def server_environment() -> dict[str, str]:
    """What a server gets to see: not our secrets, and none of the PG* variables that would change its mind."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


@dataclass(slots=True)
class Server:
    """One server process. `is_ready` is asked with its pid until it agrees."""

    name: str
    argv: list[str]
    account: Account | None
    is_ready: Callable[[int], bool]
    end: Steps
    # Asked anew for each start.
    environment: Callable[[], dict[str, str]] = server_environment
    # What the server says when it can't start *yet*.
    not_yet: str | None = None
    # Seconds from its start until it takes connections, at most.
    patience: float = _START_SECONDS
    _process: subprocess.Popen[bytes] | None = None
    _said: IO[bytes] | None = None
    _up: bool = False
    _began: float = 0.0
    _failures: int = 0
    # When it is to be started again; None while its process is thought to run.
    _again_at: float | None = None

    def launch(self) -> None:
        """Starts the process and doesn't wait for it."""
        self._forget()
        self._up, self._again_at, self._began = False, None, time.monotonic()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the process
        self._process = subprocess.Popen(
            launch_command(self.argv, account=self.account, on_parent_death=self.end[0][0]),
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            env=self.environment(),
            cwd="/",
            start_new_session=True,  # Ctrl-C is for us; we stop the servers when those who use them have ended
        )

    def await_ready(self) -> None:
        """Returns once the server takes connections. Raises `StoreFailed` with the server's own words."""
        deadline = time.monotonic() + self.patience
        while self._process is not None and time.monotonic() < deadline:
            if self.is_ready(self._process.pid):
                self._up = True
                return
            if not self.alive():
                said = self._words()
                if self.not_yet is None or self.not_yet not in said:
                    raise StoreFailed(f"The embedded {self.name} did not start. It said:\n{said}")
                self.launch()
            time.sleep(_POLL_SECONDS)
        said = self._words()
        self.stop()
        raise StoreFailed(f"The embedded {self.name} was not ready within {self.patience:.0f} s. It said:\n{said}")

    def tend(self, now: float) -> None:
        """Starts it again if it has ended, for ever, after pauses that grow. Never waits and never raises.

        To be called often, in the thread that the server shall end with. `now` is a time of `time.monotonic`. One that
        runs and isn't ready yet is left alone: a database that recovers takes its time.
        """
        if self._again_at is not None:
            if now >= self._again_at:
                self._start_again(now)
        elif self._process is None or not self.alive():
            self._pause(now, self._ending())
        elif not self._up and self.is_ready(self._process.pid):
            self._up = True
            log.info("Embedded server is back", server=self.name)

    def _start_again(self, now: float) -> None:
        try:
            self.launch()
        except OSError as error:  # no room for what it says, no memory, no process to be had
            self._pause(now, str(error))

    def _pause(self, now: float, reason: str) -> None:
        healthy = self._up and now - self._began >= _HEALTHY_SECONDS
        self._failures = 0 if healthy else self._failures + 1
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures, _MOST_DOUBLINGS))
        self._again_at = now + pause
        say = log.warning if self._up else log.error
        say("Embedded server ended; it is started again", server=self.name, reason=reason, seconds=pause)
        self._up = False

    def _ending(self) -> str:
        if self._process is None or self._process.returncode is None:
            return "it isn't there"
        status = self._process.returncode
        how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        return f"{how}; it said: {self._words()}"

    @property
    def pid(self) -> int | None:
        """The server's process, if it was started."""
        return self._process.pid if self._process else None

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends the server, gently first; each Ctrl-C meanwhile is taken as haste. May be called twice."""
        for number, patience in self.end:
            if self._process is None or not self.alive():
                break
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                self._process.wait(patience)
        self._forget()

    def _words(self) -> str:
        if self._said is None:
            return "(nothing)"
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - _TELL_BYTES))
        return self._said.read().decode(errors="replace").strip() or "(nothing)"

    def _forget(self) -> None:
        if self._said is not None:
            self._said.close()
        self._process = self._said = None


def end_with_parent() -> None:
    """Makes the kernel end this process, gently, when the one that started it dies. Only Linux does that."""
    if sys.platform == "linux":
        parent = multiprocessing.parent_process()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if parent is not None and os.getppid() != parent.pid:
            os.kill(os.getpid(), signal.SIGTERM)


def end_strays(program: str, argument: str, steps: Steps) -> None:
    """Ends every process of `program` that was started with exactly `argument`.

    They are found by what they are, never by a number that was written down: numbers are used again.
    """
    for number, patience in steps:
        for pid in _running(program, argument):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while _running(program, argument):
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_SECONDS)
        else:
            return


def _running(program: str, argument: str) -> list[int]:
    return [pid for pid, argv in _command_lines() if argv and Path(argv[0]).name == program and argument in argv[1:]]


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    if not Path("/proc/self/cmdline").exists():  # macOS
        listing = subprocess.run(["ps", "-axo", "pid=,args="], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            pid, _, arguments = line.strip().partition(" ")
            yield int(pid), arguments.split()
        return
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with suppress(OSError):
                arguments = os.fsdecode(Path(entry.path, "cmdline").read_bytes()).rstrip("\0")
                yield int(entry.name), arguments.split("\0")
