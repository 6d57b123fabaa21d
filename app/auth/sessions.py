"""Sessions: checked at each call, refreshed, listed, ended. How they begin: `signing_in`. See `sql/sessions.sql`."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from app.audit.log import Client
from app.auth.credentials import unpack_cookie
from app.auth.signing_in import SignIn, SignIns, Subject
from app.auth.standing import seconds_until
from app.auth.tokens import AccessClaims, RefreshToken, read_access, token_hash
from app.errors import InvalidToken, NotFound, RateLimited
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database, Row

_LIVE: Final = "SELECT * FROM fn.live_session($1, $2, $3, $4)"
_REFRESH: Final = f"SELECT * FROM fn.refresh_session({', '.join(f'${n}' for n in range(1, 13))})"
_END: Final = "SELECT fn.end_session($1, $2, $3, $4, $5)"
_LIST: Final = "SELECT * FROM fn.subject_sessions($1, $2, $3, $4)"
_END_SUBJECT: Final = "SELECT fn.end_subject_sessions($1, $2, $3, $4, $5, $6, $7) AS ended"
_DEVICES: Final = "SELECT * FROM fn.subject_devices($1, $2, $3, $4)"
_REVOKE: Final = "SELECT fn.revoke_devices($1, $2, $3, $4, $5, $6) AS revoked"
_END_REASON: Final = "SELECT fn.session_end_reason($1, $2, $3) AS reason"
_EVENTS: Final = "SELECT * FROM fn.subject_events($1, $2, $3, $4, $5)"

# The methods of a session that are a second factor.
SECOND_FACTORS: Final = frozenset({"totp", "backup_code"})
# How long a retried refresh gets the same successor, until that is used itself.
GRACE: Final = timedelta(seconds=30)
# A session's tokens are renewed at most this often: 60 times at once, then one every 10 seconds. Access tokens live for
# minutes, so no honest client comes near it.
REFRESHES: Final = 60
REFRESH_PACE: Final = timedelta(seconds=10)
REFRESH_BURST: Final = REFRESHES * REFRESH_PACE
# A logout elsewhere is noticed within this; the promise is 5 seconds.
_CACHE_SECONDS: Final = 3.0
_CACHE_SIZE: Final = 20_000
_TOO_OFTEN: Final = "These tokens were renewed too often. Wait, and use the newest one."


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session in force, with what `me` and the pages show of it. Contacts are not masked.

    `methods` began it; `totp` and `backup_codes` (those left) are what the person has by now. `due`: the second factor
    that is to be proven (`totp`) or set up (`enrol`) first; such a session opens nothing but the way to do so and out.
    """

    tenant_id: UUID
    session_id: UUID
    kind: str
    subject: Subject
    role: str | None
    email: str | None
    phone_number: str | None
    tenant_slug: str
    tenant_name: str
    methods: Sequence[str]
    totp: bool
    backup_codes: int
    device_name: str | None
    authenticated_at: datetime
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    due: Literal["totp", "enrol"] | None = None
    secret_hash: bytes | None = field(default=None, repr=False)

    @property
    def amr(self) -> Sequence[str]:
        """How the person proved who they are (RFC 8176); `mfa` where a second factor was among it."""
        return [*self.methods, "mfa"] if SECOND_FACTORS & {*self.methods} else self.methods

    def unmet(self, now: datetime, max_age: int | None, factor: str | None) -> Literal["max_age", "factor"] | None:
        """What of a demand this session doesn't meet: a sign-in of the last `max_age` seconds, a value of `amr`."""
        if max_age is not None and now - self.authenticated_at > timedelta(seconds=max_age):
            return "max_age"
        return "factor" if factor is not None and factor not in self.amr else None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a person's own history."""

    id: int
    at: datetime
    action: str
    source: str
    ip: str | None
    user_agent: str | None
    data: dict[str, Any]


