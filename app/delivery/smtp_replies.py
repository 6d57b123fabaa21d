"""Whose fault an SMTP server's refusal is: the enhanced status (RFC 3463) says it, else the code (RFC 5321), and only
then what we had just said. Pure.

Servers that give no status often say the rest in words, so those are read where nothing better is there.
"""

import re
from typing import Final, Literal, TypeAlias

from app.delivery.faults import Fault

# What the server answers: our coming, our sign-in, our sender, our recipient, or our text.
Phase: TypeAlias = Literal["connect", "auth", "mail", "rcpt", "data"]
_BEFORE_A_RECIPIENT: Final = frozenset({"connect", "auth", "mail"})

# Servers also write "#5.1.0" and "(5.7.1)"; an IP address has a fourth part.
_STATUS: Final = re.compile(r"(?:^|[\s#(\[:])([245])\.([0-7])\.(\d{1,3})(?=[\s:;,)\]>-]|$)", re.MULTILINE)
_SUCCESS, _TRANSIENT = 2, 4
# RFC 4954, 6: these codes are about the sign-in alone. A status under them says no more.
_CREDENTIALS: Final = frozenset({530, 534, 535, 538})
_TEMPORARY: Final = range(400, 500)
_NO_MAILBOX: Final = frozenset({550, 551, 553, 556})
_OVER_STORAGE: Final = 552
_FAILED: Final = 554

_NO_SUCH_RECIPIENT: Final = frozenset({0, 1, 2, 3, 6, 10})
_OUR_SENDER: Final = frozenset({7, 8})
_MAILBOX_FULL: Final = 2
_MESSAGE_TOO_LONG: Final = 3
# RFC 3463's subjects: the address, the mailbox, and the network.
_ADDRESS, _MAILBOX, _NETWORK = 1, 2, 4

_SAYS_FULL: Final = re.compile(
    r"quota|full mailbox|(mail ?box|inbox|account).{0,20}\bfull\b|exceed\w*.{0,20}(storage|space)|storage allocation"
    r"|mailbox size",
    re.IGNORECASE,
)
_SAYS_TOO_LARGE: Final = re.compile(
    r"message (size|length|file).{0,20}exceed|(message|mail|file).{0,20}too (big|large|long)|size (limit|exceeds)"
    r"|exceeds.{0,20}(fixed )?(maximum|size)|maximum message",
    re.IGNORECASE,
)
_SAYS_OFF: Final = re.compile(
    r"(account|mailbox|user|address|recipient)\b.{0,40}\b(disabled|suspended|inactive|deactivated|discontinued|locked"
    r"|not active|on hold)",
    re.IGNORECASE,
)
_SAYS_NOBODY: Final = re.compile(
    r"no such (user|recipient|mailbox|address|person|account|domain)|nosuchuser|unknown (user|recipient|local|address)"
    r"|(user|recipient|address|mailbox|account)\b.{0,40}\b"
    r"(unknown|not found|not exist|isn't known|no longer (exists|valid)|invalid|unavailable)"
    r"|doesn't have an? .{0,40}account|not a valid (mailbox|recipient|user|address)|not our customer|does ?n[o']t exist"
    r"|(invalid|bad|unrouteable|unroutable|undeliverable) (recipient|mailbox|address|destination|user)"
    r"|(host or )?domain.{0,20}not (found|exist)|user.{0,10}(is )?not (here|known|local)",
    re.IGNORECASE,
)
_SAYS_POLICY: Final = re.compile(
    r"block(ed|list|ing)?\b|black ?list|deny ?list|\b(rbl|dnsbl|spamhaus|barracuda|spamcop|sorbs|uceprotect)\b|\bspam\b"
    r"|relay|client host|helo|ehlo|reverse dns|\bptr\b|\b(spf|dkim|dmarc)\b|polic(y|ies)|prohibit|authenticat"
    r"|reputation|access denied|not (allowed|permitted|authori[sz]ed)|sender|banned|too many|rate limit|\bvirus\b"
    r"|rcpthosts|\byour (ip|host|network|server)\b|dynamic ip|\blisted (at|by|in|on)\b|gr[ae]y ?list|unsolicited"
    r"|starttls|permission denied",
    re.IGNORECASE,
)
# Exchange Online has no such recipient and says so as if a host had not answered.
_NOBODY_AT_MICROSOFT: Final = re.compile(r"recipient address rejected: access denied", re.IGNORECASE)


