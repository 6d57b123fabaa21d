"""What a person gets to read, and that nothing in it can become a header, a recipient or markup."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery import mime
from app.delivery.client import browser_and_system
from app.delivery.message import Message, PermanentFailure, harmless
from app.delivery.outbox import Claimed
from app.delivery.render import Renderer
from app.keys import KeyRing

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
RENDERER = Renderer("https://login.acme.example:8443/", ring=KeyRing([b"a secret of at least 32 bytes....."]))
CODE = Claimed(
    state="sending",
    tenant_id=UUID(int=1),
    id=UUID(int=2),
    kind="code",
    channel="email",
    challenge_id=UUID(int=3),
    generation=1,
    destination="bob@example.com",
    payload=None,
    attempts=1,
    last_error_class=None,
    created_at=NOW,
    expires_at=NOW + timedelta(minutes=10),
    salt=b"salt",
    key_id="k",
    code_length=6,
    subject_kind="tenant",
    subject_id=UUID(int=1),
    purpose="sign_in",
    challenge_locale="en-GB",
    ip="203.0.113.7",
    user_agent=FIREFOX,
    asked_at=NOW,
    tenant_slug="acme",
    tenant_name="Acme",
    tenant_locale="de",
    tenant_timezone="Europe/Berlin",
)
NOTICE = replace(
    CODE,
    kind="notice",
    challenge_id=None,
    generation=None,
    challenge_locale=None,
    tenant_locale="en",
    payload={
        "template": "contact_changed",
        "contact": "email",
        "before": "o***@old.example",
        "after": "n***@new.example",
    },
)


def render(claimed: Claimed = CODE, code: str | None = "012345", now: datetime = NOW) -> Message:
    return RENDERER.render(claimed, code, now)


def wire(message: Message, sender: str = "Gatehouse") -> bytes:
    return mime.email(
        message,
        to=mime.recipient(message.to),
        from_header=mime.sender(sender, "codes@gatehouse.example"),
        domain="gatehouse.example",
    )


def read(raw: bytes) -> EmailMessage:
    """As a mail reader sees it; the standard library's parser is the judge."""
    message = message_from_bytes(raw, policy=default)
    assert not message.defects
    return message


def body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    text: str = part.get_content()
    return text.replace("\r\n", "\n")


def visible(html: str) -> str:
    """The text of the page's body."""
    return re.sub(r"<[^>]+>", " ", html.partition("<body")[2])


def test_the_mail_with_a_code() -> None:
    """Subject, both parts, the code once in each, until when, from where, and what to do if it wasn't you."""
    mail = read(wire(render()))
    text, html = body(mail, "plain"), body(mail, "html")

    assert mail["Subject"] == "012345 is your Acme sign-in code"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert text.count("012345") == visible(html).count("012345") == 1
    for part in (text, visible(html)):
        words = " ".join(part.split())
        assert "valid for 10 minutes, until 10:36 UTC+01:00" in words
        assert "14 March 2026 at 10:26 UTC+01:00 from Firefox on Linux, network 203.0.113.0/24" in words
        assert "without this code nobody gets in" in words
    assert re.search(r'<div class="code" dir="ltr" style="[^"]+">012345</div>', html)


def test_it_was_not_me() -> None:
    """Both parts lead to the page that ends this sign-in; neither a notice nor another channel has such a link."""
    link = re.compile(r"https://login\.acme\.example:8443/not-me/[A-Za-z0-9_-]{64}(?![A-Za-z0-9_-])")
    mail = render()
    assert mail.html
    assert link.findall(mail.text) == link.findall(mail.html) != []
    assert len(link.findall(mail.html)) == 1
    for other in (
        render(NOTICE, None),
        render(replace(CODE, channel="sms")),
        render(replace(CODE, channel="whatsapp")),
    ):
        assert "not-me" not in other.text + (other.html or "")
    assert "not-me" not in Renderer("https://login.acme.example").render(CODE, "012345", NOW).text