class Sessions(SignIns):
    """Begins, checks, refreshes and ends sessions, for every face."""

    def __init__(self, db: Database, ring: KeyRing, settings: Settings, clock: Callable[[], datetime]) -> None:
        super().__init__(db, ring, settings)
        self._clock = clock
        self._cache: OrderedDict[UUID, tuple[datetime, LiveSession]] = OrderedDict()

    async def refresh(self, token: str, client: Client) -> SignIn:
        """A new pair for the newest refresh token of a family.

        A retry within 30 seconds gets the same successor. A token that was rotated away ends its family (RFC 9700
        section 4.14.2), and so does a second factor that is due by now. One round trip. Raises `InvalidToken`,
        `RateLimited`.
        """
        presented = RefreshToken.parse(token)
        keys = self._ring.find(presented.key_id)
        if keys is None:
            raise InvalidToken
        now = self._clock()
        successor = presented.successor(keys)
        tenant_id, session_id = presented.tenant_id, presented.session_id
        row = await self._db.one(
            _REFRESH,
            now,
            tenant_id,
            session_id,
            presented.n,
            presented.hash(),
            successor.hash(),
            GRACE,
            client.as_json(),
            presented.is_ours(keys),
            self.admins_must,
            REFRESH_PACE,
            REFRESH_BURST,
        )
        match row["outcome"]:
            case "rotated" | "retried":
                return self._sign_in(now, row, tenant_id, session_id, successor, row["expires_at"])
            case "limited":
                raise RateLimited(seconds_until(row["retry_at"], now), policy="session-refresh", detail=_TOO_OFTEN)
            case outcome:
                self._cache.pop(session_id, None)
                raise factor_due() if outcome == "due" else InvalidToken

    async def authenticate(self, access_token: str, *, unproven: bool = False) -> LiveSession:
        """The session behind an access token. At most one round trip.

        Raises `InvalidToken`; also for one for which a second factor is due, unless it may be `unproven`.
        """
        claims = self.read(access_token)
        session = await self._live(claims.tenant_id, claims.session_id)
        if session is None or session.subject.id != claims.subject_id:
            raise InvalidToken
        if session.due is not None and not unproven:
            raise factor_due()
        return session

    async def authenticate_cookie(self, cookie: str, *, unproven: bool = False) -> LiveSession | None:
        """The browser session behind a cookie, or None; `unproven` as above. At most one round trip."""
        packed = unpack_cookie(cookie)
        if packed is None:
            return None
        session = await self._live(*packed)
        if session is None or session.secret_hash is None or (session.due is not None and not unproven):
            return None
        return session if secrets.compare_digest(session.secret_hash, token_hash(cookie)) else None

    async def end_reason(self, cookie: str) -> str:
        """Why the session of a cookie is over; `unknown` where nobody noted it, or it is none of ours."""
        packed = unpack_cookie(cookie)
        row = await self._db.row(_END_REASON, *packed, token_hash(cookie)) if packed is not None else None
        return (row["reason"] if row else None) or "unknown"

    def read(self, access_token: str) -> AccessClaims:
        """The claims of an access token, without asking whether its session still lives. Raises `InvalidToken`."""
        return read_access(
            self._ring,
            access_token,
            self._clock(),
            issuer=self._settings.jwt_issuer,
            audience=self._settings.jwt_audience,
        )

    async def _live(self, tenant_id: UUID, session_id: UUID) -> LiveSession | None:
        now = self._clock()
        cached = self._cache.get(session_id)
        if cached is not None:
            checked_at, session = cached
            fresh = timedelta(0) <= now - checked_at <= timedelta(seconds=_CACHE_SECONDS)
            if fresh and session.tenant_id == tenant_id and session.expires_at > now:
                return session
            del self._cache[session_id]
        row = await self._db.row(_LIVE, now, tenant_id, session_id, self.admins_must)
        if row is None:
            return None
        session = LiveSession(
            tenant_id=tenant_id,
            session_id=session_id,
            kind=row["kind"],
            subject=Subject(row["subject_kind"], row["subject_id"], row["subject_name"]),
            role=row["subject_role"],
            email=row["email"],
            phone_number=row["phone_number"],
            tenant_slug=row["tenant_slug"],
            tenant_name=row["tenant_name"],
            methods=row["methods"],
            totp=row["totp"],
            backup_codes=row["backup_codes"],
            device_name=row["device_name"],
            authenticated_at=row["authenticated_at"],
            created_at=row["created_at"],
            seen_at=row["seen_at"],
            expires_at=row["expires_at"],
            due=row["due"],
            secret_hash=row["secret_hash"],
        )
        if session.subject.kind == "admin":
            # Few, and they may do much: whatever is taken from them is gone at once, in every process.
            return session
        self._cache[session_id] = (now, session)
        if len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)
        return session

    async def logout(self, session: LiveSession, client: Client) -> None:
        """Ends a session at once; its access token with it (elsewhere within the cache's 3 seconds)."""
        self._cache.pop(session.session_id, None)
        await self._db.run(_END, self._clock(), session.tenant_id, session.session_id, "signed-out", client.as_json())

    async def list(self, session: LiveSession) -> Sequence[Row]:
        """All sessions of the same person, newest first."""
        return await self._db.rows(_LIST, self._clock(), session.tenant_id, session.subject.kind, session.subject.id)

    async def end(self, session: LiveSession, session_id: UUID, client: Client) -> None:
        """Ends one session of the same person. Raises `NotFound` for any other."""
        if not await self._end(session, client, only=session_id):
            raise NotFound("This session has already ended, or it isn't yours.")

    async def end_others(self, session: LiveSession, client: Client) -> int:
        """Ends all other sessions of the same person; how many there were."""
        return len(await self._end(session, client, keep=session.session_id))

    async def _end(
        self, session: LiveSession, client: Client, *, only: UUID | None = None, keep: UUID | None = None
    ) -> Sequence[UUID]:
        row = await self._db.row(
            _END_SUBJECT,
            self._clock(),
            session.tenant_id,
            session.subject.kind,
            session.subject.id,
            only,
            keep,
            client.as_json(),
        )
        ended: Sequence[UUID] = row["ended"] if row is not None else []
        for session_id in ended:
            self._cache.pop(session_id, None)
        return ended

    async def devices(self, session: LiveSession) -> Sequence[Row]:
        """The person's known devices, last used first; `remembered_until` where one may stand for a code, else None."""
        return await self._db.rows(_DEVICES, self._clock(), session.tenant_id, session.subject.kind, session.subject.id)

    async def revoke_device(self, session: LiveSession, device_id: UUID) -> None:
        """Makes a known device a stranger again. Raises `NotFound` for any that isn't the person's."""
        if not await self._revoke(session, device_id):
            raise NotFound("This device is not known, or it isn't yours.")

    async def revoke_devices(self, session: LiveSession) -> int:
        """Makes all of the person's known devices strangers again; how many there were."""
        return await self._revoke(session, None)

    async def _revoke(self, session: LiveSession, only: UUID | None) -> int:
        subject = session.subject
        row = await self._db.row(
            _REVOKE, self._clock(), session.tenant_id, subject.kind, subject.id, only, "revoked-by-user"
        )
        return int(row["revoked"]) if row else 0

    async def events(
        self, session: LiveSession, *, before: tuple[datetime, int] | None = None, limit: int = 50
    ) -> Sequence[Event]:
        """The person's own sign-in history, newest first; `before` is the last (time, id) of the page before."""
        at, event_id = before or (None, None)
        rows = await self._db.rows(_EVENTS, session.tenant_id, session.subject.id, at, event_id, limit)
        return [
            Event(row["id"], row["at"], row["action"], row["source"], row["ip"], row["user_agent"], row["data"])
            for row in rows
        ]

    async def introspect(self, token: str, caller_tenant: UUID | None) -> tuple[AccessClaims, LiveSession] | None:
        """The claims of an access token whose session lives, and the session; or None (RFC 7662 section 2.2).

        `caller_tenant` confines a caller to one tenant's tokens; None may ask about all.
        """
        try:
            claims = self.read(token)
        except InvalidToken:
            return None
        if caller_tenant is not None and claims.tenant_id != caller_tenant:
            return None
        session = await self._live(claims.tenant_id, claims.session_id)
        return (claims, session) if session is not None and session.due is None else None

    def forget(self, session: LiveSession) -> None:
        """Has this process read the session anew, because what it shows has changed."""
        self._cache.pop(session.session_id, None)


def factor_due() -> InvalidToken:
    """The session goes on once a second factor is proven or set up; signing in again asks for it."""
    return InvalidToken("A second factor is asked for here now. Sign in again.")
