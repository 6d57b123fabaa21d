"""A tenant's codes in plain words, and what an admin is told to do about them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.audit.advice import Advice, Situation, advise
from app.audit.folding import fold
from app.audit.notices import gather
from app.audit.story import Happening, tell

NOW = datetime(2026, 3, 14, 10, 2, 40, tzinfo=UTC)
CONTACTS: dict[str, str | None] = {"email": "o***@acme.example", "phone_number": "+44*****0018"}


def happened(what: str, *, ago: float = 0, **fields: Any) -> Happening:
    """Something that happened some seconds ago."""
    return Happening(at=NOW - timedelta(seconds=ago), what=what, **fields)


@pytest.mark.parametrize(
    ("happening", "look", "text", "notes"),
    [
        (
            happened("code.requested", channel="email", data={"this_hour": 1, "of": 3, "known_device": True}),
            "asked",
            "Code asked for",
            ("goes to o***@acme.example by email", "code 1 of 3 this hour", "a known device"),
        ),
        (
            happened("code.resent", channel="sms", data={"this_hour": 2}),
            "asked",
            "New code asked for; the one before is void",
            ("goes to +44*****0018 by SMS", "code 2 of this hour"),
        ),
        (
            happened("code.withheld", data={"reason": "contact-missing"}),
            "refused",
            "Code asked for, but not sent: there is no contact to send it to",
            (),
        ),
        (happened("code.withheld"), "refused", "Code asked for, but not sent: there was nobody to send it to", ()),
        (happened("code.wrong", data={"attempts_left": 1}), "refused", "Wrong code, 1 try left", ()),
        (
            happened("code.wrong", data={"attempts_left": 0}),
            "refused",
            "Wrong code, and it was the last try: a new code is needed",
            (),
        ),
        (happened("session.started", data={"methods": ["otp:email"]}), "verified", "Signed in", ()),
        (
            happened("session.started", data={"methods": ["link"], "device": "Ana's laptop"}),
            "verified",
            "Signed in by link",
            ("Ana's laptop",),
        ),
        (happened("session.ended", data={"reason": "signed-out"}), "ended", "Signed out", ()),
        (happened("session.ended", data={"reason": "unheard-of"}), "ended", "Session ended", ()),
        (
            happened("session.ended", actor="ops@co.example", data={"reason": "ended-by-admin"}),
            "ended",
            "Session ended by an admin",
            ("by ops@co.example",),
        ),
        (
            happened("tenant.suspended", actor_kind="operator", data={"reason": "Unpaid"}),
            "refused",
            "Suspended: nobody can sign in",
            ("Unpaid", "by somebody at the command line"),
        ),
        (
            happened("message.tested", channel="push", actor="ops@co.example"),
            "asked",
            "Test message asked for",
            ("goes as a push notification", "by ops@co.example"),
        ),
        (happened("policy.rolled_out"), "changed", "Policy rolled out", ()),
        (
            happened(
                "delivery.sent",
                kind="code",
                channel="email",
                provider="smtp",
                answer="250 queued as 4F1C",
                number=412,
            ),
            "sent",
            "Accepted by the mail server",
            ("smtp", "250 queued as 4F1C", "after 0.4 s"),
        ),
        (
            happened("delivery.sent", kind="test", channel="sms", provider="twilio", number=1400),
            "sent",
            "Test message: accepted by the provider",
            ("twilio", "after 1.4 s"),
        ),
        (happened("delivery.delivered", kind="notice"), "delivered", "Notice of the change delivered", ()),
        (
            happened("delivery.failed", kind="code", channel="email", error_class="recipient"),
            "failed",
            "Not delivered: there is no such address, or it takes no mail",
            (),
        ),
        (
            happened("delivery.failed", kind="code", channel="sms", error_class="recipient"),
            "failed",
            "Not delivered: there is no such number, or it takes no messages",
            (),
        ),
        (
            happened("delivery.failed", kind="code", channel="email", error_class="refused"),
            "failed",
            "Not delivered: the mail server refuses us",
            (),
        ),
        (
            happened("delivery.failed", kind="code", channel="sms", error_class="mailbox-off"),
            "failed",
            "Not delivered: the phone takes no messages at present: another channel may reach them",
            (),
        ),
        (
            happened("delivery.failed", kind="code", channel="email", error_class="credentials"),
            "failed",
            "Not delivered: the provider rejected our credentials",
            (),
        ),
        (
            # As earlier versions kept it.
            happened(
                "delivery.queued",
                kind="code",
                channel="email",
                provider="smtp",
                answer="450 4.2.0 Greylisted",
                error_class="recipient",
            ),
            "queued",
            "Still trying: the mail server asked us to come back",
            ("smtp", "450 4.2.0 Greylisted"),
        ),
        (
            happened("member.contact_cleared", actor="ops@co.example", data={"channels": ["email", "sms"]}),
            "changed",
            "Contact said to work again",
            ("by email", "by SMS", "by ops@co.example"),
        ),
        (
            happened("delivery.failed", kind="test", error_class="unheard-of"),
            "failed",
            "Test message not delivered: it was refused",
            (),
        ),
        (
            happened("delivery.queued", kind="code", error_class="timeout"),
            "queued",
            "Still trying: the provider didn't answer",
            (),
        ),
        (happened("delivery.expired", kind="code"), "expired", "Not sent: its time had run out", ()),
        (
            happened("delivery.void", kind="code"),
            "expired",
            "Not sent: a newer code or a change had made it void",
            (),
        ),
        (
            happened("refused.hourly", number=3),
            "refused",
            "Not sent: the codes of this hour were used up",
            ("3 times within this minute",),
        ),
        (happened("refused.unheard-of", number=1), "refused", "Not sent: a limit was reached", ()),
    ],
)
def test_each_happening_in_words(happening: Happening, look: str, text: str, notes: tuple[str, ...]) -> None:
    """Whatever is stored has a sentence that somebody on the phone can read out."""
    (entry,) = tell([happening], CONTACTS)
    assert (entry.look, entry.text, entry.notes) == (look, text, notes)


def test_each_code_goes_to_the_contact_of_its_time() -> None:
    """Going back beyond a change of the contact, older codes went to the older one."""
    change = {"changes": [{"field": "email", "before": "old***", "after": "new***"}, {"field": "name", "before": "A"}]}
    story = tell(
        [
            happened("code.requested", channel="email"),
            happened("tenant.changed", ago=5, actor="ops@co.example", data=change),
            happened("code.requested", ago=10, channel="email"),
        ],
        {"email": "new***", "phone_number": None},
    )
    assert story[0].notes == ("goes to new*** by email",)
    assert story[1].text == "Changed: email, name"
    assert story[1].notes == ("old*** → new***", "by ops@co.example")
    assert story[2].notes == ("goes to old*** by email",)


def test_who_was_told_of_a_change_stands_in_one_line() -> None:
    """However many notices went out, by whichever channel; one that didn't get there has a line of its own."""

    def notice(what: str, channel: str, **fields: Any) -> Happening:
        return happened(f"delivery.{what}", kind="notice", channel=channel, provider="smtp", **fields)

    def change(*fields: str) -> dict[str, Any]:
        return {"changes": [{"field": field, "before": f"old {field}", "after": f"new {field}"} for field in fields]}

    story = tell(
        gather(
            [
                notice("failed", "sms", error_class="recipient"),
                notice("delivered", "sms", ago=1),
                notice("sent", "sms", ago=2),
                happened("code.requested", ago=3),
                notice("sent", "email", ago=4),
                notice("sent", "email", ago=5),
                happened("tenant.changed", ago=6, data=change("name")),
                happened("tenant.changed", ago=7, data=change("email", "phone_number")),
                notice("sent", "email", ago=8),
                happened("tenant.changed", ago=9, data=change("phone_number")),
            ]
        ),
        {},
    )
    lost, told, _, _, _, alone, _ = story
    assert (lost.look, lost.text) == (
        "failed",
        "Notice of the change not delivered: there is no such number, or it takes no messages",
    )
    assert (told.at, told.look, told.text) == (NOW - timedelta(seconds=1), "sent", "Told of the change")
    assert told.notes == ("1 of 2 addresses by SMS", "old email and new email by email")
    assert alone.text == "Notice of the change: accepted by the mail server", "of a change that isn't in sight"


