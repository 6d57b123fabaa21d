"""The page on which somebody signed in looks after their second factor, for both portals."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler

from app.auth.factors.service import Enrolment, Holder
from app.auth.sessions import LiveSession
from app.errors import Forbidden, GatehouseError, InvalidRequest, NotFound
from app.web.browser import Answer, Face, redirect, visitor
from app.web.problems import refuse
from app.web.sentences import errors_of, notice
from app.web.services import AnyRequest, services

_REFUSALS: Final = (InvalidRequest, Forbidden, NotFound)
_NOTICES: Final = {
    "enrolled": "The app is set up. From now on every sign-in asks for its code.",
    "removed": "The app and the backup codes are removed. Signing in takes no second factor any more.",
}


@dataclass(frozen=True, slots=True)
class FactorPages:
    """The pages below `base` for one session; `context` is what the portal's template needs besides."""

    face: Face
    base: str
    template: str
    session: LiveSession
    context: dict[str, object]

    async def show(self, request: AnyRequest) -> Answer:
        """What there is, and the app that is being set up, if one is."""
        pending = await services(request).factors.pending(Holder.of(self.session))
        return await self._page(request, pending=pending)

    async def enrol(self, request: AnyRequest) -> Answer:
        """Begins to set an app up."""
        await self.face.form(request)
        try:
            await services(request).factors.enrol(Holder.of(self.session))
        except _REFUSALS as refusal:
            return await self._page(request, refusal)
        return redirect(f"{self.base}#app")

    async def confirm(self, request: AnyRequest) -> Answer:
        """Puts it in force."""
        form = await self.face.form(request, "code")
        factors, typed = services(request).factors, form.get("code", "")
        try:
            await factors.confirm(self.session, typed, visitor(request))
        except _REFUSALS as refusal:
            pending = await factors.pending(Holder.of(self.session))
            return await self._page(request, refusal, pending=pending, values={"code": typed})
        return redirect(f"{self.base}?done=enrolled")

    async def ask_removal(self, request: AnyRequest) -> Answer:
        """Says what removing does."""
        return await self._page(request, removing=True)

    async def remove(self, request: AnyRequest) -> Answer:
        """Takes app and backup codes away."""
        await self.face.form(request)
        try:
            await services(request).factors.remove(self.session, visitor(request))
        except _REFUSALS as refusal:
            return await self._page(request, refusal)
        return redirect(f"{self.base}?done=removed")

    async def backup_codes(self, request: AnyRequest) -> Answer:
        """Makes new ones and shows them, this once."""
        await self.face.form(request)
        try:
            codes = await services(request).factors.new_backup_codes(self.session, visitor(request))
        except _REFUSALS as refusal:
            return await self._page(request, refusal)
        return await self._page(request, codes=codes)

    async def _page(
        self,
        request: AnyRequest,
        refusal: GatehouseError | None = None,
        *,
        pending: Enrolment | None = None,
        **shown: Any,
    ) -> Answer:
        core = services(request)
        said = refuse(refusal, core.settings) if refusal else None
        return await self.face.page(
            request,
            self.template,
            status=said.status if said else 200,
            **{
                "base": self.base,
                "factors": await core.factors.of(self.session),
                "pending": pending,
                "removing": False,
                "codes": None,
                "values": {},
                "errors": errors_of(refusal) if refusal else {},
                "notice": notice(request, _NOTICES),
                **self.context,
                **shown,
            },
        )


_DOES: Final = (
    (get, "", FactorPages.show),
    (post, "/totp", FactorPages.enrol),
    (post, "/totp/confirm", FactorPages.confirm),
    (get, "/totp/remove", FactorPages.ask_removal),
    (post, "/totp/remove", FactorPages.remove),
    (post, "/backup-codes", FactorPages.backup_codes),
)


def factor_handlers(
    path: str, pages: Callable[[AnyRequest], Awaitable[FactorPages | Answer]], opt: dict[str, Any] | None = None
) -> tuple[HTTPRouteHandler, ...]:
    """A portal's handlers below `path`. `pages` finds whose they are, or answers where else to go."""

    def handler(method: Any, below: str, act: Callable[[FactorPages, AnyRequest], Awaitable[Answer]]) -> Any:
        async def handle(request: AnyRequest) -> Answer:
            found = await pages(request)
            return await act(found, request) if isinstance(found, FactorPages) else found

        return method(path + below, opt=opt)(handle)

    return tuple(handler(*each) for each in _DOES)
