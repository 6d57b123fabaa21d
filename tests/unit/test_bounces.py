"""Bounces as mail servers write them, and what is no bounce of a mail of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery.bounces import MAX_BYTES, NotABounce, read
from app.delivery.callbacks.posted import Report

ID = "0123456789abcdef0123456789abcdef"

# The form of Postfix: the headers only, and comments in the status's company.
POSTFIX = f"""\
Return-Path: <>
From: MAILER-DAEMON@mail.example.com (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: codes@gatehouse.example
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="4F2A9C1.1773480413/mail.example.com"

This is a MIME-encapsulated message.

--4F2A9C1.1773480413/mail.example.com
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--4F2A9C1.1773480413/mail.example.com
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.com
X-Postfix-Queue-ID: 4F2A9C1
X-Postfix-Sender: rfc822; codes@gatehouse.example
Arrival-Date: Sat, 14 Mar 2026 09:26:53 +0000 (UTC)

Final-Recipient: rfc822; bob@example.org
Original-Recipient: rfc822;bob@example.org
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.org
Diagnostic-Code: smtp; 550 5.1.1 <bob@example.org>: Recipient address rejected:
    User unknown in virtual mailbox table

--4F2A9C1.1773480413/mail.example.com
Content-Description: Undelivered Message Headers
Content-Type: text/rfc822-headers

Return-Path: <codes@gatehouse.example>
From: Gatehouse <codes@gatehouse.example>
To: bob@example.org
Message-ID: <{ID}@gatehouse.example>

--4F2A9C1.1773480413/mail.example.com--
"""

# The form of Exchange Online: nested parts, CRLF, folded headers, the whole mail.
EXCHANGE = f"""\
From: Microsoft Outlook <postmaster@example.org>
To: <codes@gatehouse.example>
Message-ID: <6c1d4a0e-0001@example.org>
In-Reply-To: <{ID}@gatehouse.example>
References: <{ID}@gatehouse.example>
Content-Type: multipart/report; report-type=delivery-status;
 boundary="_outer_"
MIME-Version: 1.0

--_outer_
Content-Type: multipart/alternative; differences=Content-Type;
 boundary="_inner_"

--_inner_
Content-Type: text/plain; charset="us-ascii"

Delivery has failed to these recipients or groups.

--_inner_
Content-Type: text/html; charset="us-ascii"

<html><body>Delivery has failed</body></html>

--_inner_--

--_outer_
Content-Type: message/delivery-status

Reporting-MTA: dns;AM0PR01.example.org

Final-Recipient: rfc822;bob@example.org
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup
X-Display-Name: bob@example.org

--_outer_
Content-Type: message/rfc822

From: Gatehouse <codes@gatehouse.example>
To: bob@example.org
Message-ID:
\t<{ID}@gatehouse.example>
Content-Type: text/plain

123456 is your code

--_outer_--
""".replace("\n", "\r\n")

# The form of Gmail: a related part with a picture in front, and the Message-ID among the fields.
GMAIL = f"""\
From: Mail Delivery Subsystem <mailer-daemon@googlemail.example>
To: codes@gatehouse.example
Auto-Submitted: auto-replied
Content-Type: multipart/report; boundary="000000000000b0a1"; report-type=delivery-status

--000000000000b0a1
Content-Type: multipart/related; boundary="000000000000b0b2"

--000000000000b0b2
Content-Type: text/html; charset="UTF-8"
Content-Transfer-Encoding: quoted-printable

<html>Address not found</html>

--000000000000b0b2
Content-Type: image/png; name="icon.png"
Content-Transfer-Encoding: base64

iVBORw0KGgo=
--000000000000b0b2--
--000000000000b0a1
Content-Type: message/delivery-status

Reporting-MTA: dns; googlemail.example
Arrival-Date: Sat, 14 Mar 2026 02:26:53 -0700 (PDT)
X-Original-Message-ID: <{ID}@gatehouse.example>

Final-Recipient: rfc822; bob@example.org
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.org. (192.0.2.7, the server for the domain example.org.)
Diagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach does not exist.
Last-Attempt-Date: Sat, 14 Mar 2026 02:26:54 -0700 (PDT)

--000000000000b0a1--
"""


def told(raw: str) -> Report | None:
    return read(raw.encode())


@pytest.mark.parametrize("raw", [POSTFIX, POSTFIX.replace("\n", "\r\n"), EXCHANGE, GMAIL])
def test_a_failure_names_our_mail_and_blames_the_address(raw: str) -> None:
    """Three servers' forms, one meaning."""
    report = told(raw)
    assert report is not None
    assert report.fault is not None
    assert (report.message_id, report.state, report.fault.value) == (ID, "failed", "recipient")
    assert report.text.startswith("5.1.1")
    assert "550" in report.text


@pytest.mark.parametrize("gone", ["In-Reply-To: ", "Message-ID:\r\n"])
def test_one_name_of_the_mail_is_enough(gone: str) -> None:
    """Exchange leaves the mail itself out where it is told to; the answer still says what it answers."""
    report = told(EXCHANGE.replace(gone, f"X-{gone}"))
    assert report is not None
    assert report.message_id == ID


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        ("5.0.0", "recipient"),
        ("5.2.2 (mailbox full)", "mailbox-full"),
        ("5.4.4", "recipient"),
        ("5.7.1", "refused"),
        ("5.6.0", "refused"),
        ("4.4.7", "unreachable"),
        ("nonsense", "recipient"),
    ],
)
def test_only_the_addresss_fault_is_its_fault(status: str, error_class: str) -> None:
    """A spam filter's refusal or a server that was away for days says nothing about the contact."""
    report = told(POSTFIX.replace("Status: 5.1.1", f"Status: {status}"))
    assert report is not None
    assert report.fault is not None
    assert report.fault.value == error_class


