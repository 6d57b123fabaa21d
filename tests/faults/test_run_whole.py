"""All of `gatehouse run`, for real: its servers and processes are killed, one after the other, and last it itself."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.processes import free_port


class Run:
    """`gatehouse run` on data of its own, with two web processes."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            "PATH": os.environ["PATH"],
            "DATA_DIR": str(directory / "data"),
            "PORT": str(port),
            "WEB_WORKERS": "2",
            "OTP_IP_HOURLY_LIMIT": "1000000",
        }
        self.log = directory / "log"
        self._numbers = itertools.count()
        with self.log.open("wb") as output:
            self.process = psutil.Popen(
                [sys.executable, "-m", "app.cli.main", "run"],
                env=environment,
                cwd=directory,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )

    def all(self) -> list[psutil.Process]:
        """It and everything below it."""
        return [self.process, *self.process.children(recursive=True)]

    def child(self, *words: str) -> psutil.Process | None:
        """Its direct child whose command line has these words."""
        for process in self.process.children():
            with suppress(psutil.NoSuchProcess):
                if set(words) <= set(process.cmdline()) | {process.name()}:
                    return process
        return None

    def ask(self) -> int:
        """The status of a request that needs the database; 0 when nobody answers."""
        with suppress(httpx.TransportError):
            slug = f"nobody-{next(self._numbers)}"
            return httpx.post(f"{self.url}/api/v1/tenants/{slug}/otp/request", json={}, timeout=10).status_code
        return 0

    def ready(self) -> tuple[int, str]:
        """What readiness says."""
        with suppress(httpx.TransportError):
            answer = httpx.get(f"{self.url}/health/ready", timeout=10)
            return answer.status_code, answer.json()["status"]
        return 0, ""

    def until(self, fact: Callable[[], object]) -> None:
        """Waits for another process, which tells nobody what it does."""
        deadline = time.monotonic() + 90
        while not fact():
            assert self.process.is_running(), self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def kill(self, *words: str) -> None:
        """Kills that child as soon as it is there."""
        self.until(lambda: self.child(*words))
        child = self.child(*words)
        assert child is not None
        with suppress(psutil.NoSuchProcess):
            child.kill()
            child.wait(10)


@pytest.fixture
def run() -> Iterator[Run]:
    # Not pytest's own directory: as root the servers run as a user who can't enter it.
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o711)
    started = Run(directory)
    yield started
    with suppress(psutil.NoSuchProcess):
        for process in started.all():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        started.process.wait()
    shutil.rmtree(directory, ignore_errors=True)


def test_whatever_is_killed_comes_back_and_nothing_outlives_it(run: Run) -> None:
    """Valkey five times in a row, also while it restarts, then PostgreSQL, worker and web; at the end `run` itself."""
    run.until(lambda: run.ready() == (200, "ok"))
    for _ in range(5):
        run.kill("valkey-server")
        assert run.ask() == 404
        assert run.ready()[0] == 200
    run.until(lambda: run.ready() == (200, "ok"))

    run.kill("postgres")
    seen = {run.ask()}

    def answers_again() -> bool:
        seen.add(run.ask())
        return 404 in seen

    run.until(answers_again)
    assert seen <= {404, 503}
    run.until(lambda: run.ready() == (200, "ok"))

    for name in ("worker", "web"):
        for _ in range(2):
            run.kill(name)
    run.until(lambda: run.ready() == (200, "ok"))
    said = run.log.read_text()
    for words in ("Embedded server ended; it is started again", "Process ended; it is started again", "is back"):
        assert words in said

    everything = run.all()
    assert len(everything) > 6
    run.process.kill()
    _, alive = psutil.wait_procs(everything, timeout=40)
    assert alive == [] or sys.platform != "linux"
