"""Whether a form was sent from a page of ours, by the browser that got the page. Pure.

Two proofs, both needed (OWASP CSRF cheat sheet): what the browser itself says about where the request started, and a
token in the form that only the holder of a cookie can have been given.
"""

import hmac
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from app.keys import KeyRing, Keys, base64url, keyed_hash

FIELD: Final = "csrf_token"
HEADER: Final = "x-csrf-token"

_NUMBER_BYTES: Final = 16


def same_origin(headers: Mapping[str, str], public_url: str) -> bool:
    """Whether the browser says that the request started on a page of this origin.

    `Sec-Fetch-Site` can't be set by scripts; "none" (typed, or a bookmark) is no form of ours. Browsers leave it out
    over plain http, where `Origin` must name PUBLIC_URL. Behind either an `Origin` of elsewhere is refused; a developer
    may use 127.0.0.1 for localhost. Neither header is no browser.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    if origin is None:
        return site is not None
    if origin.lower() == public_url.lower():
        return True
    return site is not None and urlsplit(origin).netloc == headers.get("host")


def opened_elsewhere(headers: Mapping[str, str], public_url: str) -> str | None:
    """What to tell a person whose form was opened here under another address than PUBLIC_URL; None for all others.

    Their cookies are PUBLIC_URL's, so a form from anywhere else can't be checked. A form of another site's gets no such
    advice: it names an origin that isn't where it was sent.
    """
    origin = headers.get("origin", "")
    here = headers.get("sec-fetch-site") == "same-origin" or urlsplit(origin).netloc == headers.get("host")
    if not here or origin in {"", "null"} or origin.lower() == public_url.lower():
        return None
    return (
        f"This page was opened at {origin}, and this installation is at {public_url}. Open {public_url} and try again."
    )


def token(keys: Keys, face: str, cookie: str) -> str:
    """A token for the holder of a cookie: the number of one page's forms, and the proof that we gave it.

    Each call makes another number, so a form that is sent twice is told from two forms (`app.web.repeats`). It tells
    nothing about the cookie.
    """
    number = secrets.token_bytes(_NUMBER_BYTES)
    return base64url(number + _mac(keys, face, cookie, number))


def holds(ring: KeyRing, face: str, cookie: str, presented: str) -> bool:
    """Whether the token was made for this cookie, with any key in force."""
    given = presented.encode()
    try:
        number = urlsafe_b64decode(given + b"=" * (-len(given) % 4))[:_NUMBER_BYTES]
    except ValueError:
        return False
    return any(
        hmac.compare_digest(base64url(number + _mac(keys, face, cookie, number)).encode(), given)
        for keys in ring.by_thumbprint.values()
    )


def _mac(keys: Keys, face: str, cookie: str, number: bytes) -> bytes:
    return keyed_hash(keys.cookie, "csrf", face.encode(), cookie.encode(), number)
