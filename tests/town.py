"""A town for the role matrix: a tenant with something in every corner, another one, the staff, and who might call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, TypeAlias
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx
import msgspec

from app.audit.log import Actor, Client
from app.auth.api_keys import SCOPES, ApiKeys, Scope
from app.auth.credentials import new_cookie
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.auth.tokens import sign_access, token_hash
from app.delivery.branding import Brandings
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.web import csrf
from app.web.cookies import per_tenant
from tests.admins import add_admin
from tests.conftest import Clock
from tests.factors import App
from tests.http import BASE_URL, Http
from tests.matrix import ROLES, STAFF, STRANGERS, Bodies, Caller, Forms, Operation, operations, people_of
from tests.pages import session_name
from tests.people import CONSENT, SomeTenant, add_member, add_tenant, current_code
from tests.rows import TENANT_TABLES, Dump, dump_of, insert, values_for

OPERATOR, SHELL = Actor("operator"), Client("cli")
# Of those a tenant has rows only if it is the system tenant, or under attack.
_NOT_A_TENANTS = {"admins", "api_keys", "attack_modes"}
# Of the tenant whose page is asked for, whoever's it is.
_SESSION = "session"
_PRE_SESSION = "A" * 43
SubjectKind: TypeAlias = Literal["tenant", "member", "admin"]


@dataclass(frozen=True, slots=True)
class House:
    """A tenant with something in every corner."""

    tenant: SomeTenant
    member: UUID
    challenge: str
    mfa_token: str
    link: str
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a caller presents."""

    bearer: str = ""
    cookies: Mapping[str, str] = field(default_factory=dict)
    session: Mapping[str, str] = field(default_factory=dict)
    """By portal: the cookie that its forms are bound to, of somebody signed in."""


