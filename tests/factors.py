"""People with a phone: an authenticator app as a test holds it, and the door that asks for its codes."""

from base64 import b32decode
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from app.audit.log import Client
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.credentials import SessionKind
from app.auth.factors import totp
from app.auth.factors.second_steps import SecondSteps
from app.auth.factors.service import Enrolment, Factors, Holder
from app.auth.links import Links
from app.auth.sessions import LiveSession, Sessions
from app.auth.signing_in import HalfSignIn, Outcome, SignIn
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.people import SomeTenant, add_tenant, current_code, whole

OWNER = Client("api", "203.0.113.9", "owner", "r")
TENANTS = frozenset({"tenant", "member"})


@dataclass(frozen=True, slots=True)
class App:
    """An authenticator app with one account."""

    secret: bytes
    clock: Clock

    @classmethod
    def scan(cls, enrolment: Enrolment | str, clock: Clock) -> "App":
        """Sets it up from what is shown: the enrolment, or its secret in Base32."""
        return cls(b32decode(enrolment if isinstance(enrolment, str) else enrolment.secret), clock)

    def code(self, steps: int = 0) -> str:
        """What it shows, so many half minutes from now."""
        return totp.code_at(self.secret, totp.step_at(self.clock()) + steps)

    def next(self) -> str:
        """What it shows half a minute later, when the code before was used."""
        self.clock.forward(seconds=totp.SECONDS)
        return self.code()

    def wrong(self) -> str:
        """Six digits that it shows neither now, nor just before, nor next."""
        shown = {self.code(steps) for steps in (-1, 0, 1)}
        return next(code for code in (f"{n:06}" for n in range(4)) if code not in shown)


@dataclass(frozen=True, slots=True)
class Person:
    """A tenant's person: where they sign in, their app, and the session that they set it up in."""

    tenant: SomeTenant
    realm: Realm
    app: App
    session: LiveSession


class Door:
    """The core as both faces call it."""

    def __init__(
        self,
        db: Database,
        ring: KeyRing,
        settings: Settings,
        clock: Clock,
        challenges: Challenges,
        sessions: Sessions,
    ) -> None:
        self.db, self.ring, self.clock, self.challenges, self.sessions = db, ring, clock, challenges, sessions
        self.woken: list[None] = []
        self.factors = Factors(db, ring, settings, sessions, clock, lambda: self.woken.append(None))
        self.second_steps = SecondSteps(db, ring, settings, sessions, clock, lambda: self.woken.append(None))
        self.links = Links(db, sessions, clock)

    async def by_code(self, realm: Realm, *, kind: SessionKind = "api", identifier: str | None = None) -> Outcome:
        """Asks for a code and enters it."""
        issued = await self.challenges.request(realm, OWNER, identifier=identifier)
        code = await current_code(self.db, self.ring, issued.challenge_id)
        return await self.challenges.verify(realm, issued.challenge_id, code, OWNER, kind=kind)

    async def half(self, realm: Realm, *, kind: SessionKind = "api") -> HalfSignIn:
        """A sign-in that stops before the second factor."""
        outcome = await self.by_code(realm, kind=kind)
        assert isinstance(outcome, HalfSignIn), outcome
        return outcome

    async def finish(
        self,
        half: HalfSignIn,
        code: str,
        using: Literal["totp", "backup_code"] = "totp",
        *,
        kind: SessionKind = "api",
    ) -> SignIn:
        """The second step."""
        return await self.second_steps.finish(half.mfa_token, code, OWNER, using=using, kind=kind, subjects=TENANTS)

    async def enrol_and_finish(self, half: HalfSignIn, code: str) -> SignIn:
        """The second step of who had to set an app up."""
        return await self.second_steps.enrol_and_finish(half.mfa_token, code, OWNER, kind="api", subjects=TENANTS)

    async def live(self, signed_in: SignIn) -> LiveSession:
        """The session of an API sign-in."""
        assert signed_in.access_token
        return await self.sessions.authenticate(signed_in.access_token)

    async def enrolled(self, **fields: object) -> Person:
        """A tenant with an app."""
        tenant = await add_tenant(self.db, self.clock(), **fields)
        realm = Realm.of(tenant.slug)
        session = await self.live(whole(await self.by_code(realm)))
        app = App.scan(await self.factors.enrol(Holder.of(session)), self.clock)
        await self.factors.confirm(session, app.code(), OWNER)
        return Person(tenant, realm, app, session)

    async def unlock(self, tenant_id: UUID) -> None:
        """Gives the codes of this hour back: the tests here are about what comes after them."""
        await self.db.run("SELECT fn.unlock_recipient($1, $1)", tenant_id)
