"""Somebody who can read a person's mail, and wants in all the same."""

import asyncio
import re
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from litestar.routes import HTTPRoute

from app.audit.log import Actor, Client
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.credentials import MfaToken
from app.auth.factors.service import Holder
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.auth.signing_in import HalfSignIn, SignIn
from app.errors import CodeExpired, Forbidden, GatehouseError, InvalidCode, TooManyAttempts
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from tests.admins import AdminBrowser, add_admin
from tests.conftest import Clock
from tests.factors import OWNER, App, Door
from tests.http import Http
from tests.pages import challenge_of, visitor
from tests.people import add_tenant, count, current_code, whole

SESSIONS = "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL"
BEGUN = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'session.started'"
OPERATOR, SHELL = Actor("operator"), Client("cli")


@pytest.fixture
def door(
    db: Database, ring: KeyRing, settings: Settings, clock: Clock, challenges: Challenges, sessions: Sessions
) -> Door:
    return Door(db, ring, settings, clock, challenges, sessions)


async def at_once(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*calls, return_exceptions=True))


async def warm(door: Door) -> None:
    """Opens the pool's connections: calls that have to wait for one are not parallel."""
    await asyncio.gather(*(door.db.run("SELECT 1") for _ in range(10)))


async def test_parallel_guesses_are_five_at_most(door: Door) -> None:
    """200 wrong codes at once: at most five are compared, then the right one fails too."""
    person = await door.enrolled()
    half = await door.half(person.realm)
    outcomes = await at_once([door.finish(half, person.app.wrong()) for _ in range(200)])
    assert sum(isinstance(o, InvalidCode) for o in outcomes) == 4
    assert all(isinstance(o, InvalidCode | TooManyAttempts) for o in outcomes)
    with pytest.raises(TooManyAttempts):
        await door.finish(half, person.app.next())
    evidence = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'factor.wrong'"
    assert await count(door.db, evidence, person.tenant.id) == 5


async def test_attempts_are_shared_by_app_and_backup_codes(door: Door) -> None:
    """Trying the one after the other doesn't double the tries."""
    person = await door.enrolled()
    await door.factors.new_backup_codes(person.session, OWNER)
    half = await door.half(person.realm)
    for n in range(4):
        code, using = (person.app.wrong(), "totp") if n % 2 else ("00000-00000", "backup_code")
        with pytest.raises(InvalidCode) as wrong:
            await door.finish(half, code, using)  # type: ignore[arg-type] # one of the two
        assert wrong.value.attempts_left == 4 - n
    with pytest.raises(TooManyAttempts):
        await door.finish(half, "00000-00000", "backup_code")


async def test_parallel_right_codes_give_one_session(door: Door) -> None:
    """50 times the right code for one half sign-in."""
    person = await door.enrolled()
    half = await door.half(person.realm)
    code = person.app.next()
    outcomes = await at_once([door.finish(half, code) for _ in range(50)])
    assert sum(isinstance(o, SignIn) for o in outcomes) == 1
    assert all(isinstance(o, SignIn | GatehouseError) for o in outcomes)
    assert await count(door.db, SESSIONS, person.tenant.id) == 2


async def test_different_right_codes_give_one_session(door: Door) -> None:
    """The app's code and three backup codes at once, for one half sign-in."""
    person = await door.enrolled()
    spare = await door.factors.new_backup_codes(person.session, OWNER)
    await warm(door)
    for n in range(3):
        half = await door.half(person.realm)
        own = spare[3 * n : 3 * n + 3]
        outcomes = await at_once(
            [door.finish(half, person.app.next()), *(door.finish(half, code, "backup_code") for code in own)]
        )
        assert sum(isinstance(o, SignIn) for o in outcomes) == 1
        assert sum(isinstance(o, CodeExpired) for o in outcomes) == 3
        await door.unlock(person.tenant.id)


