"""What a member agreed to, on pages: the API's `GET /api/v1/auth/consents` and `DELETE …/{id}`."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.auth.sessions import LiveSession
from app.errors import NotFound
from app.storage.db import Row
from app.web.browser import TENANT, Answer, leave, visitor
from app.web.sentences import notice
from app.web.services import AnyRequest, services
from tenant_portal.dashboard import member_session, to_login
from tenant_portal.texts import NOTICES


@get("/t/{slug:str}/consents")
async def overview(request: AnyRequest, slug: FromPath[str]) -> Answer:
    """All of them, the withdrawn ones too."""
    session = await member_session(request, slug)
    if session is None:
        return to_login(request, slug)
    return await _page(request, session, await services(request).own_account.consents(session))


@get("/t/{slug:str}/consents/{consent_id:uuid}/withdraw")
async def ask_withdrawal(request: AnyRequest, slug: FromPath[str], consent_id: FromPath[UUID]) -> Answer:
    """Says what withdrawing does."""
    session = await member_session(request, slug)
    if session is None:
        return to_login(request, slug)
    consents = await services(request).own_account.consents(session)
    asked = next((row for row in consents if row["id"] == consent_id and row["withdrawn_at"] is None), None)
    if asked is None:
        raise NotFound
    return await _page(request, session, consents, asked)


@post("/t/{slug:str}/consents/{consent_id:uuid}/withdraw")
async def withdraw(request: AnyRequest, slug: FromPath[str], consent_id: FromPath[UUID]) -> Answer:
    """Takes it back; that it was given stays known."""
    await TENANT.form(request)
    session = await member_session(request, slug)
    if session is None:
        return to_login(request, slug)
    await services(request).own_account.withdraw_consent(session, consent_id, visitor(request))
    return leave(request, f"/t/{slug}/consents?done=consent-withdrawn")


HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (overview, ask_withdrawal, withdraw)


async def _page(
    request: AnyRequest, session: LiveSession, consents: Sequence[Row], withdrawing: Row | None = None
) -> Answer:
    return await TENANT.page(
        request,
        "tenant/consents.html",
        tenant={"slug": session.tenant_slug, "name": session.tenant_name},
        consents=consents,
        withdrawing=withdrawing,
        notice=notice(request, NOTICES),
    )
