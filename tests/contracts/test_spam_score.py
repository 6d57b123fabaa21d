"""What SpamAssassin makes of our emails. It is a Debian package, which `make test` installs where it may."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from app.delivery.branding import PLAIN, Branding, Logo
from app.delivery.message import Message
from tests.unit.test_messages import NOTICE, render, wire
from tests.unit.test_messages_branding import preview

BRANDED = replace(
    PLAIN,
    sender_name="Acme Logistics",
    reply_to="help@acme.example",
    colour="#0057b8",
    logo=Logo("v1", "image/png", 240, 48),
    email_intro="Welcome to {{ tenant }}.",
)
# As the first server on the receiver's side writes it. The address must be a public one: those for documentation count
# as forged.
RECEIVED = (
    b"Received: from mail.gatehouse.example (mail.gatehouse.example [93.184.215.14])\r\n"
    b"\tby mx.example.com (Postfix) with ESMTPS id 4F2A9C;\r\n\tSat, 14 Mar 2026 09:26:54 +0000\r\n"
)


@pytest.fixture(scope="module")
def spamassassin(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command; its own rules only, no network, nothing of this user's."""
    command = shutil.which("spamassassin")
    if command is None:
        assert not os.environ.get("CI"), "SpamAssassin must be there in CI: apt-get install spamassassin"
        pytest.skip("SpamAssassin is not installed: apt-get install spamassassin")
    home = tmp_path_factory.mktemp("spamassassin")
    return [command, "--local", "--test-mode", "--prefspath", str(home / "prefs"), f"--siteconfigpath={_rules()}"]


def _rules() -> Path:
    return Path("/etc/spamassassin") if Path("/etc/spamassassin").is_dir() else Path("/etc/mail/spamassassin")


def score(command: list[str], raw: bytes) -> tuple[float, str]:
    """Points, and which rules gave them."""
    done = subprocess.run(command, input=RECEIVED + raw, capture_output=True, check=True, timeout=60)
    report = done.stdout.decode("utf-8", "replace")
    found = re.search(r"Content analysis details:\s+\(([-\d.]+) points", report)
    assert found, report[-2000:]
    return float(found[1]), report[found.start() :]


def written(message: Message) -> bytes:
    return wire(replace(message, to="bob@example.com"), sender=message.sender_name or "Gatehouse")


@pytest.mark.parametrize(
    ("branding", "language"),
    [
        pytest.param(PLAIN, "en", id="plain"),
        pytest.param(BRANDED, "en", id="branded"),
        pytest.param(replace(PLAIN, code_in_subject=False), "de", id="without the code in the subject"),
        pytest.param(PLAIN, "ar", id="Arabic"),
    ],
)
def test_a_code_scores_below_one(spamassassin: list[str], branding: Branding, language: str) -> None:
    """Five points are spam to most servers; a code must be nowhere near."""
    points, rules = score(spamassassin, written(preview(branding, locale=language)))
    assert points < 1, rules


def test_a_notice_scores_below_one(spamassassin: list[str]) -> None:
    """Whoever lost control of an address must find out."""
    points, rules = score(spamassassin, written(render(NOTICE, None)))
    assert points < 1, rules


def test_the_judge_is_awake(spamassassin: list[str]) -> None:
    """GTUBE is spam to every SpamAssassin; if it isn't, the scores above say nothing."""
    gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
    points, _ = score(spamassassin, written(replace(preview(PLAIN), text=gtube, html=None)))
    assert points > 100
