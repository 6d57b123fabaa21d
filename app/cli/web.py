"""`gatehouse web`: answers HTTP until it is asked to stop."""

from app.cli import lean  # noqa: F401 - first of all imports

# isort: split
import gc
import multiprocessing
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn
from litestar import Litestar
from uvicorn.supervisors import Multiprocess

from app import logs
from app.asgi import create_app
from app.cli.listening import listen
from app.embedded.process import end_with_parent
from app.settings import Settings
from app.web.protocol import GuardedProtocol

_BACKLOG: Final = 2048
# Longer than the idle time of common proxies' pools would be wasteful, shorter makes them meet closed connections.
_KEEP_ALIVE_SECONDS: Final = 65
# What is under way when the process is asked to stop has this long.
_GRACE_SECONDS: Final = 10


def serve(settings: Settings) -> None:
    """Answers on HOST and PORT with WEB_WORKERS processes; returns after SIGTERM or SIGINT.

    What is under way is finished first, within 10 seconds. Raises `CannotListen`, or `ConfigurationError` when
    a store isn't named.
    """
    listener = listen(settings.host, settings.port)
    logs.configure(settings)
    logs.tell_settings(settings)
    config = server_config(partial(_application, _portable(settings)), settings.web_workers)
    if settings.web_workers > 1:
        Multiprocess(config, sockets=[listener]).run()
        return
    # uvicorn stops gracefully and then raises the signal again: that must not undo an orderly end.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
            signal.signal(number, _end)
    uvicorn.Server(config).run(sockets=[listener])


def server_config(application: Callable[[], Litestar], workers: int) -> uvicorn.Config:
    """How uvicorn serves the application, which each process makes by itself."""
    return uvicorn.Config(
        application,
        factory=True,
        interface="asgi3",
        loop="uvloop",
        http=GuardedProtocol,
        ws="none",
        lifespan="on",
        workers=workers,
        # The log is ours (app.web.edge), and so is the trust in proxies (app.web.addresses).
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _portable(settings: Settings) -> dict[str, Any]:
    """The settings' fields, fit to be sent to another process: a read-only view of a mapping isn't."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return values | {"credentials": dict(settings.credentials)}


def _application(values: dict[str, Any]) -> Litestar:
    """Made in each web process by itself."""
    if multiprocessing.parent_process() is not None:
        end_with_parent()  # or they would keep the port of a killed `gatehouse web`
    settings = Settings(**values)
    logs.configure(settings)
    app = create_app(settings)
    # What exists now lives as long as the process; the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    return app


def _end(_: int, __: FrameType | None) -> None:
    sys.exit(0)
