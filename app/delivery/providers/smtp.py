"""Email over SMTP (RFC 5321) on kept-open connections: a new one costs more than the mail.

STARTTLS, where it is switched on, is demanded and never merely tried (RFC 3207), and certificates are checked in
either kind of TLS. A private authority is trusted by way of `SSL_CERT_FILE`, as everywhere in OpenSSL.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from typing import Final

from aiosmtplib import SMTP
from aiosmtplib.errors import (
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from app.delivery import mime
from app.delivery.dkim import Signer
from app.delivery.faults import Fault
from app.delivery.message import (
    UNANSWERED,
    Deferral,
    DeliveryError,
    Message,
    PermanentFailure,
    Receipt,
    TransientFailure,
    harmless,
)
from app.delivery.smtp_replies import Phase, fault_of, put_off
from app.settings import Settings

# Mail services allow few connections an account; eight of them send thousands of mails a second to a local server.
_CONNECTIONS: Final = 8
# Servers close idle connections after some minutes (RFC 5321, 4.5.3.2.7: five); ours go well before.
_IDLE_SECONDS: Final = 30.0
# How much longer than for any other step we wait for the answer to the text.
_PATIENCE: Final = 3
# Replies from here on are refusals (RFC 5321, 4.2.1).
_REFUSALS: Final = 400


class Smtp:
    """One account at one server. `tls` replaces the usual trust in the system's certificate authorities."""

    name = "smtp"
    channel = "email"

    def __init__(
        self,
        *,
        host: str,
        port: int,
        from_email: str,
        from_name: str,
        username: str | None = None,
        password: str | None = None,
        starttls: bool = True,
        implicit_tls: bool = False,
        timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
        dkim: Signer | None = None,
        ehlo_name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._from_name = from_name
        self._from_header = lru_cache(maxsize=1024)(partial(mime.sender, address=from_email))
        self._envelope_from = mime.recipient(from_email)
        self._domain = self._envelope_from.rpartition("@")[2]
        # The default of the library asks the DNS for our own name, which may take longer than the mail, and servers
        # refuse a bare machine name.
        self._ehlo_name = ehlo_name or self._domain
        self._host = host
        self._port = port
        self._username = username
        self._password = password
        self._starttls = starttls
        self._implicit_tls = implicit_tls
        self._timeout = timeout
        self._tls = tls
        self._dkim = dkim
        self._clock = clock
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        # The most recently used one is at the right end, so that at night the others grow old and go.
        self._idle: deque[tuple[SMTP, float]] = deque()

    @classmethod
    def from_settings(cls, settings: Settings) -> "Smtp":
        """As `SMTP_*` and `DKIM_*` say; the loader has seen to it that they are complete.

        Raises `ConfigurationError` for a key that is none.
        """
        return cls(
            host=settings.smtp_host or "localhost",
            port=settings.smtp_port,
            from_email=settings.smtp_from_email or "",
            from_name=settings.smtp_from_name,
            username=settings.smtp_username,
            password=settings.smtp_password,
            starttls=settings.smtp_use_tls,
            implicit_tls=settings.smtp_use_ssl,
            timeout=settings.smtp_timeout_seconds,
            dkim=_signer(settings),
            ehlo_name=settings.smtp_ehlo_name,
        )

    async def send(self, message: Message) -> Receipt:
        """Hands one mail to the server; the receipt has its answer, where the queue id usually stands.

        Each step (waiting for a connection, connecting, greeting, STARTTLS, signing in, sender, recipient) has the
        timeout to itself. The answer to the text has three times as long: servers look for spam and viruses first, and
        who hangs up on them sends a second copy (RFC 5321, 4.5.3.2.6). When it doesn't come, the failure is
        `unanswered`: the server may have taken the mail.
        """
        to = mime.recipient(message.to)
        from_header = self._from_header(message.sender_name or self._from_name)
        text = mime.email(message, to=to, from_header=from_header, domain=self._domain)
        if self._dkim:
            text = self._dkim.sign(text, message.date)
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise TransientFailure("busy", "All connections to the mail server were busy.") from None
        try:
            answer = await self._deliver(to, text)
        finally:
            self._slots.release()
        return Receipt(harmless(answer, message.to, message.code), bounces_as=message.id)

    async def close(self) -> None:
        """Says goodbye on every idle connection."""
        while self._idle:
            connection, _ = self._idle.pop()
            with suppress(SMTPException, OSError, TimeoutError):
                await connection.quit(timeout=1)
            connection.close()

    async def _deliver(self, to: str, text: bytes) -> str:
        connection = self._reuse()
        if connection is not None:
            with suppress(_HungUp):
                return await self._transact(connection, to, text)
        connection = await self._connect()
        try:
            return await self._transact(connection, to, text)
        except _HungUp as error:
            if isinstance(error.__cause__, SMTPResponseException):
                raise _refusal(error.__cause__, "mail", doubtful=False) from error
            raise TransientFailure("disconnected", "The mail server hung up at once.") from error

    def _reuse(self) -> SMTP | None:
        while self._idle:
            connection, since = self._idle.pop()
            if connection.is_connected and self._clock() - since < _IDLE_SECONDS:
                return connection
            connection.close()
        return None

    async def _connect(self) -> SMTP:
        if self._tls is None and (self._starttls or self._implicit_tls):
            # Reading the system's authorities takes a while, so it happens once, and not in the event loop.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        connection = SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password,
            start_tls=self._starttls,
            use_tls=self._implicit_tls,
            tls_context=self._tls,
            timeout=self._timeout,
            local_hostname=self._ehlo_name,
        )
        with _failures("connect"):
            await connection.connect()
        return connection

    async def _transact(self, connection: SMTP, to: str, text: bytes) -> str:
        """One mail on one connection, which is then kept, or dropped if it misbehaved."""
        keep = False
        try:
            with _failures("mail"):
                await self._announce(connection)
            with _failures("rcpt"):
                await connection.rcpt(to)
            with _failures("data", doubtful=True):
                answer = await connection.data(text, timeout=_PATIENCE * self._timeout)
            keep = True
        except DeliveryError:
            keep = await _reset(connection)
            raise
        finally:
            if keep:
                self._idle.append((connection, self._clock()))
            else:
                connection.close()
        return f"{answer.code} {answer.message}"

    async def _announce(self, connection: SMTP) -> None:
        try:
            await connection.mail(self._envelope_from)
        except (SMTPServerDisconnected, SMTPResponseException) as error:
            if connection.is_connected:
                raise
            raise _HungUp from error


