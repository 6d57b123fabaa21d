"""The embedded Valkey. It keeps nothing: what may be lost lives here."""

import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.embedded.account import Account
from app.embedded.binaries import Binaries
from app.embedded.files import make_private_dir, write_private
from app.embedded.process import Server, Steps, end_strays

# It has nothing to recover. Who waits longer goes on without it.
_START_SECONDS: Final = 10.0
END: Final[Steps] = ((signal.SIGTERM, 5), (signal.SIGKILL, 5))

# When memory runs out the counters nobody has touched for longest go: whoever is being counted stays counted.
# Refusing writes instead would let a flood of addresses switch the limiters off for all.
_CONFIGURATION: Final = """\
# Written anew at every start of Gatehouse.
port 0
unixsocket {socket}
unixsocketperm 700
requirepass {password}
save ""
appendonly no
maxmemory 128mb
maxmemory-policy allkeys-lru
dir {directory}
logfile {log}
loglevel warning
set-proc-title no
"""


@dataclass(frozen=True, slots=True)
class Valkey:
    """A server that keeps its files below `servers`, which belongs to `account`."""

    servers: Path
    sockets: Path
    account: Account | None
    binaries: Binaries

    @property
    def _file(self) -> Path:
        return self.servers / "valkey.conf"

    @property
    def _socket(self) -> Path:
        return self.sockets / "valkey.sock"

    def url(self, password: str) -> str:
        """The address for redis-py."""
        return f"unix://:{password}@{self._socket}"

    def end_strays(self) -> None:
        """Ends the server that a killed supervisor left behind."""
        end_strays("valkey-server", str(self._file), END)

    def server(self, password: str) -> Server:
        """Writes the configuration; the server is not yet started."""
        logs = self.servers / "log"
        make_private_dir(logs)
        # At this level it says a few lines a start: beginning anew is all the rotation it needs.
        log = logs / "valkey.log"
        log.unlink(missing_ok=True)
        text = _CONFIGURATION.format(socket=self._socket, password=password, directory=_quoted(logs), log=_quoted(log))
        write_private(self._file, text)
        return Server(
            name="Valkey",
            argv=[str(self.binaries.valkey), str(self._file)],
            account=self.account,
            is_ready=self._is_ready,
            end=END,
            patience=_START_SECONDS,
        )

    def _is_ready(self, _: int) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0


def _quoted(path: Path) -> str:
    """A string in valkey.conf."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
