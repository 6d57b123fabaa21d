"""A second factor that becomes due while somebody is signed in: from then on the session opens only the way to it.

From the route table of the application, so a new route takes part by itself. Whatever makes it due: an app that was set
up elsewhere, a policy, a role.
"""

import re
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID, uuid4

import pytest

from app.audit.log import Actor, Client
from app.auth.admins import Admins
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.encryption import encrypt
from app.auth.factors.service import totp_context
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.auth.signing_in import HalfSignIn, SignIn
from app.errors import InvalidToken
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.web import csrf
from tests.admins import AdminBrowser, Office, add_admin, open_office
from tests.conftest import Clock
from tests.factors import OWNER, App, Door
from tests.http import BASE_URL, Http, serve
from tests.matrix import STAFF, Caller, Operation, let_in, rule_for
from tests.pages import Visitor, challenge_of, sign_in
from tests.people import SomeTenant, add_member, add_tenant, count, current_code, whole
from tests.rows import Dump, dump_of
from tests.town import Town

OPERATOR, SHELL = Actor("operator"), Client("cli")
_REQUIRE: Final = 'UPDATE tenants SET policy = policy || \'{"second_factor": "required"}\' WHERE id = $1'
_APP: Final = """
INSERT INTO factors (tenant_id, id, subject_kind, subject_id, secret, key_id, begun_by, created_at, confirmed_at,
                     last_step)
SELECT $1, gen_random_uuid(), $2, s, '', 'k', gen_random_uuid(), $4, $4, 1 FROM unnest($3::uuid[]) AS s
"""
# The way to prove or set up a factor, and out. Signing in (the open routes) asks for it itself.
OUT: Final = {"POST /api/v1/auth/logout", "POST /t/{slug:str}/logout"}
ENROL: Final = {"POST /api/v1/auth/totp", "POST /api/v1/auth/totp/confirm"}


@pytest.fixture
async def town(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Town]:
    async with serve(settings, clock) as http:
        town = Town(http, db, ring, settings, clock)
        await town.furnish()
        yield town


async def make_due(town: Town, how: str) -> None:
    """For the people of our tenant and for the staff, whose sessions have begun without a factor."""
    ours = town.ours
    async with town.db.every_tenant() as connection:
        if how == "policy":
            await connection.execute(_REQUIRE, ours.tenant.id)
        else:
            await connection.execute(_APP, ours.tenant.id, "tenant", [ours.tenant.id], town.clock())
            await connection.execute(_APP, ours.tenant.id, "member", [ours.member], town.clock())
        await connection.execute(_APP, SYSTEM_TENANT, "admin", list(town.admins.values()), town.clock())


def callers_of(town: Town) -> list[Caller]:
    """Everybody who is signed in as somebody; keys have no factor."""
    return [*town.insiders, *(caller for caller in STAFF if caller.ticket == "admin session")]


@pytest.mark.parametrize("how", ["policy", "app"])
async def test_a_session_without_the_factor_opens_nothing(town: Town, how: str) -> None:
    """Every route of the application by everybody whose session lacks a factor that is due by now."""
    await make_due(town, how)
    slug = town.ours.tenant.slug
    opened: set[str] = set()
    asked = 0
    before = await dump_of(town.db, town.ours.tenant.id)
    for operation in town.operations:
        rule = rule_for(operation)
        for caller in callers_of(town):
            if not rule(caller, operation, slug):
                continue
            ticket = await town.ticket(caller)
            if str(operation) in OUT | ENROL:
                continue
            answer = await town.call(caller, operation, slug)
            # No call has ended it: nothing was let through.
            town.held[caller.name] = ticket
            asked += 1
            assert answer.status_code < 500, (str(operation), caller.name)
            if let_in(answer, operation, slug if operation.is_page else ""):
                to = answer.headers.get("location", "")
                if not to.startswith((f"/t/{slug}/login?", "/admin/sign-in?")):
                    opened.add(f"{operation} as {caller.name}: {answer.status_code}")
    assert opened == set()
    assert asked > 250
    assert unchanged(before) == unchanged(await dump_of(town.db, town.ours.tenant.id))


def unchanged(dump: Dump) -> Dump:
    """Sessions come with their callers."""
    return {table: rows for table, rows in dump.items() if table != "sessions"}


async def test_the_property_notices(town: Town) -> None:
    """Without a factor that is due, the same people are let in: the test above would see an open door."""
    slug = town.ours.tenant.slug
    doors = [o for o in town.operations if str(o) in {"GET /api/v1/auth/me", "GET /t/{slug:str}", "GET /admin"}]
    let = 0
    for operation in doors:
        for caller in callers_of(town):
            if rule_for(operation)(caller, operation, slug):
                let += let_in(await town.call(caller, operation, slug), operation, slug)
    assert let == 2 + 2 + 3