class Town:
    """The installation: our tenant, theirs, one for the staff to work on, and everybody who might call."""

    def __init__(self, http: Http, db: Database, ring: KeyRing, settings: Settings, clock: Clock) -> None:
        self.http, self.db, self.ring, self.settings, self.clock = http, db, ring, settings, clock
        self.operations = operations(http.app)
        self.bodies = Bodies(http.app)
        self.forms: dict[str, dict[str, str]] = {}
        self.keys: dict[str, str] = {}
        self.admins: dict[str, UUID] = {}
        self.ours: House
        self.theirs: House
        self.spare: SomeTenant
        self.outsiders: Sequence[Caller]
        self.insiders: Sequence[Caller]
        self.over: dict[str, Ticket]
        self.ids: dict[str, str] = {}
        # Sessions that no call can have ended yet.
        self.held: dict[str, Ticket] = {}

    async def furnish(self) -> None:
        """Moves everybody in."""
        self.ours, self.theirs = await self.house("quetzal", "41"), await self.house("marmot", "52")
        self.outsiders = (*STRANGERS, *people_of("theirs", self.theirs.tenant.slug))
        self.insiders = people_of("ours", self.ours.tenant.slug)
        self.spare = await add_tenant(self.db, self.clock())
        for role in ROLES:
            self.keys[role] = await self.key(role)
            self.admins[role] = (await add_admin(self.db, self.clock, role)).id
        self.keys["sign-in"] = await self.key("owner", "sign-in")
        self.keys["introspect"] = await self.key("owner", "introspect")
        self.keys["revoked"] = await self.key("owner")
        self.keys["forged"] = f"{self.keys['owner'][:-4]}AAAA"
        self.over = {
            "ended": await self.session(self.ours.tenant, "member", self.ours.member, ended=True),
            "expired": await self.session(self.ours.tenant, "tenant", self.ours.tenant.id, days_ago=8),
        }
        self.over = {how: replace(ticket, session={}) for how, ticket in self.over.items()}
        await self.revoke(self.keys["revoked"])
        self.ids = ids_of(await dump_of(self.db, self.ours.tenant.id), self.ours)
        await self.read_forms()

    async def house(self, word: str, number: str) -> House:
        """A tenant that has signed in, has members, a factor, branding, an open challenge, a link."""
        tenant = await add_tenant(self.db, self.clock(), name=f"{word} works", phone_number=f"+447700900{number}0")
        slug = tenant.slug
        member = await add_member(
            self.db,
            self.clock(),
            tenant,
            name=f"{word} resident",
            email=f"{word}@resident-{slug}.example",
            phone_number=f"+447700900{number}1",
        )
        guarded = await add_member(
            self.db, self.clock(), tenant, name=f"{word} guarded", email=f"guarded@resident-{slug}.example"
        )
        async with self.db.tenant(tenant.id) as connection:
            await connection.execute(
                "INSERT INTO consents (tenant_id, id, member_id, document, version, given_at, ip) "
                "VALUES ($1, $2, $3, $4, '1', $5, '198.51.100.9')",
                *(tenant.id, uuid4(), member, f"{word} terms", self.clock()),
            )
        brand = {"sender_name": f"{word} brand", "email_intro": f"{word} intro"}
        await Brandings(self.db).set(tenant.id, brand, now=self.clock(), actor=OPERATOR, client=SHELL)
        agent = {"User-Agent": f"{word} browser"}
        asked = await self.http.otp(slug, "request", headers=agent)
        body = {"challenge_id": asked.json()["challenge_id"], "device_name": f"{word} laptop"}
        code = await current_code(self.db, self.ring, body["challenge_id"])
        entered = await self.http.otp(slug, "verify", body | {"code": code}, headers=agent)
        mfa_token = await self.half_way(tenant, guarded, f"guarded@resident-{slug}.example")
        asked = await self.http.otp(slug, "request", headers=agent)
        links = Links(self.db, Sessions(self.db, self.ring, self.settings, self.clock), self.clock)
        link = await links.create(tenant.id, ("tenant", tenant.id), OPERATOR, SHELL)
        await self.fill_corners(tenant)
        return House(tenant, member, asked.json()["challenge_id"], mfa_token, link, entered.json()["refresh_token"])

    async def fill_corners(self, tenant: SomeTenant) -> None:
        """A made-up row in every table that a tenant has rows in and this one has none in yet."""
        empty = [table for table, rows in (await dump_of(self.db, tenant.id)).items() if not rows]
        async with self.db.every_tenant() as connection:
            owners = dict(await connection.fetch(TENANT_TABLES))
            for table in sorted({*empty} - _NOT_A_TENANTS):
                await insert(connection, table, await values_for(connection, table, owners[table], tenant.id))

    async def half_way(self, tenant: SomeTenant, member: UUID, email: str) -> str:
        """The token of a member who has proven the first factor and has a second one."""
        token = (await self.session(tenant, "member", member)).bearer
        app = App.scan((await self.http.auth("POST", "totp", token)).json()["secret"], self.clock)
        await self.http.auth("POST", "totp/confirm", token, json={"code": app.code()})
        asked = (await self.http.otp(tenant.slug, "request", {"identifier": email})).json()["challenge_id"]
        body = {"challenge_id": asked, "code": await current_code(self.db, self.ring, asked)}
        return str((await self.http.otp(tenant.slug, "verify", body)).json()["mfa_token"])

    async def key(self, role: str, *scopes: Scope) -> str:
        """A fresh API key, of all scopes unless some are named."""
        keys = ApiKeys(self.db, self.clock)
        _, text = await keys.create(f"a {role}", role, scopes or SCOPES, actor=OPERATOR, client=SHELL)
        return text

    async def revoke(self, key: str) -> None:
        """The key is none any more."""
        await ApiKeys(self.db, self.clock).revoke(UUID(key.split("_")[1]), actor=OPERATOR, client=SHELL)

    async def session(
        self, tenant: SomeTenant | None, kind: SubjectKind, subject: UUID, *, days_ago: int = 0, ended: bool = False
    ) -> Ticket:
        """A fresh session, written straight into the table: most calls may end the one they are made with."""
        tenant_id = tenant.id if tenant else SYSTEM_TENANT
        began = self.clock() - timedelta(days=days_ago)
        bearer_id, cookie_id = uuid4(), uuid4()
        cookie = new_cookie(tenant_id, cookie_id)
        async with self.db.tenant(tenant_id) as connection:
            for session_id, way, secret in ((bearer_id, "api", None), (cookie_id, "browser", token_hash(cookie))):
                await connection.execute(
                    "INSERT INTO sessions (tenant_id, id, kind, subject_kind, subject_id, secret_hash, methods, "
                    "authenticated_at, created_at, seen_at, expires_at, ended_at, end_reason) "
                    "VALUES ($1, $2, $3, $4, $5, $6, '{code}', $7, $7, $7, $8, $9, $10)",
                    *(tenant_id, session_id, way, kind, subject, secret, began, began + timedelta(days=7)),
                    *((self.clock(), "logout") if ended else (None, None)),
                )
        bearer = sign_access(
            self.ring.current,
            began,
            issuer=self.settings.jwt_issuer,
            audience=self.settings.jwt_audience,
            ttl=900,
            tenant_id=tenant_id,
            slug=tenant.slug if tenant else "_system",
            subject_id=subject,
            session_id=bearer_id,
        )
        # Each portal is shown it, and each other one's.
        cookies = {_SESSION: cookie, "gh_admin": cookie}
        return Ticket(bearer, cookies, {"admin" if kind == "admin" else "tenant": cookie})

    async def ticket(self, caller: Caller) -> Ticket:
        """What somebody presents at this call."""
        match caller.name.split(": "):
            case ["stranger"]:
                return Ticket()
            case ["half"]:
                half = per_tenant("half", self.ours.tenant.slug)
                kept = {
                    _SESSION: self.ours.mfa_token,
                    f"gh_{half}": f"totp.{self.ours.mfa_token}.",
                }
                return Ticket(self.ours.mfa_token, kept)
            case ["over", how]:
                return self.over[how]
            case ["key", which]:
                return Ticket(self.keys[which])
        if caller.name not in self.held:
            self.held[caller.name] = await self.sign_in(caller)
        return self.held[caller.name]

    async def sign_in(self, caller: Caller) -> Ticket:
        """A session: its token, or its cookie."""
        whose, kind, *way = caller.name.split(": ")
        if whose == "admin":
            return replace(await self.session(None, "admin", self.admins[kind]), bearer="")
        house = self.ours if whose == "ours" else self.theirs
        if kind == "tenant":
            both = await self.session(house.tenant, "tenant", house.tenant.id)
        else:
            both = await self.session(house.tenant, "member", house.member)
        return Ticket(both.bearer) if way == ["token"] else replace(both, bearer="")

    async def read_forms(self) -> None:
        """The forms that our tenant's people and an owner see: what others could send just as well."""
        slug = self.ours.tenant.slug
        for name in ("stranger", "ours: tenant: browser", "ours: member: browser", "admin: owner"):
            own = {"Cookie": f"gh_pre={_PRE_SESSION}; {self.under_way(slug, self.ours)}"} if name == "stranger" else {}
            caller = next(c for c in (*self.outsiders, *self.insiders, *STAFF) if c.name == name)
            for operation in self.operations:
                if operation.safe and operation.is_page:
                    page = await self.call(caller, operation, slug, **own)
                    if page.headers.get("content-type", "").startswith("text/html"):
                        self.forms |= Forms(page.text).found

    def values(self, slug: str) -> dict[str, str]:
        """What paths are filled with: our tenant's ids, below a slug."""
        return self.ids | {"slug": slug}

    def body(self, operation: Operation, slug: str) -> dict[str, Any]:
        """What is sent: at our tenant's address with their challenge, at any other with ours. Never a whole secret of
        ours: whoever has one is one of us.
        """
        values = {
            "slug": self.ours.tenant.slug,
            "challenge_id": self.challenger(slug).challenge,
            "identifier": f"quetzal@resident-{self.ours.tenant.slug}.example",
            "email": f"{uuid4().hex}@elsewhere.example",
            "phone_number": "+447700900999",
            "name": "Ana Silva",
            "consent": CONSENT,
            "mfa_token": spoilt(self.ours.mfa_token),
            "refresh_token": spoilt(self.ours.refresh_token),
            "totp": "000000",
            "code": "000000",
        }
        if not operation.is_page:
            return {"json": self.bodies.of(operation, {k: v for k, v in values.items() if k != "phone_number"})}
        fields = self.forms.get(operation.path(self.values(self.ours.tenant.slug)), {})
        form = {name: value or values.get(name, "") for name, value in fields.items() if name != csrf.FIELD}
        return {"content": urlencode(form)}

    def challenger(self, slug: str) -> House:
        """Whose challenge is sent: theirs at our tenant's address, ours at any other."""
        return self.theirs if slug == self.ours.tenant.slug else self.ours

    @staticmethod
    def under_way(slug: str, house: House) -> str:
        """The cookie of a browser that has asked for a code."""
        return f"gh_{per_tenant('challenge', slug)}={house.challenge}.6.0."

    async def call(self, caller: Caller, operation: Operation, slug: str, **headers: str) -> httpx.Response:
        """One call, as a browser or a program of this caller makes it. `headers` replace its own."""
        ticket = await self.ticket(caller)
        face = "admin" if operation.template.startswith(("/admin", "/api/v1/admin")) else "tenant"
        cookies = [f"gh_pre={_PRE_SESSION}", self.under_way(slug, self.challenger(slug))]
        shown = {session_name(slug) if name == _SESSION else name: value for name, value in ticket.cookies.items()}
        cookies += [f"{name}={value}" for name, value in shown.items()]
        own = {
            "Cookie": "; ".join(cookies),
            "Origin": BASE_URL,
            csrf.HEADER: csrf.token(self.ring.current, face, ticket.session.get(face, _PRE_SESSION)),
            "If-Match": '"0"',
        }
        if ticket.bearer:
            own["Authorization"] = f"Bearer {ticket.bearer}"
        if operation.is_page:
            own |= {"Accept": "text/html", "Content-Type": "application/x-www-form-urlencoded"}
        body = {} if operation.safe else self.body(operation, slug)
        if not operation.safe:
            self.held.clear()
        self.http.client.cookies.clear()
        path = operation.path(self.values(slug))
        return await self.http.client.request(operation.method, path, headers=own | headers, **body)


def spoilt(secret: str) -> str:
    """It names the same row and doesn't open it."""
    return secret[:-6] + ("A" * 6 if not secret.endswith("A" * 6) else "B" * 6)


def ids_of(dump: Dump, house: House) -> dict[str, str]:
    """What a path's parameters are filled with: `member_id` is the id of a row of `members`."""
    ids = {"name": "email", "path": "x", "code": "rate-limited", "provider": "twilio"}
    for table, rows in dump.items():
        row = msgspec.json.decode(min(rows)) if rows else {}
        if "id" in row:
            ids[f"{table.removesuffix('s')}_id"] = str(row["id"])
    # Of the staff, so that no caller ends somebody's work by it; and what is named after no table.
    ids |= {"admin_id": str(uuid4()), "key_id": str(uuid4()), "message_id": ids["outbox_id"]}
    return ids | {"member_id": str(house.member), "token": spoilt(house.link)}