MEMBERS = UUID(int=7)
TRIED: dict[str, Any] = {"kind": "code", "channel": "email", "provider": "smtp", "error_class": "later"}


def test_tries_of_one_message_are_one_line() -> None:
    """With their number, the last time and the first; what is over is told as over, other messages stay apart."""
    one, other = UUID(int=1), UUID(int=2)
    story = tell(
        fold(
            [
                happened("delivery.queued", ago=1, message=other, **TRIED),
                happened("delivery.sent", ago=5, message=one, kind="code", channel="email", provider="smtp"),
                happened("delivery.queued", ago=10, message=one, **TRIED),
                happened("code.wrong", ago=15, data={"attempts_left": 4}),
                happened("delivery.queued", ago=20, message=one, **TRIED),
                happened("delivery.queued", ago=30, message=one, **TRIED),
                happened("delivery.queued", ago=31, message=one, **{**TRIED, "error_class": "timeout"}),
            ]
        ),
        {},
    )
    assert [line.text for line in story] == [
        "Still trying: the mail server asked us to come back",
        "Accepted by the mail server",
        "Put off: the mail server asked us to come back",
        "Wrong code, 4 tries left",
        "Put off: the provider didn't answer",
    ]
    assert (story[2].at, story[2].since) == (NOW - timedelta(seconds=10), NOW - timedelta(seconds=30))
    assert story[2].notes == ("smtp", "3 tries")
    assert [line.since for line in story if line is not story[2]] == [None] * 4