def test_the_style_is_inlined_and_dark_colours_stay() -> None:
    """Mail readers that drop style elements still show the mail; those that don't can go dark."""
    html = render().html
    assert html
    assert re.search(r'<h1 class="heading" style="[^"]*font-size', html)
    assert html.count("<style>") == 1
    assert "prefers-color-scheme: dark" in html
    assert html.startswith("<!DOCTYPE html>")


def test_the_mail_is_short_ascii_lines() -> None:
    """Any server takes it: 7 bits, at most 78 characters a line (RFC 5322, 2.1.1), CRLF everywhere."""
    raw = wire(render(replace(CODE, tenant_name="Çelik & Söhne 株式会社 " * 8)), sender="Größe " * 30)
    assert raw.isascii()
    assert b"\n" not in raw.replace(b"\r\n", b"")
    body_lines = raw.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert max(map(len, body_lines)) <= 78
    assert max(map(len, raw.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("name", ["Çelik & Söhne", "株式会社ゲート", "=?utf-8?q?Bank?=", 'A "quoted" <name>', "a" * 90])
def test_names_survive(name: str) -> None:
    """Whatever a company is called is what people read, in every place."""
    raw = wire(render(replace(CODE, tenant_name=name)), sender=name)
    mail = read(raw)
    assert mail["Subject"] == f"012345 is your {name} sign-in code"
    # The newer parser of Python 3.11 keeps the blank between two encoded words; RFC 2047 (6.2) says to drop it.
    shown, _ = parseaddr(str(message_from_bytes(raw)["From"]))
    assert str(make_header(decode_header(shown))) == name
    assert mail["From"].addresses[0].addr_spec == "codes@gatehouse.example"
    assert name in body(mail, "plain")


@pytest.mark.parametrize("name", ["Acme\r\nBcc: eve@evil.example", "Acme\nX: y", "Acme\r\n\r\nbody", "A\x00\u2028B"])
def test_a_name_adds_no_header(name: str) -> None:
    """CR and LF in a tenant's or a sender's name become blanks."""
    mail = read(wire(render(replace(CODE, tenant_name=name)), sender=name))
    known = "From To Subject Date Message-ID Auto-Submitted X-Auto-Response-Suppress MIME-Version Content-Type"
    assert sorted(mail.keys()) == sorted(known.split())
    assert len(mail["To"].addresses) == 1


def test_a_line_break_that_gets_that_far_is_encoded() -> None:
    """The last line of defence, should a caller ever forget the first."""
    mail = read(wire(replace(render(), subject="a\r\nBcc: eve@evil.example")))
    assert "Bcc" not in mail
    assert len(mail.keys()) == 9


@given(name=st.text(max_size=60))
def test_any_name_gives_one_well_formed_mail(name: str) -> None:
    """Unpaired surrogates apart, which no store can hold: any text whatever."""
    name = name.encode("utf-8", "ignore").decode()
    mail = read(wire(render(replace(CODE, tenant_name=name)), sender=name))
    assert len(mail.keys()) == 9
    assert [a.addr_spec for a in mail["To"].addresses] == ["bob@example.com"]
    assert len(list(mail.iter_parts())) == 2


@pytest.mark.parametrize(
    "address",
    [
        "bob@example.com, eve@evil.example",
        "bob@example.com,eve@evil.example",
        "bob@example.com eve@evil.example",
        "bob@example.com\r\nRCPT TO:<eve@evil.example>",
        "bob@example.com> NOTIFY=NEVER",
        "Bob <bob@example.com>",
        '"a, b"@example.com',
        "bob@[127.0.0.1]",
        "bob",
        "@example.com",
        "bob@example.com\n",
        "jürgen@example.com",
    ],
)
def test_one_address_is_one_recipient(address: str) -> None:
    """Nothing that isn't exactly one plain address gets near an envelope."""
    with pytest.raises(PermanentFailure, match="address"):
        mime.recipient(address)


def test_an_international_domain_travels_as_ascii() -> None:
    """RFC 5890; the server needs no extension for it."""
    assert mime.recipient("bob@bücher.example") == "bob@xn--bcher-kva.example"


def test_markup_in_a_name_is_text() -> None:
    """The HTML part escapes every word it is given."""
    html = render(replace(CODE, tenant_name="<img src=x onerror=alert(1)>&amp;")).html
    assert html
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;" in html


def test_a_name_is_no_template() -> None:
    """Jinja's own syntax in a name is shown, not run."""
    assert "{{ 7 * 7 }}" in render(replace(CODE, tenant_name="{{ 7 * 7 }}")).text


@pytest.mark.parametrize(("asked", "locale"), [("en-GB", "en-GB"), ("xx", "en"), (None, "en")])
def test_a_message_names_its_language(asked: str | None, locale: str) -> None:
    """Of its words, not of the wish: a provider picks its translation by it."""
    assert render(replace(CODE, challenge_locale=asked, tenant_locale="xx")).locale == locale


def test_every_copy_has_the_same_id() -> None:
    """A crash may send a second copy; readers drop it by its Message-ID. A resend is another message."""
    later = replace(CODE, id=UUID(int=9), attempts=3)
    assert render().id == render(later, now=NOW + timedelta(minutes=2)).id
    assert render().id != render(replace(CODE, generation=2)).id
    assert render().id != render(replace(CODE, challenge_id=UUID(int=4))).id
    assert CODE.challenge_id
    assert CODE.challenge_id.hex not in wire(render()).decode()


def test_what_is_left_of_a_code_that_was_late() -> None:
    """After retries the message promises no more minutes than there are, to people and to providers."""
    assert render(now=NOW + timedelta(minutes=6)).valid_seconds == 240
    assert render(now=NOW + timedelta(minutes=9, seconds=59.5)).valid_seconds == 1, "none would be no limit"
    assert "valid for 4 minutes" in render(now=NOW + timedelta(minutes=6)).text
    assert "valid for 1 minute," in render(now=NOW + timedelta(minutes=9, seconds=50)).text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"user_agent": None, "ip": None}, "Asked for on 14 March 2026 at 10:26 UTC+01:00."),
        ({"user_agent": "curl/8", "ip": "2001:db8:1:2::3"}, "UTC+01:00, network 2001:db8:1::/48."),
        ({"user_agent": "Something (iPhone)"}, "UTC+01:00 from iPhone, network"),
        ({"tenant_timezone": "Nowhere/Land"}, "at 09:26 UTC from"),
        ({"tenant_timezone": "Asia/Kolkata"}, "at 14:56 UTC+05:30 from"),
        ({"challenge_locale": "en"}, "March 14, 2026"),
        ({"challenge_locale": "de"}, "14. März 2026 um 10:26 UTC+01:00 mit Firefox auf Linux, Netz 203.0.113.0/24"),
    ],
)
def test_when_and_from_where(changes: dict[str, Any], expected: str) -> None:
    """In the tenant's time zone and the asker's language, with what is known and no more."""
    assert expected in render(replace(CODE, **changes)).text.replace("\u202f", " ")


