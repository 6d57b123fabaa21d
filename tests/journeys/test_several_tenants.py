"""One browser at several organisations at once: a session for each, ended one by one, bounded in number."""

from app.audit.log import Actor, Client
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, serve
from tests.pages import Visitor, challenge_of, session_name, sign_in, visitor
from tests.people import SomeTenant, add_member, add_tenant, count, current_code

LIVING = "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL"


async def lands(person: Visitor, tenant: SomeTenant, page: str = "") -> bool:
    """Whether a page of a tenant opens, and is not the sign-in."""
    await person.open(f"/t/{tenant.slug}/{page}")
    return person.page.url.path == f"/t/{tenant.slug}/{page}"


def challenge_at(person: Visitor, tenant: SomeTenant) -> str:
    """The challenge that a browser has under way at one of several tenants."""
    name = session_name(tenant.slug).replace("session", "challenge")
    return person.cookies[name].partition(".")[0]


async def enter(person: Visitor, db: Database, ring: KeyRing, tenant: SomeTenant, identifier: str = "") -> None:
    """Signs in, whatever else the browser has."""
    await person.open(f"/t/{tenant.slug}/login")
    await person.submit(f"/t/{tenant.slug}/login", {"identifier": identifier})
    code = await current_code(db, ring, challenge_at(person, tenant))
    await person.submit(f"/t/{tenant.slug}/verify", {"code": code})
    assert person.page.url.path == f"/t/{tenant.slug}/", person.text


async def test_each_has_a_session_of_its_own(person: Visitor, db: Database, ring: KeyRing, clock: Clock) -> None:
    """An organisation and a member of another: every page opens at both; signing out of one leaves the other."""
    one, two = await add_tenant(db, clock(), name="One"), await add_tenant(db, clock(), name="Two")
    await add_member(db, clock(), two, email="ana@home.example")
    await enter(person, db, ring, one)
    await enter(person, db, ring, two, "ana@home.example")
    for page in ("", "factors"):
        assert await lands(person, one, page)
        assert await lands(person, two, page)
    assert await lands(person, two, "password")
    await person.submit(f"/t/{two.slug}/password", {"password": "a window left ajar"})
    assert "Your password is changed" in person.text
    await person.submit(f"/t/{two.slug}/logout")
    clock.forward(seconds=4)
    assert not await lands(person, two)
    assert await lands(person, one)
    assert [await count(db, LIVING, tenant.id) for tenant in (one, two)] == [1, 0]


async def test_two_sign_ins_side_by_side(person: Visitor, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Both codes are asked for in two tabs, then both are typed: neither page is too old for the other's sign-in."""
    tenants = [await add_tenant(db, clock()) for _ in range(3)]
    pages = []
    for tenant in tenants:
        await person.open(f"/t/{tenant.slug}/login")
        await person.submit(f"/t/{tenant.slug}/login", {"identifier": ""})
        pages.append(person.page)
    for tenant, page in zip(tenants, pages, strict=True):
        person.page = page
        clock.forward(minutes=2)
        code = await current_code(db, ring, challenge_at(person, tenant))
        await person.submit(f"/t/{tenant.slug}/verify", {"code": code})
        assert person.page.url.path == f"/t/{tenant.slug}/", person.text
    for tenant in tenants:
        assert await lands(person, tenant)


async def test_again_at_the_same_one_ends_the_session_before(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, sessions: Sessions
) -> None:
    """ASVS 7.2.4, for this tenant alone; sent twice, the second form doesn't end what the first one began."""
    one, two = await add_tenant(db, clock()), await add_tenant(db, clock())
    await enter(person, db, ring, one)
    await enter(person, db, ring, two)
    before = person.cookies[session_name(one.slug)]
    token = await Links(db, sessions, clock).create(one.id, ("tenant", one.id), Actor("operator"), Client("cli"))
    path = f"/t/{one.slug}/link/{token}"
    await person.open(path)
    for _ in range(2):
        assert (await person.send(path)).headers["location"] == f"/t/{one.slug}/"
    assert person.cookies[session_name(one.slug)] != before
    assert await lands(person, one)
    assert await lands(person, two)
    assert [await count(db, LIVING, tenant.id) for tenant in (one, two)] == [1, 1]


async def test_the_oldest_goes(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Eight at most: with the ninth the one ends whose sign-in is longest ago, in the store, too."""
    tenants = [await add_tenant(db, clock()) for _ in range(9)]
    async with visitor(http) as person:
        for tenant in tenants[:8]:
            await enter(person, db, ring, tenant)
            clock.forward(minutes=1)
        assert len([name for name in person.cookies if "session" in name]) == 8
        await enter(person, db, ring, tenants[8])
        assert len([name for name in person.cookies if "session" in name]) == 8
        clock.forward(seconds=4)
        assert [await lands(person, tenant) for tenant in tenants] == [False, *[True] * 8]
    assert [await count(db, LIVING, tenant.id) for tenant in tenants] == [0, *[1] * 8]


async def test_one_tenants_cookie_opens_nothing_of_another(
    http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Under another tenant's name it is nobody's, and is taken away."""
    one, two = await add_tenant(db, clock()), await add_tenant(db, clock())
    async with visitor(http) as person, visitor(http) as thief:
        await sign_in(person, db, ring, one.slug)
        thief.client.cookies.set(session_name(two.slug), str(person.session), domain="localhost.local")
        assert not await lands(thief, two)
        assert thief.session is None
        assert await lands(person, one)


async def test_an_ended_session_says_so_and_comes_back(
    settings: Settings, http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Also in a process that has not heard of it: told once, no circle of redirects, and back to the page."""
    tenant = await add_tenant(db, clock())
    await add_member(db, clock(), tenant, email="ana@home.example")
    async with serve(settings, clock) as other, visitor(http) as person, visitor(other) as twin:
        await sign_in(person, db, ring, tenant.slug, "ana@home.example")
        twin.client.cookies.update(person.client.cookies)
        assert await lands(twin, tenant, "consents")
        async with db.every_tenant() as connection:
            await connection.execute("UPDATE sessions SET ended_at = $1 WHERE tenant_id = $2", clock(), tenant.id)
        clock.forward(seconds=1)
        answer = await twin.open(f"/t/{tenant.slug}/login?done=ended")
        assert answer.url.path.endswith("/login"), "believed, as another process found it"
        clock.forward(seconds=3)
        await person.open(f"/t/{tenant.slug}/consents")
        assert "You were signed out. Sign in to go on where you were." in person.text
        await person.submit(f"/t/{tenant.slug}/login", {"identifier": "ana@home.example", "next": "consents"})
        code = await current_code(db, ring, challenge_of(person))
        await person.submit(f"/t/{tenant.slug}/verify", {"code": code})
        assert person.page.url.path == f"/t/{tenant.slug}/consents"


async def test_a_form_of_an_ended_session_was_not_saved(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """It leads to the sign-in, which says that nothing was saved."""
    tenant = await add_tenant(db, clock())
    await sign_in(person, db, ring, tenant.slug)
    async with db.every_tenant() as connection:
        await connection.execute("UPDATE sessions SET ended_at = $1 WHERE tenant_id = $2", clock(), tenant.id)
    clock.forward(seconds=4)
    await person.submit(f"/t/{tenant.slug}/devices/forget-all")
    assert person.page.url.path == f"/t/{tenant.slug}/login"
    assert "What you sent was not saved" in person.text
