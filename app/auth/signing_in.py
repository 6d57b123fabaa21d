"""Signing in: from a proven first factor to a session, or to the half of a sign-in that a second one completes.

Every way in ends in `fn.begin_session`; see `sql/sessions.sql`.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self, TypeAlias
from uuid import UUID

from app.audit.log import Client
from app.auth.credentials import MfaToken, SessionKind, new_cookie
from app.auth.devices import LIFETIME as DEVICE_LIFETIME
from app.auth.devices import device_token, new_device_id
from app.auth.passwords import password_wanted
from app.auth.tokens import RefreshToken, sign_access, token_hash
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database, Row

_COMPLETE: Final = """
SELECT fn.complete_sign_in($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) AS outcome"""
_USE_LINK: Final = "SELECT * FROM fn.use_sign_in_link($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"

# Long enough to install an authenticator app.
HALF_LIFE: Final = timedelta(minutes=10)
# To tell a name and agree to a text; `fn.complete_registration` says so too.
PROVEN_FOR: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is signed in."""

    kind: str
    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class SignIn:
    """A fresh sign-in, or its refreshed tokens. Browser sessions carry `cookie` and no tokens."""

    tenant_id: UUID
    tenant_slug: str
    tenant_name: str
    subject: Subject
    session_id: UUID
    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    expires_in: int = 0
    refresh_expires_in: int = 0
    cookie: str | None = field(default=None, repr=False)
    device_token: str | None = field(default=None, repr=False)


NextStep: TypeAlias = Literal["totp", "enrol", "register"]
_NEXT_STEPS: Final[dict[str, NextStep]] = {"totp": "totp", "enrol": "enrol", "register": "register"}


@dataclass(frozen=True, slots=True)
class HalfSignIn:
    """The first factor is proven, a session has not begun. `mfa_token` opens the second half and nothing else.

    `next` is what comes: a code of the authenticator app (or a backup code), or the app has to be set up first. Or
    `register`: nobody here has this address yet, it is proven, and whoever has the token may become a member.
    """

    next: NextStep
    mfa_token: str = field(repr=False)
    expires_in: int
    tenant_slug: str
    subject_kind: str


# Whoever begins a sign-in has to say what becomes of either.
Outcome: TypeAlias = SignIn | HalfSignIn


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a session that is about to begin will be known by. Only hashes of it are stored."""

    tenant_id: UUID
    session_id: UUID
    kind: SessionKind
    refresh: RefreshToken | None
    cookie: str | None
    device_id: UUID
    half: MfaToken

    @classmethod
    def new(
        cls, ring: KeyRing, now: datetime, tenant_id: UUID, kind: SessionKind, device_id: UUID | None = None
    ) -> Self:
        """All of it new and random; a device that is known already keeps its id."""
        session_id = UUID(bytes=secrets.token_bytes(16))
        return cls(
            tenant_id,
            session_id,
            kind,
            RefreshToken.first(ring.current, tenant_id, session_id) if kind == "api" else None,
            new_cookie(tenant_id, session_id) if kind == "browser" else None,
            device_id or new_device_id(now),
            MfaToken.new(tenant_id, session_id),
        )

    @property
    def cookie_hash(self) -> bytes | None:
        """What is stored of a browser's."""
        return token_hash(self.cookie) if self.cookie else None

    @property
    def refresh_hash(self) -> bytes | None:
        """What is stored of an API client's."""
        return self.refresh.hash() if self.refresh else None