@pytest.mark.parametrize("how", ["policy", "app"])
async def test_the_way_out_stays_open(town: Town, how: str) -> None:
    """Signing out works, on pages and by API; and setting an app up, for whoever has none and signed in just now."""
    await make_due(town, how)
    slug = town.ours.tenant.slug
    ways = {str(o): o for o in town.operations if str(o) in OUT | ENROL}
    token = next(c for c in town.insiders if c.name == "ours: member: token")
    browser = next(c for c in town.insiders if c.name == "ours: member: browser")
    begun = await town.call(token, ways["POST /api/v1/auth/totp"], slug)
    assert begun.status_code == (200 if how == "policy" else 403)
    assert (await town.call(token, ways["POST /api/v1/auth/logout"], slug)).status_code == 204
    ended = (
        "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND subject_kind = 'member' AND end_reason = 'signed-out'"
    )
    assert await count(town.db, ended, town.ours.tenant.id) == 1
    page: Operation = ways["POST /t/{slug:str}/logout"]
    answer = await town.call(browser, page, slug)
    assert answer.headers["location"] == f"/t/{slug}/login?done=signed-out"
    assert await count(town.db, ended, town.ours.tenant.id) == 2


@pytest.fixture
def door(
    db: Database, ring: KeyRing, settings: Settings, clock: Clock, challenges: Challenges, sessions: Sessions
) -> Door:
    return Door(db, ring, settings, clock, challenges, sessions)


async def test_refresh_asks_for_it(door: Door) -> None:
    """A policy that requires one ends the family at its next refresh, with a reason; the next sign-in leads to it."""
    tenant = await add_tenant(door.db, door.clock())
    realm = Realm.of(tenant.slug)
    signed_in = whole(await door.by_code(realm))
    assert signed_in.refresh_token
    renewed = await door.sessions.refresh(signed_in.refresh_token, OWNER)
    async with door.db.every_tenant() as connection:
        await connection.execute(_REQUIRE, tenant.id)
    for token in (signed_in.refresh_token, renewed.refresh_token):
        with pytest.raises(InvalidToken, match=r"second factor" if token == signed_in.refresh_token else r"not valid"):
            await door.sessions.refresh(token or "", OWNER)
    reason = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND data ->> 'reason' = 'factor-due'"
    assert await count(door.db, reason, tenant.id) == 1
    half = await door.by_code(realm)
    assert isinstance(half, HalfSignIn)
    app = App.scan(await door.factors.enrol(await door.factors.holder(half.mfa_token)), door.clock)
    proven = await door.enrol_and_finish(half, app.code())
    assert proven.refresh_token
    assert (await door.sessions.refresh(proven.refresh_token, OWNER)).access_token


async def test_refresh_asks_for_an_app_that_was_set_up_elsewhere(door: Door) -> None:
    """Also where the enrolment could not end the session: one that it never saw."""
    person = await door.enrolled()
    async with door.db.tenant(person.tenant.id) as connection:
        await connection.execute("UPDATE sessions SET methods = '{otp:email}' WHERE id = $1", person.session.session_id)
    door.sessions.forget(person.session)
    row = await door.db.row(
        "SELECT due FROM fn.live_session($1, $2, $3, false)",
        door.clock(),
        person.tenant.id,
        person.session.session_id,
    )
    assert row is not None
    assert row["due"] == "totp"


@pytest.mark.parametrize("way", ["device", "link"])
async def test_every_way_in_is_asked_again(door: Door, http: Http, way: str) -> None:
    """A session of a remembered device, or of an admin's link, is no exception."""
    policy = {"remember_device_days": 30}
    tenant = await add_tenant(door.db, door.clock(), policy=policy)
    member = await add_member(door.db, door.clock(), tenant, email="ana@home.example")
    asked = (await http.otp(tenant.slug, "request", {"identifier": "ana@home.example"})).json()
    code = await current_code(door.db, door.ring, asked["challenge_id"])
    body = {"challenge_id": asked["challenge_id"], "code": code, "remember_device": True}
    first = (await http.otp(tenant.slug, "verify", body)).json()
    if way == "device":
        headers = {"X-Device-Token": first["device_token"]}
        again = await http.otp(tenant.slug, "request", {"identifier": "ana@home.example"}, headers=headers)
        token = again.json()["access_token"]
        assert (await http.auth("GET", "me", token)).status_code == 200
        async with door.db.every_tenant() as connection:
            await connection.execute(_REQUIRE, tenant.id)
        door.clock.forward(seconds=4)
        for method, path in (("GET", "me"), ("GET", "sessions"), ("DELETE", "sessions"), ("GET", "events")):
            refused = await http.auth(method, path, token)
            assert (refused.status_code, refused.json()["code"]) == (401, "invalid-token")
            assert "second factor" in refused.json()["detail"]
        # Who has nothing but the device sets no app up either.
        assert (await http.auth("POST", "totp", token)).status_code == 403
        return
    link = await Links(door.db, door.sessions, door.clock).create(tenant.id, ("member", member), OPERATOR, SHELL)
    entered = await door.links.use(link, OWNER)
    assert isinstance(entered, SignIn)
    assert entered.cookie
    assert await door.sessions.authenticate_cookie(entered.cookie) is not None
    async with door.db.every_tenant() as connection:
        await connection.execute(_REQUIRE, tenant.id)
    door.clock.forward(seconds=4)
    assert await door.sessions.authenticate_cookie(entered.cookie) is None


