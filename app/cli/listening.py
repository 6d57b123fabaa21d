"""Where the web process listens; apart from `app.cli.web` because `gatehouse run` asks before it loads all that."""

import socket

from app.errors import GatehouseError


class CannotListen(GatehouseError):
    """Somebody else listens there, or the address isn't this machine's."""

    code = "cannot-listen"


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `CannotListen` with the system's reason."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise CannotListen(
            f"Can't listen on {host}, port {port}: {error.strerror}. "
            "Stop what listens there, or set HOST and PORT to something else."
        ) from error
    return listener
