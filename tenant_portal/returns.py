"""Where a browser may be sent after sign-in: to what RETURN_URLS names, or a page of ours (CWE-601). Pure."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

# Pages below /t/{slug}/ that are led back to after a sign-in. None looks like a URL.
RESET: Final = "password"
_EVERYBODYS: Final = frozenset({"factors"})
_MEMBERS: Final = frozenset({RESET, "contacts/email", "contacts/phone", "consents"})
_LONGEST: Final = 1000


def own_page(wanted: str | None, subject_kind: str = "member") -> str | None:
    """The name of such a page if it is one, and one that this kind of person has, else None."""
    theirs = _EVERYBODYS | _MEMBERS if subject_kind == "member" else _EVERYBODYS
    return wanted if wanted in theirs else None


def allowed_return(wanted: str | None, allowed: Iterable[str]) -> str | None:
    """The URL itself if it is one of those allowed or lies below one, else None.

    "Below" is by whole path segments of the same scheme, host and port. Whatever two parsers might read differently
    (control characters, spaces, backslashes, user names, dots as segments) is no URL of a front end of ours.
    """
    if not wanted or len(wanted) > _LONGEST:
        return None
    if not wanted.isascii() or "\\" in wanted or any(character <= " " or character == "\x7f" for character in wanted):
        return None
    try:
        target = urlsplit(wanted)
    except ValueError:
        return None
    if "@" in target.netloc or {".", ".."} & set(unquote(target.path).replace("\\", "/").split("/")):
        return None
    return wanted if any(_covers(urlsplit(url), target) for url in allowed) else None


def _covers(allowed: SplitResult, target: SplitResult) -> bool:
    if (allowed.scheme, allowed.netloc) != (target.scheme, target.netloc):
        return False
    base = allowed.path.rstrip("/")
    return target.path in {allowed.path, base} or target.path.startswith(f"{base}/")