async def test_one_code_finishes_one_sign_in(door: Door) -> None:
    """Somebody who looked over the shoulder uses the same code for a sign-in of their own, at the very moment."""
    person = await door.enrolled()
    spare = await door.factors.new_backup_codes(person.session, OWNER)
    await warm(door)
    for n in range(4):
        await door.unlock(person.tenant.id)
        halves = [await door.half(person.realm) for _ in range(2)]
        code = person.app.next()
        outcomes = await at_once([door.finish(half, code) for half in halves])
        assert sorted(type(o).__name__ for o in outcomes) == ["InvalidCode", "SignIn"]
        await door.unlock(person.tenant.id)
        halves = [await door.half(person.realm) for _ in range(2)]
        for half in halves:
            with pytest.raises(InvalidCode):
                await door.finish(half, code)
        outcomes = await at_once([door.finish(half, spare[n], "backup_code") for half in halves])
        assert sorted(type(o).__name__ for o in outcomes) == ["InvalidCode", "SignIn"]


async def test_an_older_code_is_refused_after_a_newer_one(door: Door) -> None:
    """The step before the present one counts for slow clocks, but not when a newer one was accepted."""
    person = await door.enrolled()
    door.clock.forward(minutes=2)
    await door.finish(await door.half(person.realm), person.app.code())
    half = await door.half(person.realm)
    with pytest.raises(InvalidCode):
        await door.finish(half, person.app.code(-1))
    await door.finish(half, person.app.code(1))


async def test_no_session_slips_past_an_enrolment(door: Door) -> None:
    """Codes that are entered at the very moment an app is confirmed give a session that ends, or half a sign-in."""
    for _ in range(5):
        tenant = await add_tenant(door.db, door.clock())
        realm = Realm.of(tenant.slug)
        session = await door.live(whole(await door.by_code(realm)))
        app = App.scan(await door.factors.enrol(Holder.of(session)), door.clock)
        await door.unlock(tenant.id)
        issued = [await door.challenges.request(realm, OWNER) for _ in range(3)]
        codes = [await current_code(door.db, door.ring, each.challenge_id) for each in issued]
        outcomes = await at_once(
            [
                door.factors.confirm(session, app.code(), OWNER),
                *(
                    door.challenges.verify(realm, each.challenge_id, code, OWNER)
                    for each, code in zip(issued, codes, strict=True)
                ),
            ]
        )
        assert not any(isinstance(o, BaseException) for o in outcomes), outcomes
        left = await door.sessions.list(session)
        assert [row["id"] for row in left] == [session.session_id]


