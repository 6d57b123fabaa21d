"""Keeps child processes running until somebody asks them to stop."""

import asyncio
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from app.embedded.process import launch_command

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECONDS: Final = 0.05
_TEND_SECONDS: Final = 0.2
_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0
# A process that ends sooner than this after its start has not really started: the pause before the next start grows.
_HEALTHY_SECONDS: Final = 10.0
_MOST_DOUBLINGS: Final = 10


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running."""

    name: str
    command: Sequence[str]


@contextmanager
def stop_signals_interrupt() -> Iterator[None]:
    """Makes every signal that asks us to stop a KeyboardInterrupt, so that what is open gets closed."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler != signal.SIG_IGN:  # nohup(1) is obeyed
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class Supervisor:
    """Starts the children, says when all is ready, starts again what ends, and stops everything in order.

    A child that ends, or can't be started, is tried again for as long as we live, after pauses that grow up to half a
    minute; the others don't notice. On Linux the children get SIGTERM when we die ourselves. They write straight to our
    stdout and stderr.
    """

    children: Sequence[Child]
    environment: Mapping[str, str]
    is_ready: Callable[[], Awaitable[bool]]
    on_ready: Callable[[], None]
    # Called several times a second and never blocking, for what else has to be kept up.
    tend: Callable[[], None] = lambda: None
    # Seconds the children have to finish what they are doing.
    patience: float = 30.0
    first_delay: float = _FIRST_DELAY
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _processes: dict[str, Process] = field(default_factory=dict)

    async def run(self) -> None:
        """Returns when a signal asked for the end and all children have ended; the second signal ends them at once."""
        with self._listening():
            tasks = [asyncio.create_task(self._keep(child)) for child in self.children]
            tasks += [asyncio.create_task(self._tend()), asyncio.create_task(self._announce())]
            try:
                await self._stop.wait()
            finally:
                # This ends the keeping, not the processes.
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._end_children()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def on_signal() -> None:
            (self._hurry if self._stop.is_set() else self._stop).set()

        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
        listened = [number for number, handler in before.items() if handler != signal.SIG_IGN]
        for number in listened:
            loop.add_signal_handler(number, on_signal)
        try:
            yield
        finally:
            for number in listened:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    async def _keep(self, child: Child) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                reason = _told(await self._run(child))
            except (OSError, MemoryError) as error:  # no memory, no process to be had, an upgrade under way
                reason = f"it can't be started: {error}"
            failures = failures + 1 if time.monotonic() - began < _HEALTHY_SECONDS else 0
            delay = min(_LONGEST_DELAY, self.first_delay * 2 ** min(failures, _MOST_DOUBLINGS))
            log.warning("Process ended; it is started again", process=child.name, reason=reason, seconds=delay)
            await asyncio.sleep(delay)

    async def _run(self, child: Child) -> int:
        process = self._processes[child.name] = await asyncio.create_subprocess_exec(
            *launch_command(child.command, on_parent_death=signal.SIGTERM),
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us, and what a child starts can be ended with it
        )
        status = await process.wait()
        _kill_group(process)
        return status

    async def _announce(self) -> None:
        while not await self.is_ready():  # noqa: ASYNC110 - another process gets ready; nothing here could be set
            await asyncio.sleep(_POLL_SECONDS)
        with suppress(OSError):  # nobody reads our output any more
            self.on_ready()

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_TEND_SECONDS)
            try:
                self.tend()
            except Exception:
                log.exception("Looking after the embedded servers failed")

    async def _end_children(self) -> None:
        alive = [process for process in self._processes.values() if process.returncode is None]
        for process in alive:
            with suppress(ProcessLookupError):
                process.terminate()
        ended = asyncio.create_task(_all_ended(alive))
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([ended, hurried], timeout=self.patience, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for process in alive:
            _kill_group(process)
        await ended


async def _all_ended(processes: Sequence[Process]) -> None:
    for process in processes:
        await process.wait()


def _kill_group(process: Process) -> None:
    """Ends what is left of a child and of its own children."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _told(status: int) -> str:
    return f"exit code {status}" if status >= 0 else signal.Signals(-status).name