@pytest.mark.parametrize(
    ("asked", "zone", "begins", "ends"),
    [
        # The clocks go forward, and back: the code is asked for before that, and good until after it.
        (datetime(2026, 3, 29, 0, 55, tzinfo=UTC), "Europe/Berlin", "01:55 UTC+01:00", "03:05 UTC+02:00"),
        (datetime(2026, 10, 25, 0, 55, tzinfo=UTC), "Europe/Berlin", "02:55 UTC+02:00", "02:05 UTC+01:00"),
        (datetime(2026, 3, 8, 6, 55, tzinfo=UTC), "America/New_York", "01:55 UTC-05:00", "03:05 UTC-04:00"),
        (datetime(2026, 10, 3, 15, 25, tzinfo=UTC), "Australia/Lord_Howe", "01:55 UTC+10:30", "02:35 UTC+11:00"),
        (datetime(2026, 3, 29, 0, 55, tzinfo=UTC), "Europe/London", "00:55 UTC", "02:05 UTC+01:00"),
        (datetime(2026, 7, 1, 12, 0, tzinfo=UTC), "Asia/Kathmandu", "17:45 UTC+05:45", "17:55 UTC+05:45"),
    ],
)
@pytest.mark.parametrize("language", ["ar", "de", "en-GB", "es", "fr", "hi", "pt"])
def test_each_moment_has_its_own_offset(asked: datetime, zone: str, begins: str, ends: str, language: str) -> None:
    """Two moments around a change of the clocks have two, in every language."""
    changed = replace(
        CODE,
        asked_at=asked,
        created_at=asked,
        expires_at=asked + timedelta(minutes=10),
        tenant_timezone=zone,
        challenge_locale=language,
    )
    text = render(changed, now=asked).text
    for moment in (begins, ends):
        assert f" {moment.partition(' ')[2]}" in text
    if language == "en-GB":
        assert begins in text
        assert ends in text


