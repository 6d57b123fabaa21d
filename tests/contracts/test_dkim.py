"""Our DKIM signatures, judged by a library not written here (dkimpy)."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from app.delivery import mime
from app.delivery.dkim import Signer
from app.delivery.message import Message
from app.delivery.providers.smtp import Smtp
from app.errors import ConfigurationError
from app.settings import load
from tests.mailserver import mail_server

DATE = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
RECORD = b"v=DKIM1; k=rsa; p=" + base64.b64encode(
    KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)
SIGNER = Signer("gatehouse.example", "s1", PEM)


def resolve(name: bytes, timeout: int = 5) -> bytes:
    """The DNS, as far as a verifier needs it."""
    assert name == b"s1._domainkey.gatehouse.example."
    return RECORD


def verified(mail: bytes) -> bool:
    good: bool = dkim.verify(mail, dnsfunc=resolve)
    return good


def message(
    subject: str = "123456 ist Ihr Anmeldecode für Çelik & Söhne", text: str = "123456\n", reply_to: str | None = None
) -> Message:
    return Message(
        id="0123456789abcdef",
        channel="email",
        tenant="acme",
        to="bob@example.com",
        subject=subject,
        text=text,
        html="<p>123456</p>",
        date=DATE,
        reply_to=reply_to,
    )


def written(mail: Message) -> bytes:
    return mime.email(
        mail,
        to=mail.to,
        from_header=mime.sender("Größe " * 12, "codes@gatehouse.example"),
        domain="gatehouse.example",
    )


def signed(**changes: str) -> bytes:
    return SIGNER.sign(written(message(**changes)), DATE)


def test_a_signature_is_good() -> None:
    """With encoded and folded headers, and every header that a reader sees covered."""
    mail = signed(reply_to="help@acme.example")
    assert verified(mail)
    covered = mail.partition(b"h=")[2].partition(b";")[0].split(b":")
    assert {b"from", b"to", b"reply-to", b"subject", b"date", b"message-id", b"content-type"} <= set(covered)


@settings(deadline=None)  # the judge's arithmetic is in pure Python
@given(subject=st.text(max_size=80), text=st.text(max_size=300))
def test_any_mail_can_be_signed(subject: str, text: str) -> None:
    """Trailing blanks, tabs, empty lines: both sides canonicalize the same."""
    clean = text.encode("utf-8", "ignore").decode()
    assert verified(signed(subject=" ".join(subject.encode("utf-8", "ignore").decode().split()), text=clean))


@pytest.mark.parametrize("text", ["", "\n\n\n", "a \t b  \n\n", "line\n" * 50, " \n"])
def test_white_space_is_canonical(text: str) -> None:
    """The cases of RFC 6376, 3.4.4, as bodies of a hand-made mail."""
    body = text.replace("\n", "\r\n").encode()
    mail = b"From: codes@gatehouse.example\r\nSubject:  a\t b \r\n\r\n" + body
    assert verified(SIGNER.sign(mail, DATE))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Subject: ", b"Subject: Urgent: "),
        (b"123456\r\n", b"654321\r\n"),
        (b"To: bob@", b"To: eve@"),
        (b"Date: Sat", b"Date: Sun"),
        (b"MIME-Version", b"From: Bank <bank@bank.example>\r\nMIME-Version"),
        (b"MIME-Version", b"Subject: Another\r\nMIME-Version"),
        (b"MIME-Version", b"Reply-To: eve@evil.example\r\nMIME-Version"),
    ],
)
def test_what_is_changed_on_the_way_shows(old: bytes, new: bytes) -> None:
    """Text, headers, and second headers that a reader might show instead."""
    mail = signed()
    assert old in mail
    assert not verified(mail.replace(old, new))


def test_servers_may_fold_anew_and_add_their_lines() -> None:
    """What mail servers do on the way breaks nothing."""
    mail = signed(subject="a plain subject")
    passed_on = (
        b"Received: from a by b\r\n" + mail.replace(b"Subject: a plain", b"SUBJECT:  a\r\n\tplain") + b"\r\n\r\n"
    )
    assert verified(passed_on)


def test_every_copy_is_the_same() -> None:
    """A second copy after a crash has the same signature: its time is that of the request."""
    assert signed() == signed()
    assert b"t=1773480413;" in signed()


@pytest.mark.parametrize(
    "pem",
    [
        b"no key",
        b"",
        ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ],
)
def test_a_key_must_be_one(pem: bytes) -> None:
    """Told at the start, by the setting's name."""
    with pytest.raises(ConfigurationError, match="DKIM_PRIVATE_KEY_FILE"):
        Signer("gatehouse.example", "s1", pem)


async def test_the_smtp_provider_signs(tmp_path: Path) -> None:
    """As the settings say; a receiver finds the signature good after the mail went over the wire."""
    key_file = tmp_path / "dkim.pem"
    key_file.write_bytes(PEM)
    environ = {
        "ENVIRONMENT": "test",
        "DATA_DIR": str(tmp_path),
        "SMTP_ENABLED": "true",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_USE_TLS": "false",
        "SMTP_FROM_EMAIL": "codes@mail.gatehouse.example",
        "DKIM_DOMAIN": "Gatehouse.Example.",
        "DKIM_SELECTOR": "s1",
        "DKIM_PRIVATE_KEY_FILE": str(key_file),
    }
    async with mail_server() as server:
        smtp = Smtp.from_settings(load(environ | {"SMTP_PORT": str(server.port)}, dotenv=None))
        await smtp.send(message())
        await smtp.close()
        assert verified(server.mails[0].raw)
        key_file.unlink()
        with pytest.raises(ConfigurationError, match="DKIM_PRIVATE_KEY_FILE can't be read"):
            Smtp.from_settings(load(environ, dotenv=None))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"DKIM_SELECTOR": ""}, "DKIM_SELECTOR is missing"),
        ({"DKIM_DOMAIN": "other.example"}, "DKIM_DOMAIN must be gatehouse.example"),
        ({"DKIM_DOMAIN": "not a domain"}, "DKIM_DOMAIN must be a name in the DNS"),
        ({"DKIM_DOMAIN": "house.example"}, "DKIM_DOMAIN must be gatehouse.example"),
    ],
)
def test_settings_that_sign_for_nobody(changes: dict[str, str], fault: str, tmp_path: Path) -> None:
    """A signature that receivers don't count is a fault of the configuration, not a surprise in the spam folder."""
    environ = {
        "ENVIRONMENT": "test",
        "DATA_DIR": str(tmp_path),
        "SMTP_FROM_EMAIL": "codes@gatehouse.example",
        "DKIM_DOMAIN": "gatehouse.example",
        "DKIM_SELECTOR": "s1",
        "DKIM_PRIVATE_KEY_FILE": "key.pem",
    }
    with pytest.raises(ConfigurationError, match=fault):
        load(environ | changes, dotenv=None)
