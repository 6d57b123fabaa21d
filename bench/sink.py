"""The mail server of the benchmark, a process of its own: takes every mail and tells the load client its code.

`python -m bench.sink` prints the ports of both as one line of JSON and works until SIGTERM. aiosmtpd, which the tests
use, would cost more than the worker that is measured.
"""

import asyncio
import json
import re
import signal
import time
from typing import Final, cast

import uvloop

_END: Final = b"\r\n.\r\n"
# The code has a line of its own in the plain text.
_CODE: Final = re.compile(rb"\n[ ]*([0-9]{6}|[0-9]{8})\r\n")
_GREETING: Final = b"220 sink.example ESMTP\r\n"
_ANSWERS: Final = {
    b"EHLO": b"250-sink.example\r\n250-8BITMIME\r\n250 PIPELINING\r\n",
    b"HELO": b"250 sink.example\r\n",
    b"MAIL": b"250 2.1.0 Ok\r\n",
    b"RCPT": b"250 2.1.5 Ok\r\n",
    b"DATA": b"354 Go ahead\r\n",
    b"RSET": b"250 2.0.0 Ok\r\n",
    b"NOOP": b"250 2.0.0 Ok\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


class Sink:
    """What the two kinds of connection share."""

    def __init__(self) -> None:
        self.readers: set[asyncio.Transport] = set()
        self.one_mail_per_connection = False

    def arrived(self, recipient: bytes, mail: bytes) -> None:
        """Tells whoever listens: recipient, code, and when, on the clock that all processes of a machine share."""
        code = _CODE.search(mail)
        line = b"%b %b %.6f\n" % (recipient, code[1] if code else b"-", time.monotonic())
        for reader in self.readers:
            reader.write(line)


class Smtp(asyncio.Protocol):
    """One connection of the worker (RFC 5321)."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._transport: asyncio.Transport
        self._received = b""
        self._recipient = b""
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(_GREETING)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._in_data or b"\r\n" in self._received:
            if not self._in_data:
                line, _, self._received = self._received.partition(b"\r\n")
                self._command(line)
            elif (end := self._received.find(_END)) >= 0:
                mail, self._received = self._received[: end + 2], self._received[end + len(_END) :]
                self._take(mail)
            else:
                return

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        self._transport.write(_ANSWERS.get(verb, b"500 5.5.2 What?\r\n"))
        if verb == b"RCPT":
            self._recipient = line[line.index(b"<") + 1 : line.index(b">")]
        self._in_data = verb == b"DATA"
        if verb == b"QUIT":
            self._transport.close()

    def _take(self, mail: bytes) -> None:
        self._in_data = False
        self._sink.arrived(self._recipient, mail)
        self._transport.write(b"250 2.0.0 Ok: queued\r\n")
        if self._sink.one_mail_per_connection:
            self._transport.close()


class Reader(asyncio.Protocol):
    """One connection of the load client, which may say `one` or `many`: the mails a connection may bring."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._sink.readers.add(self._transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._sink.readers.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._sink.one_mail_per_connection = data.split()[-1] == b"one"


async def main() -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    sink = Sink()
    smtp = await loop.create_server(lambda: Smtp(sink), "127.0.0.1", 0)
    mailbox = await loop.create_server(lambda: Reader(sink), "127.0.0.1", 0)
    ports = {"smtp": smtp.sockets[0].getsockname()[1], "mailbox": mailbox.sockets[0].getsockname()[1]}
    print(json.dumps(ports), flush=True)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(main())
