"""Mail through a mail server as Debian ships it (exim4), of which nothing was written for us.

`make test` installs it in CI.
"""

import asyncio
import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from app.delivery import bounces
from app.delivery.faults import Fault
from app.delivery.message import Deferral, DeliveryError, PermanentFailure
from app.delivery.providers.smtp import Smtp
from tests.contracts.test_smtp import MESSAGE, trusting
from tests.processes import free_port

MAIL = replace(MESSAGE, id="0123456789abcdef0123456789abcdef")
# One domain takes mail for bob; `gone` shows only after the mail was taken, `later` is put off. Who calls must encrypt
# and sign in. Bounces to our sender land in the same place.
CONFIG = """\
primary_hostname = mx.example.com
spool_directory = {home}/spool
log_file_path = {home}/spool/%slog
pid_file_path = {home}/spool/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
tls_advertise_hosts = *
tls_certificate = {home}/server.pem
tls_privatekey = {home}/server.pem
auth_advertise_hosts = *
deliver_drop_privilege = true
never_users =
acl_smtp_rcpt = recipient
acl_smtp_data = accept
begin acl
recipient:
  deny !encrypted = *
       message = Encrypt first
  deny !authenticated = *
       message = Sign in first
  defer local_parts = later
        message = Come back later
  require verify = recipient
  accept domains = example.com
begin routers
gone:
  driver = redirect
  local_parts = gone
  no_verify
  allow_fail
  data = :fail: this mailbox was closed
here:
  driver = accept
  local_parts = bob : gone : codes
  transport = maildir
begin transports
maildir:
  driver = appendfile
  directory = {home}/spool/arrived
  maildir_format
begin authenticators
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{gate}}{{open sesame}}fail}}
  server_set_id = $auth1
"""


class Mta:
    """A running server and what has arrived."""

    def __init__(self, home: Path, port: int) -> None:
        self.port = port
        self._arrived = home / "spool" / "arrived" / "new"

    async def next(self) -> bytes:
        """The one mail that arrived, waiting for it: the server delivers after it has answered."""
        async with asyncio.timeout(30):
            while True:
                with suppress(FileNotFoundError):
                    for path in self._arrived.iterdir():
                        raw = path.read_bytes()
                        path.unlink()
                        return raw
                await asyncio.sleep(0.05)


@pytest.fixture
async def mta(certificate: Path) -> AsyncIterator[Mta]:
    """The server, with a home of its own: it changes to another user, who can't read pytest's."""
    command = shutil.which("exim4", path=f"{os.environ['PATH']}:/usr/sbin")
    if command is None:
        assert not os.environ.get("CI"), "A Debian mail server must be there in CI: apt-get install exim4-daemon-light"
        pytest.skip("No Debian mail server is installed: apt-get install exim4-daemon-light")
    with _home() as home:
        port = free_port()
        shutil.copy(certificate, home / "server.pem")
        (home / "server.pem").chmod(0o644)
        config = home / "exim.conf"
        config.write_text(CONFIG.format(home=home, port=port))
        config.chmod(0o644)
        with (home / "stderr").open("wb") as stderr:
            # A session of its own: it hands each connection to a child, which would outlive it.
            server = await asyncio.create_subprocess_exec(
                command, "-C", str(config), "-bdf", stderr=stderr, start_new_session=True
            )
        try:
            await _listening(port, server, home)
            yield Mta(home, port)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            await server.wait()


@asynccontextmanager
async def sending(mta: Mta, pem: Path, **options: Any) -> AsyncIterator[Smtp]:
    """Our provider, as an operator would set it up for this server."""
    provider = Smtp(
        host="127.0.0.1",
        port=mta.port,
        from_email="codes@example.com",
        from_name="Größe & Co",
        **{"username": "gate", "password": "open sesame", "tls": trusting(pem), **options},
    )
    yield provider
    await provider.close()


async def test_a_code_arrives_as_it_was_written(mta: Mta, certificate: Path) -> None:
    """Encrypted, signed in by CRAM-MD5, twice on one connection; headers and both parts come out unchanged."""
    async with sending(mta, certificate) as smtp:
        receipt = await smtp.send(replace(MAIL, to="bob@example.com"))
        raw = await mta.next()
        await smtp.send(replace(MAIL, to="bob@example.com"))
        await mta.next()
    mail = message_from_bytes(raw, policy=default)
    assert isinstance(mail, EmailMessage)
    assert (mail["Subject"], mail["Message-ID"]) == (MAIL.subject, f"<{MAIL.id}@example.com>")
    assert mail["From"].addresses[0].display_name == "Größe & Co"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    body = mail.get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n") == MAIL.text
    assert "with esmtpsa" in mail["Received"]
    assert receipt.provider_message_id.startswith("250 OK id=")


@pytest.mark.parametrize(
    ("to", "kind", "error_class"),
    [
        ("nobody@example.com", PermanentFailure, "recipient"),
        ("bob@elsewhere.example", PermanentFailure, "refused"),
        ("later@example.com", Deferral, "later"),
    ],
)
async def test_what_it_refuses(
    mta: Mta, certificate: Path, to: str, kind: type[DeliveryError], error_class: str
) -> None:
    """For good, or for now; the connection serves the next mail."""
    async with sending(mta, certificate) as smtp:
        with pytest.raises(kind) as refusal:
            await smtp.send(replace(MAIL, to=to))
        await smtp.send(replace(MAIL, to="bob@example.com"))
        await mta.next()
    assert (refusal.value.error_class, to in refusal.value.text) == (error_class, False)


async def test_a_wrong_password(mta: Mta, certificate: Path) -> None:
    """It is told as such."""
    async with sending(mta, certificate, password="wrong") as smtp:
        with pytest.raises(PermanentFailure, match="credentials"):
            await smtp.send(replace(MAIL, to="bob@example.com"))


async def test_its_certificate_must_be_trusted(mta: Mta, certificate: Path) -> None:
    """Nothing is said to a server that can't prove its name."""
    async with sending(mta, certificate, tls=ssl.create_default_context()) as smtp:
        with pytest.raises(PermanentFailure, match="tls"):
            await smtp.send(replace(MAIL, to="bob@example.com"))


async def test_its_bounce_is_read(mta: Mta, certificate: Path) -> None:
    """Taken first and refused later: the notification it writes names our mail and says that the mailbox is no good."""
    async with sending(mta, certificate) as smtp:
        await smtp.send(replace(MAIL, to="gone@example.com"))
    report = bounces.read(await mta.next())
    assert report is not None
    assert (report.message_id, report.state) == (MAIL.id, "failed")
    assert report.fault is Fault.RECIPIENT


@contextmanager
def _home() -> Iterator[Path]:
    """A directory that everybody may write to, spool included."""
    with tempfile.TemporaryDirectory(prefix="mta-") as name:
        home = Path(name)
        (home / "spool").mkdir()
        home.chmod(0o755)
        (home / "spool").chmod(0o777)
        yield home


async def _listening(port: int, server: asyncio.subprocess.Process, home: Path) -> None:
    """Until it takes connections; fails with its own words when it ends before."""
    async with asyncio.timeout(30):
        while server.returncode is None:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)
    pytest.fail((home / "stderr").read_text())
