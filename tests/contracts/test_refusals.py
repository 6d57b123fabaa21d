"""Whose fault a refusal is, one line each: what was answered, what it means, whether it marks the contact, what staff
read. A new vendor's answer, or a server's that was told wrongly, is a line more.

Mail servers' answers are given by a real SMTP server, bounces are read as mails, vendors' codes by their own tables.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

import pytest

from app.audit.blame import CLASSES, failure
from app.delivery import bounces
from app.delivery.callbacks import gupshup as gupshup_callbacks
from app.delivery.callbacks import msg91 as msg91_callbacks
from app.delivery.callbacks import sns as sns_callbacks
from app.delivery.callbacks import vonage as vonage_callbacks
from app.delivery.faults import Fault
from app.delivery.message import Deferral, DeliveryError, PermanentFailure
from app.delivery.providers import gupshup, meta, msg91, sns, twilio, vonage
from app.delivery.routing import UNHEALTHY
from tests.contracts.test_bounces import notification
from tests.contracts.test_smtp import MESSAGE, sending
from tests.mailserver import MailServer, mail_server

MARKED, NOT = True, False
NOBODY = "there is no such address, or it takes no mail"
FULL = "the mailbox is full: another channel may reach them"
OFF = "the mailbox takes no mail: another channel may reach them"
OURS = "the mail server refuses us"
SENDER = "our sender address was refused"
CREDENTIALS = "the provider rejected our credentials"
LATER = "the mail server asked us to come back"
AWAY = "the mail server can't be reached"


class Smtp(NamedTuple):
    """The server's answer to one command. `again`: it is asked again by itself."""

    command: str
    answer: str
    error_class: str
    marked: bool
    words: str
    again: bool = False


