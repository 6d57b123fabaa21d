"""Being signed in: who, where else, what happened; renewing and ending it; and what other services ask."""

from typing import Annotated, Final
from uuid import UUID

from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from app.errors import InvalidRequest, InvalidToken, NotFound, RateLimited, Unavailable
from app.masking import mask_email, mask_phone
from app.web.caller import client_of, require_api_key, require_session
from app.web.docs import refusals
from app.web.services import AnyRequest, services
from tenant_portal.cursors import read_cursor, show_cursor
from tenant_portal.payloads import (
    Contacts,
    CurrentSession,
    EventItem,
    EventPage,
    Introspection,
    IntrospectRequest,
    KeySet,
    Me,
    RefreshRequest,
    SecondFactor,
    SessionItem,
    SessionList,
    SubjectName,
    TenantName,
    Tokens,
)

_MOST_EVENTS: Final = 100
_JWKS_AGE: Final = 300
_SIGNED_IN: Final[list[dict[str, list[str]]]] = [{"accessToken": []}]


@post(
    "/refresh",
    status_code=200,
    summary="Renew the tokens",
    responses=refusals(InvalidRequest, InvalidToken, RateLimited, Unavailable),
)
async def refresh(request: AnyRequest, data: JSONBody[RefreshRequest]) -> Tokens:
    """Rotates the refresh token. Using one that was rotated away ends the session.

    Where a second factor has become due since the sign-in (it was set up elsewhere, or is required by now), the session
    ends: 401, and the next sign-in asks for it.
    """
    return Tokens.of(await services(request).sessions.refresh(data.refresh_token, client_of(request)))


@post(
    "/logout",
    status_code=204,
    summary="Sign out",
    security=_SIGNED_IN,
    responses=refusals(InvalidToken, Unavailable),
)
async def logout(request: AnyRequest) -> None:
    """Ends this session; its access token ends with it."""
    session = await require_session(request, unproven=True)
    await services(request).sessions.logout(session, client_of(request))


@get("/me", summary="Who is signed in", security=_SIGNED_IN, responses=refusals(InvalidToken, Unavailable))
async def me(request: AnyRequest) -> Me:
    """The person, the tenant, and the session of the call. Contacts are masked."""
    session = await require_session(request)
    return Me(
        TenantName(session.tenant_slug, session.tenant_name),
        SubjectName(session.subject.kind, session.subject.id, session.subject.name),
        Contacts(
            mask_email(session.email) if session.email else None,
            mask_phone(session.phone_number) if session.phone_number else None,
        ),
        list(session.methods),
        SecondFactor(session.totp, session.backup_codes),
        CurrentSession(
            session.session_id,
            session.device_name,
            session.authenticated_at,
            session.created_at,
            session.expires_at,
        ),
    )


@get("/sessions", summary="All own sessions", security=_SIGNED_IN, responses=refusals(InvalidToken, Unavailable))
async def sessions(request: AnyRequest) -> SessionList:
    """Where this person is signed in, newest first."""
    session = await require_session(request)
    rows = await services(request).sessions.list(session)
    return SessionList([SessionItem(**row, current=row["id"] == session.session_id) for row in rows])


@delete(
    "/sessions/{session_id:str}",
    summary="End one session",
    security=_SIGNED_IN,
    responses=refusals(InvalidRequest, InvalidToken, NotFound, Unavailable),
)
async def end_session(request: AnyRequest, session_id: FromPath[UUID]) -> None:
    """Ends a session of the same person. Somebody else's isn't there."""
    session = await require_session(request)
    await services(request).sessions.end(session, session_id, client_of(request))


@delete(
    "/sessions",
    summary="End all other sessions",
    security=_SIGNED_IN,
    responses=refusals(InvalidToken, Unavailable),
)
async def end_other_sessions(request: AnyRequest) -> None:
    """Leaves only the session of the call."""
    session = await require_session(request)
    await services(request).sessions.end_others(session, client_of(request))


@get(
    "/events",
    summary="Own sign-in history",
    security=_SIGNED_IN,
    responses=refusals(InvalidRequest, InvalidToken, Unavailable),
)
async def events(
    request: AnyRequest,
    cursor: Annotated[str | None, QueryParameter(description="`next` of the page before.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=_MOST_EVENTS, description="Events a page.")] = 50,
) -> EventPage:
    """Newest first, in pages."""
    session = await require_session(request)
    before = read_cursor(cursor) if cursor is not None else None
    # One more than asked for tells whether there is another page.
    found = await services(request).sessions.events(session, before=before, limit=limit + 1)
    page = [EventItem(e.at, e.action, e.source, e.ip, e.user_agent, e.data) for e in found[:limit]]
    return EventPage(page, show_cursor(found[limit - 1]) if len(found) > limit else None)


@post(
    "/introspect",
    status_code=200,
    summary="Ask whether an access token is in force",
    security=[{"apiKey": []}],
    responses=refusals(InvalidRequest, InvalidToken, RateLimited, Unavailable),
    opt={"form": True},
)
async def introspect(request: AnyRequest, data: JSONBody[IntrospectRequest]) -> Introspection:
    """RFC 7662. Takes a form, as the RFC has it, or JSON. Knows of a sign-out, which the token itself can't show.

    Before a sensitive operation ask with `max_age` or `factor`: a token that doesn't meet them is not active, and
    `reason` says which it was.
    """
    await require_api_key(request, "introspect")
    core = services(request)
    found = await core.sessions.introspect(data.token, None)
    if found is None:
        return Introspection(active=False)
    claims, session = found
    unmet = session.unmet(core.clock(), data.max_age, data.factor)
    if unmet is not None:
        return Introspection(active=False, reason=unmet)
    return Introspection(
        active=True,
        token_type="Bearer",  # noqa: S106 - the name of a scheme
        iss=core.settings.jwt_issuer,
        aud=core.settings.jwt_audience,
        sub=str(claims.subject_id),
        tid=str(claims.tenant_id),
        slug=claims.slug,
        sid=str(claims.session_id),
        iat=claims.issued_at,
        nbf=claims.issued_at,
        exp=claims.expires_at,
        jti=claims.token_id,
        auth_time=int(session.authenticated_at.timestamp()),
        amr=list(session.amr),
    )


@get("/.well-known/jwks.json", summary="Public keys of access tokens", tags=["For services"])
async def jwks(request: AnyRequest) -> Response[KeySet]:
    """One key for each secret in force; `kid` is its RFC 7638 thumbprint."""
    keys = KeySet(services(request).ring.jwks()["keys"])
    # A new key is published before it signs, so whoever verifies has this long to notice.
    return Response(keys, headers={"Cache-Control": f"public, max-age={_JWKS_AGE}"})


ROUTES: Final = (
    Router(
        "/api/v1/auth",
        route_handlers=[refresh, logout, me, sessions, end_session, end_other_sessions, events],
        tags=["Signed in"],
    ),
    Router("/api/v1/auth", route_handlers=[introspect], tags=["For services"]),
    jwks,
)
