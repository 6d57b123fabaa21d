"""What the SMTP provider promises, against a real server: connections, TLS, and what each answer means."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from app.delivery.message import DeliveryError, Message, PermanentFailure, TransientFailure
from app.delivery.providers.smtp import Smtp
from tests.certificates import serving
from tests.mailserver import SILENCE, MailServer, mail_server

MESSAGE = Message(
    id="0123456789abcdef",
    channel="email",
    tenant="acme",
    to="bob@example.com",
    subject="123456 is your Acme sign-in code",
    text="123456\n.\n..dots\n",
    html="<p>123456</p>",
    date=datetime(2026, 3, 14, 9, 26, 53, 123456, tzinfo=UTC),
    code="123456",
)


@asynccontextmanager
async def sending(server: MailServer, **options: Any) -> AsyncIterator[Smtp]:
    """A provider that sends to this server."""
    known: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": server.port,
        "from_email": "codes@gatehouse.example",
        "from_name": "Gatehouse",
        "starttls": False,
        "timeout": 5,
    }
    provider = Smtp(**(known | options))
    yield provider
    await provider.close()


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


async def test_a_mail_arrives_as_it_was_written(server: MailServer) -> None:
    """Envelope, headers and both parts reach the server unchanged, and its answer comes back."""
    async with sending(server, from_name="Größe, Söhne & Co") as smtp:
        receipt = await smtp.send(MESSAGE)

    mail = await server.next()
    assert (mail.sender, mail.recipients) == ("codes@gatehouse.example", ["bob@example.com"])
    assert mail.read["Subject"] == MESSAGE.subject
    assert str(mail.read["From"].addresses[0].display_name) == "Größe, Söhne & Co"
    assert mail.read["Message-ID"] == "<0123456789abcdef@gatehouse.example>"
    assert mail.read["Date"].datetime == MESSAGE.date.replace(microsecond=0)
    assert mail.read["Auto-Submitted"] == "auto-generated"
    assert [part.get_content_type() for part in mail.read.iter_parts()] == ["text/plain", "text/html"]
    assert mail.part("plain").replace("\r\n", "\n") == MESSAGE.text
    assert mail.part("html").strip() == MESSAGE.html
    assert receipt.provider_message_id == "250 2.0.0 Ok: queued as 4F2A9C"


@pytest.mark.parametrize(("name", "greeted"), [(None, "gatehouse.example"), ("out.acme.example", "out.acme.example")])
async def test_it_greets_by_a_whole_name(server: MailServer, name: str | None, greeted: str) -> None:
    """Never by the name of the machine, which servers refuse."""
    async with sending(server, ehlo_name=name) as smtp:
        await smtp.send(MESSAGE)
    assert server.hellos == [greeted]
    assert (await server.next()).read["X-Auto-Response-Suppress"] == "All"


async def test_one_connection_serves_one_mail_after_another(server: MailServer) -> None:
    """Opening a connection costs more than a mail, so it is kept."""
    async with sending(server) as smtp:
        for _ in range(5):
            await smtp.send(MESSAGE)

    assert (server.connections, len(server.mails)) == (1, 5)


async def test_many_at_once_share_eight_connections(server: MailServer) -> None:
    """Mail services allow few connections an account."""
    async with sending(server) as smtp:
        await asyncio.gather(*(smtp.send(MESSAGE) for _ in range(50)))

    assert (server.connections, len(server.mails)) == (8, 50)


async def test_a_connection_the_server_closed_is_replaced(server: MailServer) -> None:
    """A server that hung up while nothing happened costs no try."""
    async with sending(server) as smtp:
        await smtp.send(MESSAGE)
        server.hang_up()
        await smtp.send(MESSAGE)

    assert (server.connections, len(server.mails)) == (2, 2)


async def test_a_farewell_on_a_kept_connection_costs_no_try(server: MailServer) -> None:
    """421 says that the connection ends; the mail goes out on a new one."""
    async with sending(server) as smtp:
        await smtp.send(MESSAGE)
        server.answers["MAIL"].append("421 4.3.2 Shutting down")
        await smtp.send(MESSAGE)

    assert (server.connections, len(server.mails)) == (2, 2)


async def test_an_old_connection_is_not_trusted(server: MailServer) -> None:
    """After 30 idle seconds a firewall may have forgotten the connection, so a new one is opened."""
    now = 1000.0
    async with sending(server, clock=lambda: now) as smtp:
        await smtp.send(MESSAGE)
        now += 29
        await smtp.send(MESSAGE)
        assert server.connections == 1
        now += 30
        await smtp.send(MESSAGE)

    assert server.connections == 2


@pytest.mark.parametrize(
    ("command", "answer", "kind", "error_class"),
    [
        ("MAIL", "451 4.3.0 Later", TransientFailure, "later"),
        ("MAIL", "550 5.7.1 Sender not allowed", PermanentFailure, "refused"),
        ("MAIL", "530 5.7.0 Authentication required", PermanentFailure, "credentials"),
        ("RCPT", "450 4.2.1 Greylisted", TransientFailure, "later"),
        ("RCPT", "550 5.1.1 <bob@example.com>: unknown", PermanentFailure, "recipient"),
        ("DATA", "452 4.3.1 Disk full", TransientFailure, "later"),
        ("DATA", "554 5.7.1 Spam: 123456 is your code", PermanentFailure, "refused"),
        ("MAIL", "421 4.3.2 Shutting down", TransientFailure, "later"),
        ("RCPT", "421 4.7.0 Too many", TransientFailure, "later"),
        ("DATA", "421 4.7.0 Too many", TransientFailure, "later"),
    ],
)
async def test_each_refusal_has_its_meaning(
    server: MailServer, command: str, answer: str, kind: type[DeliveryError], error_class: str
) -> None:
    """4xx is worth another try, 5xx is not; after either the next mail goes out."""
    async with sending(server) as smtp:
        server.answers[command].append(answer)
        with pytest.raises(kind) as refusal:
            await smtp.send(MESSAGE)
        await smtp.send(MESSAGE)

    assert refusal.value.error_class == error_class
    assert len(server.mails) == 1


async def test_a_refused_mail_leaves_the_connection_usable(server: MailServer) -> None:
    """A wave of bad addresses doesn't become a wave of new connections."""
    async with sending(server) as smtp:
        for _ in range(3):
            server.answers["RCPT"].append("550 5.1.1 unknown")
            with pytest.raises(PermanentFailure):
                await smtp.send(MESSAGE)
        await smtp.send(MESSAGE)

    assert server.connections == 1


