"""The first floor, a process of its own: Litestar with a handler that does nothing, served as `gatehouse web` is.

`python -m bench.floor_http` prints its port as one line of JSON and works until SIGTERM.
"""

import json

import uvicorn
from litestar import Litestar, post

from app.cli.listening import listen
from app.cli.web import server_config


@post("/", status_code=200)
async def nothing() -> dict[str, str]:
    """The emptiest answer in JSON."""
    return {}


def main() -> None:
    listener = listen("127.0.0.1", 0)
    print(json.dumps(listener.getsockname()[1]), flush=True)
    config = server_config(lambda: Litestar([nothing], openapi_config=None, logging_config=None), 1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
