"""Child processes: how they start, what a process and its descendants cost, how they end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import psutil

ROOT: Final = Path(__file__).parents[1]
_END_SECONDS: Final = 20.0
_INHERITED: Final = ("PATH", "HOME", "LANG", "TMPDIR")


class ProcessFailed(Exception):
    """A process of the benchmark ended or answered otherwise than it should; the text says which and how."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that we started."""

    name: str
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def read(self) -> Any:
        """The next line of its stdout, as JSON. Raises `ProcessFailed` when it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ProcessFailed(f"{self.name} ended with exit code {self.process.wait()}.")
        return json.loads(line)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for whoever doesn't care."""
        self.process.terminate()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The process stands still meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def start(name: str, *argv: str, environment: Mapping[str, str], directory: Path, log: IO[str] | None = None) -> Child:
    """Starts `python -m <argv>` from this checkout. Its environment is `environment` and nothing of ours.

    `directory`, where it runs, has no `.env`. Without `log` its stderr is ours.
    """
    inherited = {key: os.environ[key] for key in _INHERITED if key in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", *argv],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    return Child(name, process)


def cpu_seconds(pid: int | None) -> float:
    """User and system time of a process, of its descendants, and of those of them that have ended."""
    total = 0.0
    for process in _tree(pid):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its descendants, in megabytes of 10^6 bytes."""
    total = 0
    for process in _tree(pid):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 1e6


def _tree(pid: int | None) -> list[psutil.Process]:
    if pid is None:
        return []
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]
