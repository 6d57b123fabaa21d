"""A real SMTP server (aiosmtpd) in the tests' own event loop, whose answers a test can choose."""

import asyncio
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, Final

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

SILENCE: Final = "silence"


class _Protocol(SMTP):
    """Greets, and answers EHLO, as a test chooses."""

    async def push(self, status: Any) -> None:
        greeting = isinstance(status, str) and status.startswith("220 mail.test")
        if greeting and (chosen := self.event_handler.answers["CONNECT"]):
            status = chosen.popleft()
        await super().push(status)


@dataclass(frozen=True, slots=True)
class Mail:
    """What arrived: the envelope, and the mail as the standard library reads it."""

    sender: str
    recipients: list[str]
    raw: bytes
    read: EmailMessage

    def part(self, subtype: str) -> str:
        """The text of one alternative."""
        body = self.read.get_body((subtype,))
        assert body is not None
        text: str = body.get_content()
        return text


class MailServer:
    """Takes every mail, unless `answers[command]` has something else to say to the next one.

    `answers["RCPT"].append("450 later")`, likewise CONNECT (the greeting), EHLO, HELO, AUTH, MAIL and DATA; `SILENCE`
    never answers. Each answer is used once. With `greylisting` each recipient is refused for now when it is met for the
    first time.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.tls_sessions = 0
        self.greylisting = False
        self._met: set[str] = set()
        self.logins: list[str] = []
        # Who every client said it was.
        self.hellos: list[str] = []
        # Every text that was handed over, and those of them that were taken.
        self.given: list[Mail] = []
        self.mails: list[Mail] = []
        self.answers: defaultdict[str, deque[str]] = defaultdict(deque)
        self.protocols: list[SMTP] = []
        self._arrivals: asyncio.Queue[Mail] = asyncio.Queue()
        self._asked = asyncio.Condition()
        self._counts: defaultdict[str, int] = defaultdict(int)

    async def next(self) -> Mail:
        """The next mail, waiting for it."""
        async with asyncio.timeout(30):
            return await self._arrivals.get()

    async def asked(self, command: str, times: int = 1) -> None:
        """Until the server has seen a command so often."""
        async with asyncio.timeout(30), self._asked:
            await self._asked.wait_for(lambda: self._counts[command] >= times)

    def count(self, command: str) -> int:
        """How often the server has seen a command."""
        return self._counts[command]

    def hang_up(self) -> None:
        """Closes every connection, as servers do with idle ones."""
        for protocol in self.protocols:
            if protocol.transport is not None:
                protocol.transport.close()

    async def handle_EHLO(  # noqa: N802
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        answer = await self._answer("EHLO")
        self.hellos.append(hostname)
        if not answer.startswith("250"):
            return [answer]
        session.host_name = hostname
        return responses

    async def handle_HELO(self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str) -> str:  # noqa: N802
        answer = await self._answer("HELO")
        if answer.startswith("250"):
            session.host_name = hostname
        return answer

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's names
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = await self._answer("MAIL")
        if answer.startswith("250"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
            self.tls_sessions += session.ssl is not None
        return answer

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        new = address not in self._met
        self._met.add(address)
        answer = await self._answer("RCPT", "450 4.2.1 Come back later" if self.greylisting and new else "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        raw = envelope.content
        assert isinstance(raw, bytes)
        read = message_from_bytes(raw, policy=default)
        mail = Mail(envelope.mail_from or "", envelope.rcpt_tos, raw, read)
        self.given.append(mail)
        answer = await self._answer("DATA", "250 2.0.0 Ok: queued as 4F2A9C")
        if answer.startswith("250"):
            self.mails.append(mail)
            self._arrivals.put_nowait(mail)
        return answer

    async def _answer(self, command: str, usual: str = "250 OK") -> str:
        answer = self.answers[command].popleft() if self.answers[command] else usual
        async with self._asked:
            self._counts[command] += 1
            self._asked.notify_all()
        if answer == SILENCE:
            await asyncio.Event().wait()
        return answer

    def check_login(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        """One account: gate, open sesame."""
        assert isinstance(data, LoginPassword)
        good = (data.login, data.password) == (b"gate", b"open sesame")
        self.logins.append(data.login.decode())
        if self.answers["AUTH"]:
            return AuthResult(success=False, handled=False, message=self.answers["AUTH"].popleft())
        return AuthResult(success=good, handled=False)


@asynccontextmanager
async def mail_server(
    *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None, login: bool = False
) -> AsyncIterator[MailServer]:
    """A server on a free port of 127.0.0.1, with STARTTLS, TLS from the first byte, or neither."""
    mail = MailServer()
    loop = asyncio.get_running_loop()

    def connect() -> SMTP:
        mail.connections += 1
        protocol = _Protocol(
            mail,
            hostname="mail.test",
            loop=loop,
            tls_context=starttls,
            require_starttls=starttls is not None,
            authenticator=mail.check_login if login else None,
            auth_required=login and starttls is not None,
            auth_require_tls=starttls is not None,
        )
        mail.protocols.append(protocol)
        return protocol

    server = await loop.create_server(connect, "127.0.0.1", 0, ssl=tls)
    mail.port = server.sockets[0].getsockname()[1]
    try:
        yield mail
    finally:
        server.close()
        mail.hang_up()
        for protocol in mail.protocols:
            if task := protocol._handler_coroutine:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
