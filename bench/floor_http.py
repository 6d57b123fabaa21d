"""The first floor, a process of its own: Litestar with a handler that does nothing, served as `gatehouse web` is.

`python -m bench.floor_http` prints its port as one line of JSON and works until SIGTERM.
"""

import gc
import json

import uvicorn
from litestar import Litestar, post

from app.cli.web import listen
from app.web.protocol import GuardedProtocol


@post("/", status_code=200)
async def nothing() -> dict[str, str]:
    """The emptiest answer in JSON."""
    return {}


def main() -> None:
    listener = listen("127.0.0.1", 0)
    app = Litestar([nothing], openapi_config=None, logging_config=None)
    config = uvicorn.Config(
        app,
        interface="asgi3",
        loop="uvloop",
        http=GuardedProtocol,
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    gc.collect()
    gc.freeze()
    print(json.dumps(listener.getsockname()[1]), flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