SMTP: Final = (
    # No status, and words about us.
    Smtp("RCPT", "553 sorry, that domain isn't in my list of allowed rcpthosts", "refused", NOT, OURS),
    Smtp("RCPT", "550 Cannot accept mail from your IP", "refused", NOT, OURS),
    Smtp("RCPT", "550 Mail from your network refused", "refused", NOT, OURS),
    Smtp("RCPT", "550 Dynamic IP not accepted", "refused", NOT, OURS),
    Smtp("RCPT", "550 This mail server is listed at bl.example.net", "refused", NOT, OURS),
    Smtp("RCPT", "550 Greylisted", "refused", NOT, OURS),
    Smtp("RCPT", "550 Unsolicited mail is refused here", "refused", NOT, OURS),
    Smtp("RCPT", "550 Must issue a STARTTLS command first", "refused", NOT, OURS),
    Smtp("RCPT", "550 Permission denied", "refused", NOT, OURS),
    # The enhanced status says it.
    Smtp("RCPT", "550 5.1.1 <bob@example.com>: user unknown", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550 5.1.0 Address rejected", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550 5.1.2 Bad destination system", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "553 5.1.3 Bad address syntax", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550 5.1.6 Mailbox has moved", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "556 5.1.10 Recipient address has null MX", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550 #5.1.0 Address rejected.", "recipient", MARKED, NOBODY),
    Smtp("DATA", "550 5.1.1 RESOLVER.ADR.RecipNotFound", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550-5.1.1 The email account that you tried to reach does not exist. Please try\r\n"
         "550-5.1.1 double-checking the recipient's email address for typos. For more\r\n"
         "550 5.1.1 information, go to https://support.google.com/mail/?p=NoSuchUser x-1.2.3 - gsmtp",
         "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550 5.7.1 Service unavailable, client host [203.0.113.9] blocked using zen.spamhaus.org",
         "refused", NOT, OURS),
    Smtp("RCPT", "550 5.7.1 Unable to relay", "refused", NOT, OURS),
    Smtp("RCPT", "550 5.7.606 Access denied, banned sending IP [203.0.113.9]", "refused", NOT, OURS),
    Smtp("RCPT", "550 5.7.1 <bob@example.com>: Recipient address rejected: User unknown", "refused", NOT, OURS),
    Smtp("RCPT", "503 5.5.1 Bad sequence of commands", "refused", NOT, OURS),
    Smtp("RCPT", "554 5.3.2 System not accepting network messages", "refused", NOT, OURS),
    Smtp("DATA", "554 5.7.1 Message refused as spam: 123456 is your code", "refused", NOT, OURS),
    Smtp("DATA", "550 5.6.0 Invalid header", "refused", NOT, OURS),
    Smtp("DATA", "550-5.7.26 This mail has been blocked because the sender is unauthenticated.\r\n"
         "550 5.7.26 Gmail requires all senders to authenticate with either SPF or DKIM.", "refused", NOT, OURS),
    Smtp("DATA", "550 5.7.27 SPF check failed", "refused", NOT, OURS),
    Smtp("DATA", "552-5.7.0 This message was blocked because its content presents a potential\r\n"
         "552 5.7.0 security issue.", "refused", NOT, OURS),
    Smtp("MAIL", "550 5.7.1 Sender not allowed", "refused", NOT, OURS),
    Smtp("MAIL", "550 5.1.8 Sender's domain not found", "sender", NOT, SENDER),
    Smtp("RCPT", "553 5.1.7 Bad sender's mailbox address syntax", "sender", NOT, SENDER),
    Smtp("RCPT", "550 5.1.8 <codes@gatehouse.example>: Sender address rejected", "sender", NOT, SENDER),
    Smtp("RCPT", "550 5.2.1 The email account that you tried to reach is disabled. DisabledUser",
         "mailbox-off", NOT, OFF),
    Smtp("RCPT", "552 5.2.2 The email account is over quota. OverQuotaPerm", "mailbox-full", NOT, FULL),
    Smtp("RCPT", "452 4.2.2 The email account is over quota. OverQuotaTemp", "mailbox-full", NOT, FULL, again=True),
    Smtp("DATA", "552 5.2.3 Message length exceeds administrative limit", "refused", NOT, OURS),
    Smtp("MAIL", "552 5.3.4 Message size exceeds fixed limit", "refused", NOT, OURS),
    Smtp("RCPT", "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550 5.4.1 No answer from host", "unreachable", NOT, AWAY),
    Smtp("RCPT", "554 5.4.6 Routing loop detected", "unreachable", NOT, AWAY),
    # "Later", whatever it was an answer to.
    Smtp("RCPT", "450 4.2.0 <bob@example.com>: Recipient rejected: Greylisted", "later", NOT, LATER, again=True),
    Smtp("RCPT", "451 4.7.1 Greylisting in action, please come back later", "later", NOT, LATER, again=True),
    Smtp("RCPT", "450 4.1.1 <bob@example.com>: unverified address", "later", NOT, LATER, again=True),
    Smtp("RCPT", "450-4.2.1 The user you are trying to contact is receiving mail at a rate\r\n"
         "450 4.2.1 that prevents additional messages from being delivered.", "later", NOT, LATER, again=True),
    Smtp("RCPT", "451 Try again later", "later", NOT, LATER, again=True),
    Smtp("RCPT", "452 Requested action not taken: insufficient system storage", "later", NOT, LATER, again=True),
    Smtp("MAIL", "451 4.3.0 Temporary lookup failure", "later", NOT, LATER, again=True),
    Smtp("MAIL", "421 4.7.0 Too many connections", "later", NOT, LATER, again=True),
    Smtp("DATA", "421 4.7.0 Our system has detected an unusual rate", "later", NOT, LATER, again=True),
    Smtp("CONNECT", "421 4.7.0 Try again later, closing connection", "later", NOT, LATER, again=True),
    Smtp("CONNECT", "421 too many connections", "later", NOT, LATER, again=True),
    Smtp("AUTH", "454 4.7.0 Temporary authentication failure", "later", NOT, LATER, again=True),
    # Status and code disagree: the status says why, and what a server only puts off is asked for again.
    Smtp("RCPT", "450 5.1.1 <bob@example.com>: user unknown", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550 4.2.1 Come back later", "later", NOT, LATER, again=True),
    Smtp("RCPT", "554 4.7.1 Greylisted", "later", NOT, LATER, again=True),
    Smtp("RCPT", "451 5.7.1 Greylisted, try again", "refused", NOT, OURS, again=True),
    Smtp("RCPT", "552 4.2.2 Mailbox full", "mailbox-full", NOT, FULL, again=True),
    Smtp("RCPT", "550 5.0.0 No such user here", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "554 5.0.0 Service unavailable; client host blocked", "refused", NOT, OURS),
    # No status: the code, then what we had just said, then the words.
    Smtp("RCPT", "550 No such user here", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550 Requested action not taken: mailbox unavailable", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "551 User not local", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "553 Mailbox name not allowed", "refused", NOT, OURS),
    Smtp("RCPT", "553 sorry, no mailbox here by that name", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550 Unrouteable address", "recipient", MARKED, NOBODY),
    Smtp("RCPT", "550 rejected because 203.0.113.9 is in a black list at zen.spamhaus.org", "refused", NOT, OURS),
    Smtp("RCPT", "550 relay not permitted", "refused", NOT, OURS),
    Smtp("RCPT", "550 Sender verify failed", "refused", NOT, OURS),
    Smtp("RCPT", "554 Relay access denied", "refused", NOT, OURS),
    Smtp("RCPT", "554 Denied by policy", "refused", NOT, OURS),
    Smtp("RCPT", "552 Requested mail action aborted: exceeded storage allocation", "mailbox-full", NOT, FULL),
    Smtp("RCPT", "552 Mailbox full", "mailbox-full", NOT, FULL),
    Smtp("RCPT", "452 Mailbox full", "mailbox-full", NOT, FULL, again=True),
    Smtp("RCPT", "550 mailbox is over quota", "mailbox-full", NOT, FULL),
    Smtp("RCPT", "550 This account has been disabled", "mailbox-off", NOT, OFF),
    Smtp("MAIL", "552 Message size exceeds maximum permitted", "refused", NOT, OURS),
    Smtp("DATA", "552 Message too large", "refused", NOT, OURS),
    Smtp("DATA", "550 Requested action not taken", "refused", NOT, OURS),
    Smtp("DATA", "554 delivery error: dd This user doesn't have a yahoo.com account (bob@yahoo.com) [0] - mta1.bf1",
         "recipient", MARKED, NOBODY),
    Smtp("DATA", "554 delivery error: dd Sorry your message to bob@yahoo.com cannot be delivered. This account has "
         "been disabled or discontinued [#102].", "mailbox-off", NOT, OFF),
    Smtp("DATA", "554 30 Sorry, your message to bob@yahoo.com cannot be delivered. This mailbox is disabled (554.30).",
         "mailbox-off", NOT, OFF),
    Smtp("DATA", "554 Transaction failed", "refused", NOT, OURS),
    # Nobody is told that a recipient doesn't exist before one was named.
    Smtp("MAIL", "550 5.1.1 no such user", "sender", NOT, SENDER),
    Smtp("MAIL", "553 no such mailbox", "sender", NOT, SENDER),
    Smtp("MAIL", "550 5.2.2 over quota", "refused", NOT, OURS),
    Smtp("CONNECT", "554 5.7.1 Your host is on a blocklist", "refused", NOT, OURS),
    Smtp("CONNECT", "550 No such user", "refused", NOT, OURS),
    Smtp("EHLO", "554 5.7.1 Greeting refused", "refused", NOT, OURS),
    Smtp("EHLO", "550 5.1.1 no such host", "refused", NOT, OURS),
    Smtp("AUTH", "535 5.7.8 Username and Password not accepted", "credentials", NOT, CREDENTIALS),
    Smtp("AUTH", "535 5.7.139 Authentication unsuccessful, basic authentication is disabled",
         "credentials", NOT, CREDENTIALS),
    Smtp("AUTH", "550 5.1.1 no such user", "credentials", NOT, CREDENTIALS),
    Smtp("MAIL", "530 5.7.0 Authentication required", "credentials", NOT, CREDENTIALS),
    Smtp("RCPT", "530 5.7.1 Client was not authenticated", "credentials", NOT, CREDENTIALS),
)  # fmt: skip


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with mail_server(login=True) as server:
        yield server


@pytest.mark.parametrize("case", SMTP, ids=lambda case: f"{case.command}: {case.answer[:60]}")
async def test_what_a_mail_server_answers(server: MailServer, case: Smtp) -> None:
    """Said by a server to a real client, at each step of a mail."""
    for command in {"EHLO": ("EHLO", "HELO")}.get(case.command, (case.command,)):
        server.answers[command].append(case.answer)
    account = {"username": "gate", "password": "open sesame"} if case.command == "AUTH" else {}
    # CRAM-MD5 isn't spoken there, so each way to sign in is tried once.
    server.answers[case.command].extend([case.answer] * 2 if case.command == "AUTH" else [])
    async with sending(server, **account) as smtp:
        with pytest.raises(DeliveryError) as refusal:
            await smtp.send(MESSAGE)
    error = refusal.value
    assert (error.error_class, error.error_class in UNHEALTHY and error.permanent) == (case.error_class, case.marked)
    assert failure(error.error_class, "email") == case.words
    assert isinstance(error, Deferral if case.again else PermanentFailure)


@pytest.mark.parametrize(
    ("status", "answer", "error_class", "marked"),
    [
        ("5.1.1", "550 5.1.1 No such user", "recipient", MARKED),
        ("5.0.0", "550 5.1.1 No such user", "recipient", MARKED),
        ("5.0.0", "550 5.7.1 Client host blocked", "refused", NOT),
        ("5.0.0", "550-5.7.26 Unauthenticated", "refused", NOT),
        ("5.0.0", "550 relay not permitted", "refused", NOT),
        ("5.0.0", "", "recipient", MARKED),
        ("", "552 Mailbox full", "mailbox-full", NOT),
        ("5.2.2", "552 5.2.2 over quota", "mailbox-full", NOT),
        ("4.2.2", "452 4.2.2 over quota", "mailbox-full", NOT),
        ("5.2.1", "550 disabled", "mailbox-off", NOT),
        ("5.7.1", "550 5.7.1 Spam", "refused", NOT),
        ("5.7.1", "554 5.7.1 User unknown", "refused", NOT),
        ("5.1.8", "553 5.1.8 Sender's domain not found", "sender", NOT),
        ("5.3.4", "552 5.3.4 Too large", "refused", NOT),
        ("5.4.1", "550 5.4.1 Recipient address rejected: Access denied", "recipient", MARKED),
        ("5.4.7", "", "unreachable", NOT),
        ("4.4.7", "", "unreachable", NOT),
        ("4.7.1", "451 4.7.1 Greylisted", "unreachable", NOT),
    ],
)
def test_what_a_bounce_says(status: str, answer: str, error_class: str, marked: bool) -> None:
    """The next server's refusal, as the one before it reports it: it has given up, so nothing comes later."""
    raw = notification("<0123456789abcdef0123456789abcdef@gatehouse.example>", status=status)
    report = bounces.read(raw.replace(b"550 5.1.1 <bob@example.org>: no such user", answer.encode()))
    assert report is not None
    assert report.fault is not None
    assert (report.fault.value, report.fault.value in UNHEALTHY) == (error_class, marked)


# Vendors' codes: bad numbers, what is ours to mend, recipients who take nothing now, and "later".
NUMBER, RUINED, TAKES_NOTHING, AGAIN = "contact", "ours", "mailbox", "passing"
VENDORS: Final = (
    ("twilio", twilio.FAULTS, 21211, NUMBER),
    ("twilio", twilio.FAULTS, 21614, NUMBER),
    ("twilio", twilio.FAULTS, 30005, NUMBER),
    ("twilio", twilio.FAULTS, 63003, NUMBER),
    ("twilio", twilio.FAULTS, 20003, RUINED),
    ("twilio", twilio.FAULTS, 21408, RUINED),  # a country that isn't enabled
    ("twilio", twilio.FAULTS, 21606, RUINED),
    ("twilio", twilio.FAULTS, 30002, RUINED),
    ("twilio", twilio.FAULTS, 30007, RUINED),
    ("twilio", twilio.FAULTS, 63016, RUINED),
    ("twilio", twilio.FAULTS, 21610, TAKES_NOTHING),
    ("twilio", twilio.FAULTS, 30003, TAKES_NOTHING),  # the handset is off
    ("twilio", twilio.FAULTS, 30004, TAKES_NOTHING),
    ("twilio", twilio.FAULTS, 20429, AGAIN),
    ("twilio", twilio.FAULTS, 30008, AGAIN),
    ("vonage", vonage.FAULTS, "6", NUMBER),
    ("vonage", vonage.FAULTS, "4", RUINED),
    ("vonage", vonage.FAULTS, "9", RUINED),  # out of credit
    ("vonage", vonage.FAULTS, "15", RUINED),
    ("vonage", vonage.FAULTS, "29", RUINED),
    ("vonage", vonage.FAULTS, "7", TAKES_NOTHING),
    ("vonage", vonage.FAULTS, "1", AGAIN),
    ("vonage", vonage_callbacks._FAULTS, "3", NUMBER),
    ("vonage", vonage_callbacks._FAULTS, "2", TAKES_NOTHING),
    ("vonage", vonage_callbacks._FAULTS, "12", TAKES_NOTHING),
    ("vonage", vonage_callbacks._FAULTS, "39", RUINED),
    ("vonage", vonage_callbacks._FAULTS, "8", AGAIN),
    ("msg91", msg91.FAULTS, "101", NUMBER),
    ("msg91", msg91.FAULTS, "301", RUINED),
    ("msg91", msg91.FAULTS, "203", RUINED),
    ("msg91", msg91.FAULTS, "418", RUINED),
    ("msg91", msg91.FAULTS, "601", AGAIN),
    ("msg91", msg91_callbacks._FAULTS, "2", TAKES_NOTHING),
    ("msg91", msg91_callbacks._FAULTS, "9", TAKES_NOTHING),
    ("msg91", msg91_callbacks._FAULTS, "16", RUINED),
    ("gupshup", gupshup.FAULTS, "105", NUMBER),
    ("gupshup", gupshup.FAULTS, "102", RUINED),
    ("gupshup", gupshup.FAULTS, "1003", RUINED),
    ("gupshup", gupshup.FAULTS, "1006", TAKES_NOTHING),
    ("gupshup", gupshup.FAULTS, "4001", AGAIN),
    ("gupshup", gupshup_callbacks._FAULTS, "UNKNOWN_SUBSCRIBER", NUMBER),
    ("gupshup", gupshup_callbacks._FAULTS, "ABSENT_SUBSCRIBER", TAKES_NOTHING),
    ("gupshup", gupshup_callbacks._FAULTS, "SERVICE_DOWN", AGAIN),
    ("sns", sns.FAULTS, "OptedOut", TAKES_NOTHING),
    ("sns", sns.FAULTS, "AuthorizationError", RUINED),
    ("sns", sns.FAULTS, "Throttled", AGAIN),
    ("sns", sns_callbacks._FAULTS, "TEXT_INVALID", NUMBER),
    ("sns", sns_callbacks._FAULTS, "TEXT_UNREACHABLE", TAKES_NOTHING),
    ("sns", sns_callbacks._FAULTS, "TEXT_CARRIER_BLOCKED", RUINED),
    ("sns", sns_callbacks._FAULTS, "TEXT_TTL_EXPIRED", AGAIN),
    ("meta", meta.FAULTS, 131026, NUMBER),
    ("meta", meta.FAULTS, 190, RUINED),
    ("meta", meta.FAULTS, 131042, RUINED),
    ("meta", meta.FAULTS, 132001, RUINED),
    ("meta", meta.FAULTS, 130497, RUINED),
    ("meta", meta.FAULTS, 131049, TAKES_NOTHING),
    ("meta", meta.FAULTS, 130429, AGAIN),
)


@pytest.mark.parametrize(("vendor", "table", "code", "kind"), VENDORS, ids=lambda part: str(part)[:20])
def test_what_a_vendors_code_means(vendor: str, table: dict[object, Fault], code: object, kind: str) -> None:
    """A number is marked for being wrong, and for nothing else."""
    error_class = table[code].value
    assert CLASSES[error_class].kind == kind, vendor
    assert (error_class in UNHEALTHY) == (kind == NUMBER)


@pytest.mark.parametrize(
    ("words", "error_class"),
    [
        ("Invalid phone number", "recipient"),
        ("Message body is invalid", "refused"),
        ("Phone number is opted out", "opted-out"),
        ("Phone has blocked SMS", "opted-out"),
        ("Phone is on a blocked list", "opted-out"),
        ("Phone is currently unreachable/unavailable", "mailbox-off"),
        ("Phone carrier is currently unreachable/unavailable", "unavailable"),
        ("Phone carrier has blocked this message", "refused"),
        ("Blocked as spam by phone carrier", "refused"),
        ("This delivery would exceed max price", "account"),
        ("Unknown error attempting to reach phone", "unavailable"),
    ],
)
def test_what_amazons_log_says(words: str, error_class: str) -> None:
    """In sentences only."""
    told = {"notification": {"messageId": "m"}, "status": "FAILURE", "delivery": {"providerResponse": words}}
    report = sns_callbacks._report(told)
    assert report is not None
    assert report.fault is not None
    assert report.fault.value == error_class


def test_every_class_has_words_and_somebody_to_act() -> None:
    """Whatever a provider raises is told in words, for each channel, and only "contact" marks."""
    for fault in Fault:
        assert fault.value in CLASSES
        for channel in ("email", "sms", "whatsapp"):
            assert failure(fault.value, channel) != "it was refused"
    assert {"recipient", "address"} == UNHEALTHY


async def test_greylisting_is_no_sign_that_the_server_is_away(server: MailServer) -> None:
    """However many new recipients it puts off, the others' mail goes on."""
    server.greylisting = True
    async with sending(server) as smtp:
        for number in range(8):
            with pytest.raises(Deferral) as refusal:
                await smtp.send(replace(MESSAGE, to=f"new{number}@example.com"))
            assert refusal.value.of_one
        with suppress(Deferral):
            await smtp.send(replace(MESSAGE, to="new0@example.com"))
    assert len(server.mails) == 1