@pytest.mark.parametrize(("command", "error_class"), [("RCPT", "timeout"), ("DATA", "unanswered")])
async def test_silence_ends_at_the_timeout(server: MailServer, command: str, error_class: str) -> None:
    """Before the text was given a silent server has certainly not taken the mail; afterwards nobody knows."""
    async with sending(server, timeout=0.2) as smtp:
        server.answers[command].append(SILENCE)
        with pytest.raises(TransientFailure) as failure:
            await smtp.send(MESSAGE)
        assert failure.value.error_class == error_class
        await smtp.send(MESSAGE)

    assert server.connections == 2


async def test_waiting_for_a_connection_ends_at_the_timeout(server: MailServer) -> None:
    """With every connection stuck the rest is told so, and nothing of it has been sent."""
    async with sending(server, timeout=0.3) as smtp:
        server.answers["RCPT"].extend([SILENCE] * 8)
        outcomes = await asyncio.gather(*(smtp.send(MESSAGE) for _ in range(9)), return_exceptions=True)

    classes = sorted(o.error_class for o in outcomes if isinstance(o, TransientFailure))
    assert classes in (["busy"] + ["timeout"] * 8, ["timeout"] * 8)


async def test_no_server_at_all() -> None:
    """A closed port is worth another try: servers come back."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        smtp = Smtp(
            host="127.0.0.1",
            port=reserved.getsockname()[1],
            from_email="codes@gatehouse.example",
            from_name="Gatehouse",
            starttls=False,
        )
        with pytest.raises(TransientFailure, match="unreachable"):
            await smtp.send(MESSAGE)


async def test_starttls_with_a_trusted_certificate(certificate: Path) -> None:
    """The mail travels encrypted, and so does the password."""
    async with (
        mail_server(starttls=serving(certificate), login=True) as server,
        sending(server, starttls=True, tls=trusting(certificate), username="gate", password="open sesame") as smtp,
    ):
        await smtp.send(MESSAGE)
        assert (server.logins, server.tls_sessions, len(server.mails)) == (["gate"], 1, 1)


async def test_tls_from_the_first_byte(certificate: Path) -> None:
    """Port 465's way."""
    async with (
        mail_server(tls=serving(certificate)) as server,
        sending(server, implicit_tls=True, tls=trusting(certificate)) as smtp,
    ):
        await smtp.send(MESSAGE)
        assert len(server.mails) == 1