async def test_a_token_that_was_made_up_is_over(door: Door) -> None:
    """Another tenant, another half, another secret, another spelling: all answer as one that has expired."""
    person, other = await door.enrolled(), await door.enrolled()
    token = MfaToken.parse((await door.half(person.realm)).mfa_token)
    foreign = MfaToken.parse((await door.half(other.realm)).mfa_token)
    made = [
        replace(token, tenant_id=foreign.tenant_id),
        replace(token, half_id=foreign.half_id),
        replace(token, secret=foreign.secret),
        replace(token, secret=bytes(32)),
    ]
    # 64 bytes leave four bits of the last character unused: the same bytes, spelled otherwise.
    respelled = token.text()[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[token.text()[-1]]
    texts = [each.text() for each in made] + [respelled, token.text()[:-1], token.text() + "A", "ghm_", "", "é"]
    for text in texts:
        half = HalfSignIn("totp", text, 600, person.tenant.slug, "tenant")
        with pytest.raises(CodeExpired, match="This sign-in has expired"):
            await door.finish(half, person.app.code(1))
    assert await count(door.db, BEGUN, person.tenant.id) == 1


async def test_a_half_token_doesnt_change_the_factor(door: Door) -> None:
    """Who has the first factor only can't set an app of their own up with what they got for it."""
    person = await door.enrolled()
    half = await door.half(person.realm)
    holder = await door.factors.holder(half.mfa_token)
    with pytest.raises(CodeExpired):
        await door.factors.enrol(holder)
    with pytest.raises(Forbidden):
        await door.factors.enrol(replace(holder, half=None))
    with pytest.raises(CodeExpired):
        await door.enrol_and_finish(half, person.app.next())


async def test_a_second_enrolment_finds_the_first(door: Door) -> None:
    """Where a factor is required, two half sign-ins set an app up: one is confirmed, the other one is over."""
    tenant = await add_tenant(door.db, door.clock(), policy={"second_factor": "required"})
    mine, theirs = [await door.half(Realm.of(tenant.slug)) for _ in range(2)]
    first = App.scan(await door.factors.enrol(await door.factors.holder(mine.mfa_token)), door.clock)
    second = App.scan(await door.factors.enrol(await door.factors.holder(theirs.mfa_token)), door.clock)
    with pytest.raises(CodeExpired):
        await door.enrol_and_finish(mine, first.code())
    await door.enrol_and_finish(theirs, second.code())
    with pytest.raises(CodeExpired):
        await door.factors.holder(mine.mfa_token)


async def test_a_half_token_opens_nothing_else(door: Door, http: Http) -> None:
    """On every route of the API there is, as bearer, refresh token, API key and device token."""
    person = await door.enrolled()
    half = await door.half(person.realm)
    tried = 0
    for route in http.app.routes:
        if not (isinstance(route, HTTPRoute) and route.path.startswith("/api/v1")):
            continue
        path = re.sub(r"\{[^}]*:uuid\}|\{[a-z]+_id[^}]*\}", str(person.tenant.id), route.path)
        path = re.sub(r"\{[^}]*\}", person.tenant.slug, path)
        for method in route.methods - {"OPTIONS", "HEAD"}:
            if "/otp/" in path or path.endswith(("/mfa", "/members")):
                continue  # for anybody
            body = {"refresh_token": half.mfa_token, "token": half.mfa_token, "code": "123456"}
            bearer = {"Authorization": f"Bearer {half.mfa_token}", "X-Device-Token": half.mfa_token}
            answer = await http.client.request(method, path, headers=bearer, json=body)
            assert answer.status_code in {400, 401, 403}, (method, path, answer.text)
            tried += 1
    assert tried > 20
    plain: dict[str, dict[str, Any]] = {
        "refresh": {"refresh_token": half.mfa_token},
        "introspect": {"token": half.mfa_token},
        "totp": {},
        "totp/confirm": {"code": person.app.next()},
        "backup-codes": {},
    }
    for path, body in plain.items():
        bearer = {"Authorization": f"Bearer {half.mfa_token}"}
        assert (await http.post(f"/api/v1/auth/{path}", body, headers=bearer)).status_code == 401, path
    for path in ("totp", "totp/confirm"):
        body = {"mfa_token": half.mfa_token} | ({"code": "123456"} if "confirm" in path else {})
        assert (await http.post(f"/api/v1/auth/{path}", body)).json()["code"] == "code-expired", path
    assert await door.sessions.authenticate_cookie(half.mfa_token) is None
    assert await count(door.db, SESSIONS, person.tenant.id) == 1


async def test_no_way_in_goes_past_the_factor(door: Door, http: Http) -> None:
    """By code over the API and on pages, and by an admin's link: nobody is signed in before the second step."""
    person = await door.enrolled()
    slug, before = person.tenant.slug, await count(door.db, BEGUN, person.tenant.id)
    asked = (await http.otp(slug, "request")).json()["challenge_id"]
    answer = await http.otp(
        slug, "verify", {"challenge_id": asked, "code": await current_code(door.db, door.ring, asked)}
    )
    assert answer.status_code == 200
    assert sorted(answer.json()) == ["expires_in", "mfa_token", "next", "options"]

    async with visitor(http) as browser:
        await browser.open(f"/t/{slug}/login")
        await browser.submit(f"/t/{slug}/login", {})
        challenge = challenge_of(browser)
        code = await current_code(door.db, door.ring, challenge)
        await browser.submit(f"/t/{slug}/verify", {"code": code})
        assert browser.page.url.path == f"/t/{slug}/second-factor"
        assert browser.session is None
        await browser.open(f"/t/{slug}/")
        assert browser.page.url.path == f"/t/{slug}/login"

    async with visitor(http) as browser:
        link = await door.links.create(person.tenant.id, ("tenant", person.tenant.id), OPERATOR, SHELL)
        await browser.open(f"/t/{slug}/link/{link}")
        await browser.submit(f"/t/{slug}/link/{link}")
        assert browser.page.url.path == f"/t/{slug}/second-factor"
        assert browser.session is None
        await browser.open(f"/t/{slug}/factors")
        assert browser.page.url.path == f"/t/{slug}/login"
    assert await count(door.db, BEGUN, person.tenant.id) == before


async def admin_with_app(door: Door, http: Http) -> tuple[Any, App]:
    """An admin who has set an app up on the pages."""
    admin = await add_admin(door.db, door.clock)
    browser = AdminBrowser.of(http)
    await browser.sign_in(door.db, door.ring, admin)
    await browser.press("/admin/second-factor/totp", "/admin/second-factor")
    await browser.get("/admin/second-factor")
    found = re.search(r'<code class="key">([^<]+)</code>', browser.page.text)
    assert found, browser.words
    app = App.scan(found[1].replace(" ", ""), door.clock)
    await browser.post("/admin/second-factor/totp/confirm", {"code": app.code()})
    assert browser.page.headers["location"] == "/admin/second-factor?done=enrolled"
    return admin, app


async def test_no_way_into_the_admin_portal_goes_past_the_factor(door: Door, http: Http) -> None:
    """By code and by break-glass link: the cookie of the half way opens no page."""
    admin, app = await admin_with_app(door, http)
    links = Links(door.db, door.sessions, door.clock)
    link = await links.create(SYSTEM_TENANT, ("admin", admin.id), OPERATOR, SHELL)
    by_code, by_link = AdminBrowser.of(http), AdminBrowser.of(http)
    await by_code.sign_in(door.db, door.ring, admin)
    await by_link.press(f"/admin/link/{link}", f"/admin/link/{link}")
    for browser in (by_code, by_link):
        assert browser.page.headers["location"] == "/admin/sign-in/second-factor"
        assert "gh_admin" not in browser.client.cookies
        for path in ("/admin", "/admin/tenants", "/admin/second-factor"):
            assert (await browser.get(path)).headers["location"].startswith("/admin/sign-in"), path
        await browser.press("/admin/sign-in/second-factor", "/admin/sign-in/second-factor", {"totp": app.wrong()})
        assert browser.page.status_code == 401
        await browser.post("/admin/sign-in/second-factor", {"totp": app.next()})
        assert browser.page.headers["location"] == "/admin"
        assert (await browser.get("/admin")).status_code == 200


async def test_each_face_finishes_its_own(door: Door, http: Http) -> None:
    """A half sign-in of the pages is nothing to the API, an admin's is nothing to the tenants' pages, and so on."""
    admin, app = await admin_with_app(door, http)
    browser = AdminBrowser.of(http)
    await browser.sign_in(door.db, door.ring, admin)
    admins = browser.client.cookies["gh_admin_half"].split(".")[1]
    person = await door.enrolled()
    api = (await door.half(person.realm)).mfa_token
    pages = (await door.half(person.realm, kind="browser")).mfa_token
    for token, shown in ((admins, app), (pages, person.app)):
        answer = await http.post("/api/v1/auth/mfa", {"mfa_token": token, "totp": shown.next()})
        assert answer.json()["code"] == "code-expired"
    slug = person.tenant.slug
    await door.unlock(person.tenant.id)
    async with visitor(http) as somebody:
        await somebody.open(f"/t/{slug}/login")
        await somebody.submit(f"/t/{slug}/login", {})
        (name,) = [name for name in somebody.cookies if "gh_challenge" in name]
        half = name.replace("challenge", "half")
        for token, shown in ((admins, app), (api, person.app)):
            somebody.client.cookies.set(half, f"totp.{token}.", domain="localhost.local")
            answer = await somebody.send(f"/t/{slug}/second-factor", {"totp": shown.next()})
            assert answer.status_code == 410
            assert somebody.session is None
    assert await count(door.db, SESSIONS, person.tenant.id) == 1
    assert await count(door.db, f"{BEGUN} AND subject_id = $2", SYSTEM_TENANT, admin.id) == 1


def test_sessions_begin_in_one_place(root: Path) -> None:
    """Only fn.start_session writes one, and only the gate and the second step call it: no way in can forget to ask."""
    sources = {path: path.read_text() for path in (root / "app").rglob("*") if path.suffix in {".py", ".sql"}}
    writes = [path.name for path, text in sources.items() for _ in re.findall(r"INSERT INTO sessions\b", text)]
    assert writes == ["sessions.sql"]
    calls = [
        path.name for path, text in sources.items() for _ in re.findall(r"(?<!FUNCTION )fn\.start_session\(", text)
    ]
    assert sorted(calls) == ["half_sign_ins.sql", "sessions.sql"]