def test_the_notice_of_a_changed_contact() -> None:
    """Old and new address are told, masked, in every shape a change has."""
    assert "no longer go to o***@old.example, but to n***@new.example" in render(NOTICE, None).text
    assert render(NOTICE, None).subject == "The email address of Acme was changed"
    phone = {"template": "contact_changed", "contact": "phone_number", "before": None, "after": "+44*****0123"}
    added = render(replace(NOTICE, payload=phone, channel="sms"), None)
    assert added.text.startswith("The phone number of Acme was changed.")
    assert "can now go to +44*****0123" in render(replace(NOTICE, payload=phone), None).text
    gone = {**phone, "before": "+44*****0123", "after": None}
    assert "no longer go to +44*****0123." in render(replace(NOTICE, payload=gone), None).text


def test_a_notice_needs_words_of_ours() -> None:
    """A payload can't name just any file."""
    for template in ("../../etc/passwd", "code", None):
        with pytest.raises(ValueError, match="template"):
            render(replace(NOTICE, payload={"template": template}), None)


def test_a_test_message_carries_no_code() -> None:
    """It proves the way, nothing else."""
    message = render(replace(NOTICE, kind="test", payload=None), None)
    assert message.subject == "Test message for Acme"
    assert not re.search(r"\d{6}", visible(message.html or ""))


def test_without_a_contact_nothing_is_rendered() -> None:
    """The admin sees why."""
    with pytest.raises(PermanentFailure, match="contact-missing"):
        render(replace(CODE, destination=None))


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (FIREFOX, ("Firefox", "Linux")),
        ("(Windows NT 10.0; Win64; x64) Chrome/120.0 Safari/537.36 Edg/120.0", ("Edge", "Windows")),
        ("(iPhone; CPU iPhone OS 17_0 like Mac OS X) CriOS/119.0 Safari/604.1", ("Chrome", "iPhone")),
        ("(Macintosh; Intel Mac OS X 14_0) Version/17.0 Safari/605.1.15", ("Safari", "Mac")),
        ("(Linux; Android 14) SamsungBrowser/23.0 Chrome/115 Safari", ("Samsung Internet", "Android")),
        ("<script>evil</script>", (None, None)),
        (None, (None, None)),
    ],
)
def test_browsers_are_named_from_a_list(user_agent: str | None, expected: tuple[str | None, str | None]) -> None:
    """A header is a stranger's text; only names we know are ever repeated."""
    assert browser_and_system(user_agent) == expected


def test_a_servers_words_are_made_harmless() -> None:
    """Neither the address nor the code that a server repeats is stored, and no line is forged."""
    text = harmless(
        "550 5.1.1 <Bob@Example.com>: unknown\r\nsubject 012345, +447700900123 or eve@other.example " + "x " * 300,
        "bob@example.com",
        "012345",
    )
    assert text.startswith("550 5.1.1 <[hidden]>: unknown subject [hidden], ")
    assert len(text) <= 200
    for private in ("Bob@", "012345", "7700900", "eve@other"):
        assert private not in text


def test_nothing_private_in_a_repr() -> None:
    """Whatever logs a message or a claimed row by accident shows neither code nor address."""
    shown = repr(render()) + repr(CODE)
    assert "012345" not in shown
    assert "bob@" not in shown
    assert "203.0.113.7" not in shown
