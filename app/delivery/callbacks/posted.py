"""What every provider's callback has in common. Pure."""

import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qsl

import msgspec

from app.delivery.faults import Fault
from app.errors import Forbidden, InvalidRequest

# A signed time further away than this is somebody's recording, or a clock that needs setting.
TOLERANCE: Final = timedelta(seconds=300)
# Of what has to be read before it is known who sent it.
_LONGEST_UNPROVEN: Final = 64 * 1024
_MOST_FIELDS: Final = 100


@dataclass(frozen=True, slots=True)
class Posted:
    """A call as it came. Names of `headers` are lower case; `query` is the raw query string."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: str = field(default="", repr=False)

    def form(self) -> list[tuple[str, str]]:
        """The body as a form. Raises `InvalidRequest`, also for one that would take long: it may not be signed yet."""
        if len(self.body) > _LONGEST_UNPROVEN:
            raise InvalidRequest(detail="The form is larger than 64 KiB.")
        try:
            return parse_qsl(self.body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise InvalidRequest(detail="The body is not a form.") from None

    def json(self) -> Any:
        """The body as JSON, of a call that is proven. Raises `InvalidRequest`."""
        return read_json(self.body)

    def unproven_json(self) -> Any:
        """The body as JSON, where its own members prove who sent it. Raises `InvalidRequest`, also for a long one."""
        if len(self.body) > _LONGEST_UNPROVEN:
            raise InvalidRequest(detail="The body is larger than 64 KiB.")
        return read_json(self.body)

    @property
    def is_form(self) -> bool:
        """Whether the body says it is a form."""
        return self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the message that a provider calls `message_id`; if it failed, `fault` and `text` say why."""

    message_id: str
    state: Literal["delivered", "failed"]
    fault: Fault | None = None
    text: str = ""


class Reader(Protocol):
    """Understands one provider's callbacks."""

    async def read(self, posted: Posted, now: datetime) -> Sequence[Report]:
        """The reports of a call; states on the way are left out.

        Raises `Forbidden` unless the provider made the call, within the tolerance; `InvalidRequest` for one that can't
        be read.
        """
        ...


def read_json(text: str | bytes) -> Any:
    """Raises `InvalidRequest` for anything else."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(detail="The body is not JSON.") from None


def refuse() -> Forbidden:
    """The one answer to whoever isn't the provider."""
    return Forbidden("The callback is not signed as it should be.")


def same(given: str, right: str) -> bool:
    """Compares secrets in constant time."""
    return hmac.compare_digest(given.encode(errors="replace"), right.encode())


def require_recent(moment: datetime, now: datetime) -> None:
    """Raises `Forbidden` for a signed time outside the tolerance."""
    if abs(now - moment) > TOLERANCE:
        raise refuse()


def require_token(posted: Posted, token: str) -> None:
    """For providers that sign nothing: a secret of ours, as they were given it with the callback's URL.

    As a Bearer token, as the password in front of the host, or as `?token=`. Raises `Forbidden`.
    """
    scheme, _, value = posted.headers.get("authorization", "").partition(" ")
    given = [text for name, text in parse_qsl(posted.query) if name == "token"]
    if scheme.lower() == "bearer":
        given.append(value.strip())
    elif scheme.lower() == "basic":
        try:
            given.append(b64decode(value, validate=True).decode().partition(":")[2])
        except (Base64Error, UnicodeDecodeError):
            raise refuse() from None
    if not any(same(one, token) for one in given):
        raise refuse()
