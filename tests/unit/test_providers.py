"""Which providers the settings switch on, and that the console is for developers only."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.delivery.message import Message
from app.delivery.providers import providers_for
from app.delivery.providers.console import Console
from app.delivery.providers.twilio import Twilio
from app.errors import ConfigurationError
from app.settings import Settings, load

MESSAGE = Message(
    id="1",
    channel="sms",
    tenant="acme",
    to="+447700900123",
    text="012345 is your Acme sign-in code.",
    date=datetime(2026, 3, 14, tzinfo=UTC),
    code="012345",
)


def settings(tmp_path: Path, **given: str) -> Settings:
    return load({"DATA_DIR": str(tmp_path), **given}, dotenv=None)


def names(of: Settings) -> dict[str, list[str]]:
    return {channel: [p.name for p in providers] for channel, providers in providers_for(of).items()}


def test_development_has_the_console_on_every_channel(tmp_path: Path) -> None:
    """A fresh checkout can send, to the log."""
    assert names(settings(tmp_path)) == {"email": ["console"], "sms": ["console"], "whatsapp": ["console"]}
    for channel, providers in providers_for(settings(tmp_path, PUSH_ENABLED="true")).items():
        assert [provider.channel for provider in providers] == [channel]


def test_smtp_takes_over_email(tmp_path: Path) -> None:
    """As soon as it is switched on."""
    smtp = {"SMTP_ENABLED": "true", "SMTP_HOST": "mail.example", "SMTP_FROM_EMAIL": "codes@acme.example"}
    assert names(settings(tmp_path, **smtp))["email"] == ["smtp"]


def test_a_provider_nobody_wrote_is_named(tmp_path: Path) -> None:
    """The start fails with the setting that is wrong."""
    with pytest.raises(ConfigurationError, match="SMS_PROVIDER names pigeon"):
        providers_for(settings(tmp_path, SMS_PROVIDER="pigeon"))


PIGEON = """
from app.delivery.message import Receipt

class Pigeon:
    name = "pigeon"

    def __init__(self, settings, channel):
        self.channel = "sms"

    async def send(self, message):
        return Receipt("flew")

    async def close(self):
        pass
"""


@pytest.fixture
def another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed beside ours, with a provider of its own and one that takes the name of ours."""
    site = tmp_path / "site"
    info = site / "pigeon_post-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "pigeon_post.py").write_text(PIGEON)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-post\nVersion: 1.0\n")
    entries = "pigeon = pigeon_post:Pigeon\ntwilio = pigeon_post:Pigeon\n"
    (info / "entry_points.txt").write_text(f"[gatehouse.providers]\n{entries}")
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("another_package")
async def test_another_package_can_add_a_provider(tmp_path: Path) -> None:
    """By an entry point: named in a setting, it is asked like ours, before or after them."""
    named = settings(tmp_path, SMS_PROVIDER="pigeon,console")
    assert names(named)["sms"] == ["pigeon", "console"]
    pigeon, _ = providers_for(named)["sms"]
    assert (await pigeon.send(MESSAGE)).provider_message_id == "flew"


@pytest.mark.usefixtures("another_package")
def test_it_takes_nobodys_place(tmp_path: Path) -> None:
    """Ours keep their names, and a channel it doesn't serve is a fault that is told."""
    keys = {"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "t", "TWILIO_FROM": "+15005550006"}
    (ours,) = providers_for(settings(tmp_path, SMS_PROVIDER="twilio", **keys))["sms"]
    assert isinstance(ours, Twilio)
    with pytest.raises(ConfigurationError, match="pigeon for sms"):
        providers_for(settings(tmp_path, WHATSAPP_PROVIDER="pigeon"))


async def test_the_console_shows_the_code_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the contact masked: a log is read over shoulders."""
    console = Console(settings(tmp_path), "sms")
    await console.send(MESSAGE)
    await console.close()
    line = capsys.readouterr().err
    assert line.count("012345") == 1
    assert "+44*****0123" in line
    assert MESSAGE.to not in line


def test_production_has_no_console(tmp_path: Path) -> None:
    """Whatever the settings said, and whoever asks."""
    production = replace(settings(tmp_path), environment="production")
    with pytest.raises(ConfigurationError, match="development only"):
        Console(production, "sms")
