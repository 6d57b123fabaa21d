"""The names and attributes of our cookies, in one place."""

import hashlib
from typing import Final, Literal

from litestar.datastructures import Cookie

from app.settings import Settings
from app.web.services import AnyRequest

SameSite = Literal["lax", "strict"]

# By which a tenant knows a browser (`per_tenant`).
DEVICE: Final = "device"

_LONGEST: Final = 2048


class Jar:
    """`__Host-` binds a cookie to this very host over TLS: no neighbour of the domain can set one for us.

    Browsers keep such cookies from plain http, so outside production, where PUBLIC_URL may be http://localhost or a
    name in a network of one's own, they have a plain name there.
    """

    def __init__(self, settings: Settings) -> None:
        self._secure = settings.production or not settings.public_url.startswith("http://")

    def name(self, cookie: str) -> str:
        """The full name of a cookie."""
        return f"__Host-gh_{cookie}" if self._secure else f"gh_{cookie}"

    def read(self, request: AnyRequest, cookie: str) -> str | None:
        """What the browser sent under this name; nothing that we could not have set."""
        value = request.cookies.get(self.name(cookie))
        return value if value and value.isascii() and len(value) <= _LONGEST else None

    def all_sent(self, request: AnyRequest, prefix: str) -> list[str]:
        """The names, without our own prefix, of all cookies of the browser that begin so; oldest first in browsers."""
        begin = self.name("")
        return [name.removeprefix(begin) for name in request.cookies if name.startswith(begin + prefix)]

    def sent(self, request: AnyRequest, cookie: str) -> bool:
        """Whether the browser sent anything under this name."""
        return self.name(cookie) in request.cookies

    def make(self, cookie: str, value: str, *, seconds: int | None = None, same_site: SameSite = "lax") -> Cookie:
        """A cookie for an answer; without `seconds` it ends with the browser."""
        return Cookie(
            key=self.name(cookie),
            value=value,
            path="/",
            max_age=seconds,
            secure=self._secure,
            httponly=True,
            samesite=same_site,
        )

    def drop(self, cookie: str, *, same_site: SameSite = "lax") -> Cookie:
        """Takes a cookie away. Browsers want the attributes it was set with."""
        return self.make(cookie, "", seconds=0, same_site=same_site)


def per_tenant(cookie: str, slug: str) -> str:
    """The name of a cookie that a browser may have one of for each tenant; any slug makes a name of one length."""
    return f"{cookie}_{hashlib.sha256(slug.encode()).hexdigest()[:12]}"