@pytest.mark.parametrize("action", ["delayed", "Delayed", "relayed", "expanded"])
def test_on_its_way_is_no_report(action: str) -> None:
    """The server goes on trying, or another one does."""
    assert told(POSTFIX.replace("Action: failed", f"Action: {action}").replace("5.1.1", "4.4.1")) is None


def test_an_arrival_is_reported() -> None:
    """Also where one address stands for several mailboxes and another one of them is gone."""
    arrived = Report(ID, "delivered")
    assert told(POSTFIX.replace("Action: failed", "Action: delivered")) == arrived
    second = "Final-Recipient: rfc822; al@example.org\nAction: delivered\nStatus: 2.0.0\n\n"
    both = POSTFIX.replace("Final-Recipient: rfc822; bob", f"{second}Final-Recipient: rfc822; bob")
    assert told(both) == arrived


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("", "no multipart/report"),
        ("Subject: Hello\n\nAre you there?\n", "no multipart/report"),
        (POSTFIX.replace("multipart/report", "multipart/mixed"), "no multipart/report"),
        (POSTFIX.replace("message/delivery-status", "text/plain"), "no delivery status"),
        (POSTFIX.replace("Action: failed", "Action: eaten"), "no action"),
        (POSTFIX.replace("Action: failed\n", ""), "no action"),
        (POSTFIX.replace(ID, "20260314092653.4F2A9C1"), "no Message-ID of ours"),
        (POSTFIX.replace(ID, ID.upper()), "no Message-ID of ours"),
        (POSTFIX.replace(f"<{ID}", f"<x@y> <{ID}"), "no Message-ID of ours"),
        (POSTFIX + "x" * MAX_BYTES, "larger than 256 KiB"),
        ("Content-Type: message/rfc822\n\n" * 8000, "nested too deeply"),
    ],
)
def test_anything_else_is_ignored_with_a_reason(raw: str, why: str) -> None:
    """Whatever comes to a mailbox, somebody can read why it counted for nothing."""
    with pytest.raises(NotABounce, match=why):
        told(raw)


@given(cut=st.integers(0, len(POSTFIX)), junk=st.binary(max_size=40), rest=st.integers(0, len(POSTFIX)))
def test_damage_is_survived(cut: int, junk: bytes, rest: int) -> None:
    """However a notification is cut and glued, it is read or refused."""
    raw = POSTFIX.encode()
    try:
        report = read(raw[:cut] + junk + raw[rest:])
    except NotABounce:
        return
    assert report is None or report.message_id == ID