SENT = happened("delivery.sent", kind="code", ago=50)
FAILED = happened("delivery.failed", kind="code", channel="sms", error_class="recipient", ago=40)


@pytest.mark.parametrize(
    ("happenings", "situation", "begins", "buttons"),
    [
        ([FAILED], Situation(suspended=True), "The tenant is suspended", (False, False)),
        ([FAILED], Situation(reachable=False), "There is no contact", (True, False)),
        ([FAILED], Situation(locked=True, next_code_at=NOW), "Too many wrong codes", (False, False)),
        ([FAILED], Situation(), "The phone number bounced. Ask for a new one", (True, True)),
        (
            [happened("delivery.failed", kind="code", channel="email", error_class="opted-out")],
            Situation(),
            "The last message got nowhere: the recipient wants no messages. Ask for another email address",
            (True, True),
        ),
        (
            [happened("delivery.failed", kind="test", error_class="credentials")],
            Situation(),
            "The last message was not delivered: the provider rejected our credentials.",
            (False, True),
        ),
        (
            [happened("delivery.failed", kind="code", channel="email", error_class="refused")],
            Situation(),
            "The last message was not delivered: the mail server refuses us. It isn't their fault",
            (False, True),
        ),
        (
            [happened("delivery.failed", kind="code", channel="email", error_class="mailbox-full")],
            Situation(),
            "The last message got nowhere. The mailbox is full: another channel may reach them.",
            (True, True),
        ),
        ([SENT], Situation(marked=["email"]), "The email address bounced. Ask for a new one", (True, True)),
        ([FAILED], Situation(who="member", suspended=True), "The member is suspended and can't", (False, False)),
        (
            [happened("delivery.queued", kind="code", channel="email", provider="smtp", error_class="later")],
            Situation(),
            "The last message isn't through yet: the mail server asked us to come back.",
            (False, False),
        ),
        (
            # A change of something else mends nothing.
            [happened("tenant.changed", ago=10, data={"changes": [{"field": "name"}]}), FAILED],
            Situation(),
            "The phone number bounced.",
            (True, True),
        ),
        ([happened("delivery.expired", kind="code")], Situation(), "The last message ran out of time", (False, False)),
        ([SENT], Situation(next_code_at=NOW), "The codes of this hour are used up", (False, False)),
        ([happened("delivery.queued", kind="code")], Situation(), "The last message isn't through yet", (False, False)),
        ([SENT, SENT, SENT], Situation(), "The last 3 codes were sent and none was entered.", (True, True)),
    ],
)
def test_advice(happenings: list[Happening], situation: Situation, begins: str, buttons: tuple[bool, bool]) -> None:
    """The first thing that stops a code is named, with the buttons that help."""
    advice = advise(happenings, situation)
    assert isinstance(advice, Advice)
    assert advice.text.startswith(begins)
    assert (advice.edit, advice.test) == buttons


@pytest.mark.parametrize(
    "happenings",
    [
        [],
        [SENT],
        [happened("session.started"), SENT, SENT],
        [happened("tenant.changed", ago=10, data={"changes": [{"field": "phone_number"}]}), FAILED],
        [happened("tenant.contact_cleared", ago=10, data={"channels": ["sms"]}), FAILED],
        [happened("delivery.sent", kind="test", ago=10), FAILED],
        [happened("delivery.failed", kind="notice", error_class="recipient")],
        [happened("delivery.void", kind="code"), happened("delivery.queued", kind="code", ago=5, error_class="later")],
        [
            happened("delivery.failed", kind="code", channel="email", error_class="recipient", challenge=MEMBERS),
            happened("code.requested", ago=2, channel="email", challenge=MEMBERS, subject="member"),
        ],
    ],
)
def test_no_advice_where_nothing_is_wrong(happenings: list[Happening]) -> None:
    """One unused code, a sign-in, a mended contact, a good test since: nobody is sent to look for a fault."""
    assert advise(happenings, Situation()) is None
