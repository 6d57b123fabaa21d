"""The second step of a sign-in on pages, for both portals: a code of the app, a backup code, or first an app to set up.

A cookie keeps the half sign-in between the pages. It opens nothing but these.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from litestar.datastructures import Cookie

from app.auth.factors.service import Holder
from app.auth.signing_in import HalfSignIn, SignIn
from app.errors import CodeExpired, Forbidden, GatehouseError, InvalidCode, InvalidRequest, RateLimited, TooManyAttempts
from app.keys import base64url
from app.web.browser import Answer, Face, jar_of, redirect, visitor
from app.web.problems import refuse
from app.web.sentences import errors_of
from app.web.services import AnyRequest, services

_VALUE: Final = re.compile(r"(totp|enrol)\.([A-Za-z0-9_-]{1,200})\.([A-Za-z0-9_-]*)")
_USING: Final[dict[str, Literal["totp", "backup_code"]]] = {"totp": "totp", "backup_code": "backup_code"}
_REFUSALS: Final = (InvalidRequest, InvalidCode, TooManyAttempts, RateLimited, CodeExpired, Forbidden)

# A finished sign-in, where it wanted to go, and whether an app was set up with it.
Finished: TypeAlias = tuple[SignIn, str | None, bool]


@dataclass(frozen=True, slots=True)
class SecondStep:
    """Where a portal has this step. Two addresses: `address` takes a code, `address`/enrol the first of a new app."""

    face: Face
    cookie: str
    address: str
    template: str
    context: dict[str, object]

    async def begin(
        self, request: AnyRequest, half: HalfSignIn, wanted: str | None, cookies: Sequence[Cookie] = ()
    ) -> Answer:
        """Sends the browser to this step. Raises `CodeExpired` for somebody who belongs to the other portal."""
        if half.subject_kind not in self.face.subjects:
            raise CodeExpired("This link has expired or was used already.")
        factors = services(request).factors
        if half.next == "enrol":
            await factors.enrol(await factors.holder(half.mfa_token))
        value = f"{half.next}.{half.mfa_token}.{base64url((wanted or '').encode())}"
        kept = jar_of(request).make(self.cookie, value, seconds=half.expires_in, same_site=self.face.same_site)
        return redirect(self.address, [kept, *cookies])

    async def show(self, request: AnyRequest) -> Answer | None:
        """The page that asks for it; None when the browser has nothing under way."""
        kept = self._kept(request)
        if kept is None:
            return None
        using = _USING.get(request.query_params.get("using", ""), "totp")
        return await self._page(request, kept, using)

    async def check(self, request: AnyRequest) -> Finished | Answer | None:
        """Takes a code. The page again when it was refused, None as `show`."""
        form = await self.face.form(request, "totp", "backup_code")
        kept = self._kept(request)
        if kept is None:
            return None
        _, token, wanted = kept
        using = _USING["backup_code" if "backup_code" in form else "totp"]
        typed = form.get(using, "")
        try:
            signed_in = await services(request).second_steps.finish(
                token, typed, visitor(request), using=using, kind="browser", subjects=self.face.subjects
            )
        except _REFUSALS as refusal:
            return await self._page(request, kept, using, refusal, typed)
        return signed_in, wanted, False

    async def check_enrolment(self, request: AnyRequest) -> Finished | Answer | None:
        """Takes the first code of an app that somebody had to set up. Otherwise as `check`."""
        form = await self.face.form(request, "code")
        kept = self._kept(request)
        if kept is None:
            return None
        _, token, wanted = kept
        typed = form.get("code", "")
        try:
            signed_in = await services(request).second_steps.enrol_and_finish(
                token, typed, visitor(request), kind="browser", subjects=self.face.subjects
            )
        except _REFUSALS as refusal:
            return await self._page(request, kept, "totp", refusal, typed)
        return signed_in, wanted, True

    def forget(self, request: AnyRequest) -> Cookie:
        """Drops what is under way."""
        return jar_of(request).drop(self.cookie, same_site=self.face.same_site)

    def _kept(self, request: AnyRequest) -> tuple[str, str, str | None] | None:
        """What comes next, the token, and where to go afterwards: only as good as the browser that sent it."""
        found = _VALUE.fullmatch(jar_of(request).read(request, self.cookie) or "")
        if found is None:
            return None
        try:
            wanted = urlsafe_b64decode(found[3] + "=" * (-len(found[3]) % 4)).decode("ascii")
        except ValueError:
            return None
        return found[1], found[2], wanted or None

    async def _page(
        self,
        request: AnyRequest,
        kept: tuple[str, str, str | None],
        using: str,
        refusal: GatehouseError | None = None,
        typed: str = "",
    ) -> Answer:
        step, token, _ = kept
        core = services(request)
        pending = None
        try:
            holder: Holder = await core.factors.holder(token)
            if step == "enrol":
                pending = await core.factors.pending(holder)
        except CodeExpired as gone:
            refusal = refusal if isinstance(refusal, TooManyAttempts) else gone
        if step == "enrol" and pending is None and refusal is None:
            refusal = CodeExpired("This sign-in has expired. Start again.")
        shown: dict[str, Any] = {
            **self.context,
            "address": self.address,
            "step": step,
            "using": using,
            "pending": pending,
            "over": isinstance(refusal, CodeExpired | TooManyAttempts),
            # A wrong code is typed anew; one that only lacks a digit is mended.
            "values": {using: typed, "code": typed} if isinstance(refusal, InvalidRequest) else {},
        }
        if refusal is None:
            return await self.face.page(request, self.template, errors={}, **shown)
        said = refuse(refusal, core.settings)
        errors = errors_of(refusal, "code" if step == "enrol" else using)
        return await self.face.page(
            request, self.template, status=said.status, headers=said.headers, errors=errors, **shown
        )