@pytest.fixture
async def office(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Office]:
    async with open_office(settings, clock, db, ring) as office:
        yield office


async def key_by(office: Office, browser: AdminBrowser, role: str) -> int:
    """The status of an attempt to make an API key with the session of a page."""
    cookie = browser.client.cookies["gh_admin"]
    answer = await browser.client.post(
        "/api/v1/admin/api-keys",
        json={"name": "mine", "role": role},
        headers={"Origin": BASE_URL, csrf.HEADER: csrf.token(office.ring.current, "admin", cookie)},
    )
    return answer.status_code


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("viewer", "owner"),
        ("viewer", "manager"),
        ("manager", "owner"),
        ("owner", "manager"),
        ("owner", "viewer"),
        ("manager", "viewer"),
    ],
)
async def test_another_role_takes_another_sign_in(office: Office, before: str, after: str) -> None:
    """A viewer who signed in by mail and is promoted makes no owner's key in that session, nor anything else."""
    await add_admin(office.db, office.clock)
    admin = await add_admin(office.db, office.clock, before)
    browsers = [AdminBrowser.of(office.http) for _ in range(2)]
    for browser in browsers:
        await browser.sign_in(office.db, office.ring, admin)
        assert (await browser.get("/admin")).status_code == 200
    await Admins(office.db, office.clock).change(admin.id, role=after, actor=OPERATOR, client=SHELL)
    for browser in browsers:
        assert await key_by(office, browser, "viewer") == 401
        assert (await browser.get("/admin")).headers["location"].startswith("/admin/sign-in")
    await browsers[0].sign_in(office.db, office.ring, admin)
    assert await key_by(office, browsers[0], "viewer") == (201 if after == "owner" else 403)


async def test_an_admin_comes_back_to_where_the_factor_was_asked_for(office: Office) -> None:
    """The page leads to the sign-in, that to the second step, and that back to the page."""
    admin = await add_admin(office.db, office.clock)
    browser = AdminBrowser.of(office.http)
    await browser.sign_in(office.db, office.ring, admin)
    secret = bytes(20)
    await enrol_elsewhere(office, admin.id, secret)
    await browser.get("/admin/tenants?q=x")
    there = browser.page.headers["location"]
    assert there == "/admin/sign-in?next=%2Fadmin%2Ftenants%3Fq%3Dx&why=due"
    await browser.get(there)
    assert "A second factor is asked for here now." in browser.words
    await browser.sign_in(office.db, office.ring, admin, at=there)
    assert browser.page.headers["location"] == "/admin/sign-in/second-factor"
    await browser.get("/admin/sign-in/second-factor")
    await browser.post("/admin/sign-in/second-factor", {"totp": App(secret, office.clock).code()})
    assert browser.page.headers["location"] == "/admin/tenants?q=x"
    assert (await browser.get("/admin/tenants?q=x")).status_code == 200


async def enrol_elsewhere(office: Office, admin: UUID, secret: bytes) -> None:
    """An app that no session of theirs has proven."""
    factor = uuid4()
    key_id, stored = encrypt(office.ring, totp_context(SYSTEM_TENANT, admin, factor), secret)
    async with office.db.tenant(SYSTEM_TENANT) as connection:
        await connection.execute(
            "INSERT INTO factors (tenant_id, id, subject_kind, subject_id, secret, key_id, begun_by, created_at, "
            "confirmed_at, last_step) VALUES ($1, $2, 'admin', $3, $4, $5, $2, $6, $6, 1)",
            *(SYSTEM_TENANT, factor, admin, stored, key_id, office.clock()),
        )


async def test_a_member_comes_back_to_where_the_factor_was_asked_for(
    db: Database, ring: KeyRing, clock: Clock, person: Visitor
) -> None:
    """A page of the account leads to the sign-in, which says why; that to setting an app up, and that back."""
    slug = (await add_tenant(db, clock())).slug
    async with db.every_tenant() as connection:
        tenant = await connection.fetchval("SELECT id FROM tenants WHERE slug = $1", slug)
    await add_member(db, clock(), SomeTenant(tenant, slug, None, None), email="ana@home.example")
    await sign_in(person, db, ring, slug, "ana@home.example")
    async with db.every_tenant() as connection:
        await connection.execute(_REQUIRE, tenant)
    clock.forward(minutes=11)
    await person.open(f"/t/{slug}/contacts/email")
    assert person.page.url.path == f"/t/{slug}/login"
    assert "A second factor is asked for here now." in person.text
    await person.submit(f"/t/{slug}/login", {"identifier": "ana@home.example", "next": "contacts/email"})
    await person.submit(f"/t/{slug}/verify", {"code": await current_code(db, ring, challenge_of(person))})
    assert person.page.url.path == f"/t/{slug}/second-factor"
    secret = re.search(r"([A-Z2-7]{4} ?){8}", person.text)
    assert secret
    code = App.scan(secret[0].replace(" ", ""), clock).code()
    await person.submit(f"/t/{slug}/second-factor/enrol", {"code": code})
    assert person.page.url.path == f"/t/{slug}/contacts/email"
    alive = "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL"
    assert await count(db, alive, tenant) == 1