def _signer(settings: Settings) -> Signer | None:
    if not (settings.dkim_domain and settings.dkim_selector and settings.dkim_private_key_file):
        return None
    return Signer.from_file(settings.dkim_domain, settings.dkim_selector, settings.dkim_private_key_file)


class _HungUp(Exception):
    """The connection had ended before this mail began."""


async def _reset(connection: SMTP) -> bool:
    """Whether the connection is fit for another mail after the server refused this one."""
    try:
        await connection.rset()
    except (SMTPException, OSError):
        return False
    return True


@contextmanager
def _failures(phase: Phase, *, doubtful: bool = False) -> Iterator[None]:
    """Tells what went wrong in our words. `doubtful`: without an answer, the server may have taken the mail."""
    try:
        yield
    except SMTPResponseException as error:
        raise _refusal(error, phase, doubtful=doubtful) from error
    except (SMTPTimeoutError, SMTPServerDisconnected) as error:
        silent = isinstance(error, SMTPTimeoutError)
        error_class = UNANSWERED if doubtful else "timeout" if silent else "disconnected"
        raise TransientFailure(error_class, str(error)) from error
    except (SMTPConnectError, OSError) as error:
        if isinstance(error.__cause__ or error, ssl.SSLCertVerificationError):
            raise PermanentFailure("tls", f"The mail server's certificate is not trusted: {error}") from error
        raise TransientFailure("unreachable", str(error)) from error
    except SMTPException as error:
        # What we insist on, the server doesn't offer: STARTTLS or a way to sign in.
        raise PermanentFailure("unsupported", str(error)) from error


def _refusal(error: SMTPResponseException, phase: Phase, *, doubtful: bool) -> DeliveryError:
    text = f"{error.code} {error.message}"
    match error:
        case SMTPAuthenticationError():
            phase = "auth"
        case SMTPHeloError():
            # We greet with the first command only.
            phase = "connect"
    if error.code < _REFUSALS:
        return TransientFailure(UNANSWERED if doubtful else "protocol", text)
    fault = fault_of(phase, error.code, error.message)
    if put_off(fault, error.code, error.message):
        return Deferral(fault.value, text, of_one=phase == "rcpt" or fault is Fault.MAILBOX_FULL)
    return PermanentFailure(fault.value, text)