def fault_of(phase: Phase, code: int, text: str) -> Fault:
    """What a refusal means. `text` may have several lines; the code stands in front of none.

    Nobody can be told that a recipient doesn't exist before one was named.
    """
    if code in _CREDENTIALS or (phase == "auth" and code not in _TEMPORARY):
        return Fault.CREDENTIALS
    status = _status(text)
    fault = _by_status(*status, text) if status else _by_code(phase, code, text)
    if phase not in _BEFORE_A_RECIPIENT or fault not in _OF_A_RECIPIENT:
        return fault
    return Fault.SENDER if phase == "mail" and fault is Fault.RECIPIENT else Fault.REFUSED


_OF_A_RECIPIENT: Final = frozenset({Fault.RECIPIENT, Fault.MAILBOX_FULL, Fault.MAILBOX_OFF, Fault.UNREACHABLE})


def put_off(fault: Fault, code: int, text: str) -> bool:
    """Whether the server may take the same mail later: it asked us to come back, by status or by code.

    A recipient that isn't there is none later either, whatever the code in front says.
    """
    if fault is Fault.RECIPIENT:
        return False
    if fault is Fault.LATER or code in _TEMPORARY:
        return True
    status = _status(text)
    return status is not None and status[0] == _TRANSIENT


def _status(text: str) -> tuple[int, int, int] | None:
    """The first that says something: x.0.0 is RFC 3463's "other undefined status", and 2 no refusal."""
    for found in _STATUS.finditer(text):
        kind, subject, detail = (int(part) for part in found.groups())
        if kind != _SUCCESS and subject:
            return kind, subject, detail
    return None


def _by_status(kind: int, subject: int, detail: int, text: str) -> Fault:
    if subject == _MAILBOX and detail == _MAILBOX_FULL:
        return Fault.MAILBOX_FULL
    if kind == _TRANSIENT:
        return Fault.LATER
    if subject == _ADDRESS:
        if detail in _NO_SUCH_RECIPIENT:
            return Fault.RECIPIENT
        return Fault.SENDER if detail in _OUR_SENDER else Fault.REFUSED
    if subject == _MAILBOX:
        return Fault.REFUSED if detail == _MESSAGE_TOO_LONG else Fault.MAILBOX_OFF
    if subject == _NETWORK:
        nobody = _NOBODY_AT_MICROSOFT.search(text) or _SAYS_NOBODY.search(text)
        return Fault.RECIPIENT if nobody else Fault.UNREACHABLE
    return Fault.REFUSED


def _by_code(phase: Phase, code: int, text: str) -> Fault:
    too_large = _SAYS_TOO_LARGE.search(text)
    if _SAYS_FULL.search(text) and not too_large and phase not in _BEFORE_A_RECIPIENT:
        return Fault.MAILBOX_FULL
    if code in _TEMPORARY:
        return Fault.LATER
    nobody = _SAYS_NOBODY.search(text)
    ours = _SAYS_POLICY.search(text) and (not nobody or "sender" in text.lower())
    if _SAYS_OFF.search(text) and not ours:
        return Fault.MAILBOX_OFF
    if code == _OVER_STORAGE:
        return Fault.REFUSED if phase == "mail" or too_large or ours else Fault.MAILBOX_FULL
    if nobody and not ours and code in {*_NO_MAILBOX, _FAILED}:
        return Fault.RECIPIENT
    # Without a word about it, these say so of a recipient only where one was just named.
    return Fault.RECIPIENT if code in _NO_MAILBOX and phase != "data" and not ours else Fault.REFUSED
