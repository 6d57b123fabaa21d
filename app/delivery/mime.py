"""An email as bytes for the wire (RFC 5322, RFC 2045).

Written out by hand because this runs for every mail: the standard library's EmailMessage takes 0.6 ms to build and
flatten the same bytes. What is hard, encoded words and addresses, is still left to it, and a test reads every result
back with its parser. Pure ASCII, so that any server takes it.
"""

import binascii
import re
from email.header import Header
from email.utils import format_datetime, formataddr
from typing import Final

from email_validator import EmailNotValidError, validate_email

from app.delivery.message import Message, PermanentFailure, one_line

# Can't occur in quoted-printable text: there "=" is followed by two hexadecimal digits or a line end.
_BOUNDARY: Final = "=_gatehouse"
_NEWLINE: Final = "\r\n"
_FOLD: Final = "\r\n "
_LINE: Final = 76
# A dot-atom at a host name: no quoted local parts, no comments, no second address after a comma.
_PLAIN_ADDRESS: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[A-Za-z0-9.-]+"
)
# Printable ASCII that needs no folding beside its header's name.
_PLAIN_TEXT: Final = re.compile(r"[\x20-\x7e]{0,64}")


def recipient(address: str) -> str:
    """The one address as it goes into an envelope, in ASCII (international domains as A-labels, RFC 5890).

    Raises `PermanentFailure` for anything that isn't exactly one address, and for a local part outside ASCII, which
    would need a server with SMTPUTF8 (RFC 6531) all the way.
    """
    if _PLAIN_ADDRESS.fullmatch(address):
        return address
    try:
        ascii_address = validate_email(address, check_deliverability=False).ascii_email
    except EmailNotValidError:
        ascii_address = None
    if ascii_address is None:
        raise PermanentFailure("address", "The address can't be used for email.")
    return ascii_address


def sender(name: str, address: str) -> str:
    """The value of From: the name quoted or encoded as it needs to be."""
    name, address = one_line(name), recipient(address)
    if _is_plain(name):
        return formataddr((name, address))
    return f"{_encoded(name, 'From')}{_FOLD}<{address}>"


def email(message: Message, *, to: str, from_header: str, domain: str) -> bytes:
    """The whole email. `to` comes from `recipient`, `from_header` from `sender`; the subject may be any text."""
    subject = message.subject or ""
    lines = [
        f"From: {from_header}",
        f"To: {to}",
        *([f"Reply-To: {recipient(message.reply_to)}"] if message.reply_to else ()),
        f"Subject: {subject if _is_plain(subject) else _encoded(subject, 'Subject')}",
        f"Date: {format_datetime(message.date.replace(microsecond=0))}",
        f"Message-ID: <{message.id}@{domain}>",
        # No out-of-office replies, please: by RFC 3834, and as Exchange wants it said.
        "Auto-Submitted: auto-generated",
        "X-Auto-Response-Suppress: All",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/alternative; boundary="{_BOUNDARY}"',
        "",
        *_part("plain", message.text),
    ]
    if message.html is not None:
        lines += _part("html", message.html)
    lines += [f"--{_BOUNDARY}--", ""]
    return _NEWLINE.join(lines).encode("ascii")


def _is_plain(text: str) -> bool:
    """Whether a header may hold the text as it is. What looks like an encoded word must not be decoded as one."""
    return _PLAIN_TEXT.fullmatch(text) is not None and "=?" not in text


def _encoded(text: str, header: str) -> str:
    """Encoded words (RFC 2047), folded; a line break in the text is encoded like any other character."""
    return Header(text, "utf-8", maxlinelen=_LINE, header_name=header).encode(linesep=_NEWLINE)


def _part(subtype: str, text: str) -> tuple[str, ...]:
    # The encoder breaks its lines as the first line of the text ends, so there must be one.
    lines = f"{text}\n".replace("\r\n", "\n").replace("\n", _NEWLINE)
    body = binascii.b2a_qp(lines.encode(), istext=True).removesuffix(b"\r\n")
    return (
        f"--{_BOUNDARY}",
        f"Content-Type: text/{subtype}; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
        "",
        body.decode("ascii"),
    )