class SignIns:
    """Begins sessions, whatever proved who somebody is."""

    def __init__(self, db: Database, ring: KeyRing, settings: Settings) -> None:
        self._db = db
        self._ring = ring
        self._settings = settings

    async def begin(
        self,
        now: datetime,
        counted: Row,
        *,
        challenge_id: UUID,
        kind: SessionKind,
        device_name: str | None,
        client: Client,
        remember: bool = False,
    ) -> Outcome | None:
        """Uses a proven challenge up and begins its session; None when another call was first.

        `counted` is the row of `fn.count_attempt`. With `remember` the device may stand for the code next time, where
        the policy lets it, once the sign-in is complete: behind a half sign-in that is the second step. One round trip.
        """
        known: UUID | None = counted["device_id"]
        fresh = Fresh.new(self._ring, now, counted["tenant"], kind, known)
        row = await self._db.row(
            _COMPLETE,
            now,
            fresh.tenant_id,
            challenge_id,
            counted["generation"],
            fresh.session_id,
            kind,
            fresh.cookie_hash,
            fresh.refresh_hash,
            self._settings.jwt_refresh_ttl_seconds,
            device_name,
            client.as_json(),
            None if known else fresh.device_id,
            DEVICE_LIFETIME,
            fresh.half.hash(),
            HALF_LIFE,
            self.admins_must,
            remember,
        )
        return self.outcome(now, row["outcome"] if row else "refused", counted, fresh)

    async def begin_by_link(
        self, now: datetime, tenant_id: UUID, link_id: UUID, secret_hash: bytes, client: Client
    ) -> Outcome | None:
        """Uses a sign-in link up and begins a browser session; None when the link is used, over or unknown."""
        fresh = Fresh.new(self._ring, now, tenant_id, "browser")
        row = await self._db.row(
            _USE_LINK,
            now,
            tenant_id,
            link_id,
            secret_hash,
            fresh.session_id,
            fresh.kind,
            fresh.cookie_hash,
            self._settings.jwt_refresh_ttl_seconds,
            client.as_json(),
            fresh.device_id,
            DEVICE_LIFETIME,
            fresh.half.hash(),
            HALF_LIFE,
            self.admins_must,
        )
        return self.outcome(now, row["outcome"], row, fresh) if row else None

    async def begin_otherwise(
        self, sql: str, now: datetime, proof: Sequence[object], tenant_id: UUID, kind: SessionKind, client: Client
    ) -> Outcome | None:
        """Begins a session by a statement that judges the `proof` itself; None when it refuses. One round trip.

        Raises `InvalidRequest` where a password is missing among it.
        """
        fresh = Fresh.new(self._ring, now, tenant_id, kind)
        row = await self._db.row(
            sql,
            now,
            *proof,
            fresh.session_id,
            kind,
            fresh.cookie_hash,
            fresh.refresh_hash,
            self._settings.jwt_refresh_ttl_seconds,
            client.as_json(),
            fresh.device_id,
            DEVICE_LIFETIME,
            fresh.half.hash(),
            HALF_LIFE,
            self.admins_must,
        )
        if row is None:
            return None
        if row["outcome"] == "password-wanted":
            raise password_wanted()
        known = replace(fresh, device_id=row["device_id"] or fresh.device_id)
        return self.outcome(now, row["outcome"], row, known)

    @property
    def admins_must(self) -> bool:
        """Whether owners and managers among the admins need a second factor: in production."""
        return self._settings.production

    def outcome(self, now: datetime, outcome: str, row: Row, fresh: Fresh) -> Outcome | None:
        """What `fn.begin_session` answered, for a person that `row` names."""
        if (step := _NEXT_STEPS.get(outcome)) is not None:
            left = int((PROVEN_FOR if step == "register" else HALF_LIFE).total_seconds())
            return HalfSignIn(step, fresh.half.text(), left, row["slug"], row["subject_kind"])
        if outcome != "signed-in":
            return None
        expires_at = now + timedelta(seconds=self._settings.jwt_refresh_ttl_seconds)
        device = device_token(self._ring.current, row["slug"], fresh.tenant_id, fresh.device_id)
        return self._sign_in(
            now, row, fresh.tenant_id, fresh.session_id, fresh.refresh, expires_at, fresh.cookie, device
        )

    def _sign_in(
        self,
        now: datetime,
        row: Row,
        tenant_id: UUID,
        session_id: UUID,
        refresh: RefreshToken | None,
        expires_at: datetime,
        cookie: str | None = None,
        device: str | None = None,
    ) -> SignIn:
        left = int((expires_at - now).total_seconds())
        ttl = min(self._settings.jwt_access_ttl_seconds, left)
        access = None
        if refresh is not None:
            access = sign_access(
                self._ring.current,
                now,
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                ttl=ttl,
                tenant_id=tenant_id,
                slug=row["slug"],
                subject_id=row["subject"],
                session_id=session_id,
            )
        return SignIn(
            tenant_id=tenant_id,
            tenant_slug=row["slug"],
            tenant_name=row["name"],
            subject=Subject(row["subject_kind"], row["subject"], row["subject_name"]),
            session_id=session_id,
            access_token=access,
            refresh_token=refresh.text() if refresh else None,
            expires_in=ttl,
            refresh_expires_in=left,
            cookie=cookie,
            device_token=device,
        )