@pytest.mark.parametrize("implicit", [True, False])
async def test_an_untrusted_certificate_is_refused(certificate: Path, implicit: bool) -> None:
    """Nobody in between gets a code by showing just any certificate."""
    context = serving(certificate)
    async with (
        mail_server(tls=context if implicit else None, starttls=None if implicit else context) as server,
        sending(server, implicit_tls=implicit, starttls=not implicit) as smtp,
    ):
        with pytest.raises(PermanentFailure, match="tls"):
            await smtp.send(MESSAGE)
        assert server.mails == []


async def test_starttls_is_demanded_not_tried(server: MailServer) -> None:
    """A server, or somebody in between, that doesn't offer STARTTLS gets no mail in the clear."""
    async with sending(server, starttls=True) as smtp:
        with pytest.raises(PermanentFailure, match="unsupported"):
            await smtp.send(MESSAGE)
    assert server.mails == []


async def test_wrong_credentials_say_so() -> None:
    """535 has a class of its own: no retry helps, an operator must act."""
    async with (
        mail_server(login=True) as server,
        sending(server, username="gate", password="wrong") as smtp,
    ):
        with pytest.raises(PermanentFailure) as failure:
            await smtp.send(MESSAGE)
    assert failure.value.error_class == "credentials"


@pytest.mark.parametrize("offered", ["PLAIN", "LOGIN"])
async def test_each_way_to_sign_in(offered: str) -> None:
    """Servers differ in what they offer; whichever it is, the account gets in."""
    mail = MailServer()
    loop = asyncio.get_running_loop()

    def connect() -> SMTP:
        protocol = SMTP(
            mail,
            hostname="mail.test",
            loop=loop,
            authenticator=mail.check_login,
            auth_require_tls=False,
            auth_exclude_mechanism={"PLAIN", "LOGIN"} - {offered},
        )
        mail.protocols.append(protocol)
        return protocol

    listening = await loop.create_server(connect, "127.0.0.1", 0)
    mail.port = listening.sockets[0].getsockname()[1]
    async with sending(mail, username="gate", password="open sesame") as smtp:
        await smtp.send(MESSAGE)
    assert (mail.logins, len(mail.mails)) == (["gate"], 1)
    listening.close()
    mail.hang_up()


async def test_a_server_may_take_its_time_with_the_text(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for spam and viruses first; who hangs up meanwhile gets a second copy delivered."""
    answered = asyncio.Event()

    async def late() -> None:
        await server.asked("DATA")
        await asyncio.sleep(0.6)  # longer than a step may take, and what is tested
        answered.set()

    usual = server.handle_DATA

    async def handle(protocol: SMTP, session: Session, envelope: Envelope) -> str:
        answer = await usual(protocol, session, envelope)
        await answered.wait()
        return answer

    monkeypatch.setattr(server, "handle_DATA", handle)
    async with sending(server, timeout=0.4) as smtp, asyncio.TaskGroup() as group:
        group.create_task(late())
        group.create_task(smtp.send(MESSAGE))
    assert len(server.mails) == 1


async def test_tenants_share_connections_but_not_names(server: MailServer) -> None:
    """From has the tenant's name at our address, Reply-To the tenant's; the envelope stays ours."""
    branded = replace(MESSAGE, sender_name="Çelik, Söhne", reply_to="help@acme.example")
    async with sending(server) as smtp:
        for message in (branded, MESSAGE, branded):
            await smtp.send(message)

    names = [mail.read["From"].addresses[0].display_name for mail in server.mails]
    assert names == ["Çelik, Söhne", "Gatehouse", "Çelik, Söhne"]
    assert [mail.read["Reply-To"] for mail in server.mails] == ["help@acme.example", None, "help@acme.example"]
    assert {mail.sender for mail in server.mails} == {"codes@gatehouse.example"}
    assert {str(mail.read["From"].addresses[0].addr_spec) for mail in server.mails} == {"codes@gatehouse.example"}
    assert server.connections == 1
