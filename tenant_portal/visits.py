"""What a browser keeps between the pages of a sign-in: which challenge is open, which address is proven, and that it is
a known device.
"""

import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from litestar.datastructures import Cookie

from app.auth.asking import Issued
from app.auth.devices import LIFETIME as DEVICE_LIFETIME
from app.auth.signing_in import HalfSignIn
from app.keys import base64url, keyed_hash
from app.web.browser import jar_of
from app.web.cookies import DEVICE, per_tenant
from app.web.services import AnyRequest, services

SIGN_IN: Final = "challenge"
_REGISTRATION: Final = "newcomer"
_VALUE: Final = re.compile(r"([A-Za-z0-9_-]{22})\.([68])\.([0-9]{1,12})\.([A-Za-z0-9_-]*)(?:\.([A-Za-z0-9_-]{43}))?")
# The cookie outlives its code, so that the page can say that the code has expired.
_KEPT_AFTER_EXPIRY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Pending:
    """A code under way, for a sign-in or for what else has a cookie `name`. Plain text in it: it is about the browser's
    own challenge, and nothing in it is believed. The core judges the challenge, and where to go afterwards is checked
    when we get there.
    """

    challenge_id: str
    code_length: int
    resend_at: int
    """Seconds since the epoch."""
    wanted: str | None = None
    """Where the browser wants to go after sign-in."""
    question: str | None = None
    """What was asked for, as `question_of` says it."""

    @classmethod
    def of(cls, issued: Issued, now: datetime, wanted: str | None = None, question: str | None = None) -> "Pending":
        """What a code was just sent for."""
        return cls(issued.challenge_id, issued.code_length, int(now.timestamp()) + issued.resend_in, wanted, question)

    @classmethod
    def read(cls, request: AnyRequest, slug: str, name: str = SIGN_IN) -> "Pending | None":
        """The one that this browser has under way for a tenant, or None."""
        found = _VALUE.fullmatch(jar_of(request).read(request, per_tenant(name, slug)) or "")
        if found is None:
            return None
        challenge_id, length, resend_at, wanted, question = found.groups()
        try:
            after = urlsafe_b64decode(wanted + "=" * (-len(wanted) % 4)).decode("ascii")
        except ValueError:
            return None
        return cls(challenge_id, int(length), int(resend_at), after or None, question)

    def cookie(self, request: AnyRequest, slug: str, expires_in: int, name: str = SIGN_IN) -> Cookie:
        """The cookie that keeps it. Seconds until the code expires."""
        value = f"{self.challenge_id}.{self.code_length}.{self.resend_at}.{base64url((self.wanted or '').encode())}"
        if self.question is not None:
            value += f".{self.question}"
        seconds = expires_in + int(_KEPT_AFTER_EXPIRY.total_seconds())
        return jar_of(request).make(per_tenant(name, slug), value, seconds=seconds)

    def resend_in(self, now: datetime) -> int:
        """Seconds until a new code may be asked for."""
        return max(0, self.resend_at - int(now.timestamp()))


def question_of(request: AnyRequest, slug: str, *asked: str | None) -> str:
    """What a browser asks a code for, so that asking the same again is known. It tells nothing about an address."""
    key = services(request).ring.current.cookie
    return base64url(keyed_hash(key, "question", slug.encode(), *(repr(part).encode() for part in asked)))


def forget_challenge(request: AnyRequest, slug: str, name: str = SIGN_IN) -> Cookie:
    """Drops what is under way."""
    return jar_of(request).drop(per_tenant(name, slug))


def keep_registration(request: AnyRequest, half: HalfSignIn) -> Cookie:
    """The cookie by which the owner of a proven address may become a member: no page has the token in it."""
    return jar_of(request).make(per_tenant(_REGISTRATION, half.tenant_slug), half.mfa_token, seconds=half.expires_in)


def registration_token(request: AnyRequest, slug: str) -> str | None:
    """The token in that cookie. Believed by nobody but the core."""
    return jar_of(request).read(request, per_tenant(_REGISTRATION, slug))


def forget_registration(request: AnyRequest, slug: str) -> Cookie:
    """Drops it: it works once."""
    return jar_of(request).drop(per_tenant(_REGISTRATION, slug))


def device_token(request: AnyRequest, slug: str) -> str | None:
    """The token by which this tenant knows the browser. Each tenant of a browser has its own."""
    return jar_of(request).read(request, per_tenant(DEVICE, slug))


def remember_device(request: AnyRequest, slug: str, token: str) -> Cookie:
    """The cookie that makes the browser a known device."""
    return jar_of(request).make(per_tenant(DEVICE, slug), token, seconds=int(DEVICE_LIFETIME.total_seconds()))
