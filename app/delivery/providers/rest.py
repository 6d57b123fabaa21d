"""HTTP as the REST providers need it: bounded in time and size, and every way to fail told in our words.

    Rest            posts to one vendor
    Answer          what came back

No redirects are followed (a body with a code in it goes to the configured host or nowhere), and of an answer no more
than 64 KiB are read. Proxies and authorities of one's own are taken from `HTTPS_PROXY` and `SSL_CERT_FILE`, as usual.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import msgspec

from app.delivery.faults import Fault
from app.delivery.message import (
    UNANSWERED,
    Deferral,
    DeliveryError,
    Message,
    PermanentFailure,
    TransientFailure,
    harmless,
)
from app.settings import Settings

# A vendor that needs longer is as good as away; the code is short-lived.
TIMEOUT_SECONDS: Final = 10.0
_MOST_BYTES: Final = 65_536
# As many requests as the dispatcher has sends, so that none waits for a connection.
_CONNECTIONS: Final = 64
_KEEP_SECONDS: Final = 30.0

_OK: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_SERVER_ERRORS: Final = range(500, 600)


_BY_STATUS: Final = {
    401: Fault.CREDENTIALS,
    402: Fault.ACCOUNT,
    403: Fault.CREDENTIALS,
    408: Fault.UNAVAILABLE,
    425: Fault.UNAVAILABLE,
    429: Fault.THROTTLED,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an answer."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the vendor says that all is well."""
        return self.status in _OK

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty when it isn't one."""
        try:
            value = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {}
        return value if isinstance(value, dict) else {}

    def fault(self) -> Fault:
        """What the status alone says of a refusal."""
        if self.status in _SERVER_ERRORS:
            return Fault.UNAVAILABLE
        return _BY_STATUS.get(self.status, Fault.REFUSED)


class Rest:
    """Posts to one vendor below `base_url`, on kept-open connections. Safe to use from many tasks at once."""

    def __init__(
        self,
        vendor: str,
        base_url: str,
        *,
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.vendor = vendor
        self._base_url = base_url
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            auth=auth,
            # Uncompressed, so that what is bounded on the wire is bounded in memory.
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "gatehouse"}
            | dict(headers or {}),
            timeout=timeout,
            verify=_trust(),
            follow_redirects=False,
            limits=httpx.Limits(
                max_connections=_CONNECTIONS,
                max_keepalive_connections=_CONNECTIONS,
                keepalive_expiry=_KEEP_SECONDS,
            ),
        )

    async def form(self, path: str, fields: Mapping[str, str | None]) -> Answer:
        """Posts fields as a form; those that are None are left out. Raises as `post` does."""
        body = urlencode({name: value for name, value in fields.items() if value is not None})
        return await self.post(path, body.encode(), {"Content-Type": "application/x-www-form-urlencoded"})

    async def json(self, path: str, value: object) -> Answer:
        """Posts a value as JSON. Raises as `post` does."""
        return await self.post(path, msgspec.json.encode(value), {"Content-Type": "application/json"})

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Posts a body and reads the answer, whatever its status, but for redirects.

        Raises `TransientFailure`: `unanswered` when the request went out and no whole answer came back (the vendor
        may have taken the message); `timeout`, `unreachable` or `busy` when it never went out. Raises
        `PermanentFailure`: `tls` for a certificate that is not trusted, `protocol` for a redirect.
        """
        try:
            # The client's own timeouts are for each step; this one is for an answer that drips.
            async with asyncio.timeout(2 * self._timeout):
                answer = await self._exchange(path, body, headers)
        except httpx.PoolTimeout:
            raise TransientFailure("busy", f"All connections to {self.vendor} were busy.") from None
        except httpx.ConnectTimeout:
            raise TransientFailure("timeout", f"{self.vendor} did not take the connection in time.") from None
        except (httpx.ConnectError, httpx.ProxyError) as error:
            if _untrusted(error):
                raise PermanentFailure("tls", f"The certificate of {self.vendor} is not trusted.") from error
            raise TransientFailure("unreachable", f"{self.vendor} can't be reached: {error}") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise TransientFailure(UNANSWERED, f"{self.vendor} did not answer: {type(error).__name__}.") from error
        if answer.status in _REDIRECTS:
            sentence = f"{self.vendor} answered with a redirect, which is never followed; check its API URL."
            raise PermanentFailure("protocol", sentence)
        return answer

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()

    async def _exchange(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        url = self._base_url + path
        async with self._client.stream("POST", url, content=body, headers=dict(headers)) as response:
            received = bytearray()
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > _MOST_BYTES:
                    break
        # An answer that was cut off is no JSON, and is told as one that can't be read.
        return Answer(response.status_code, bytes(received[:_MOST_BYTES]))

    def refusal(self, fault: Fault, message: Message, text: object = None) -> DeliveryError:
        """The failure to raise for an answer, in the vendor's words, without the address and the code."""
        words = f"{self.vendor}: {text}" if text else f"{self.vendor} refused the message."
        clean = harmless(words, message.to, digits(message.to), message.code)
        if fault.permanent:
            return PermanentFailure(fault.value, clean)
        # Who stumbled (5xx) may have taken the message before; who says "too many" has not.
        return (Deferral if fault is Fault.THROTTLED else TransientFailure)(fault.value, clean)

    def unreadable(self) -> TransientFailure:
        """The failure for a good status with a body that makes no sense: the vendor may have taken the message."""
        return TransientFailure(UNANSWERED, f"{self.vendor} answered something that can't be read.")


def digits(number: str) -> str:
    """A number in E.164 without its plus, as many vendors want it."""
    return number.removeprefix("+")


def callback_url(settings: Settings, name: str) -> str | None:
    """Where a vendor may report what became of a message; None where it could not reach us safely."""
    base = settings.public_url
    return f"{base}/callbacks/{name}" if base.startswith("https://") else None


def code_of(message: Message, vendor: str) -> str:
    """The code for a vendor's template. Raises `PermanentFailure` for a message without one."""
    if message.code is None:
        raise PermanentFailure(Fault.TEMPLATE.value, f"The {vendor} template is for codes; this message has none.")
    return message.code


@cache
def _trust() -> ssl.SSLContext:
    """Whom we trust; read once, since it takes as long as a request."""
    return httpx.create_ssl_context()


def _untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
