"""The tenant portal's pages, told over HTTP: what a person without JavaScript sees and what a stranger learns."""

import re
from typing import Any
from urllib.parse import quote

import pytest

from app.audit.log import Actor, Client
from app.auth.admins import Admins
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.tenants.service import Tenants
from tests.conftest import Clock
from tests.http import Http, serve
from tests.pages import Visitor, challenge_of, looks, session_name, sign_in, visitor
from tests.people import add_tenant, count, current_code, wrong

OPERATOR, SHELL = Actor("operator"), Client("cli")


async def ask(person: Visitor, slug: str, **fields: str) -> None:
    """Asks for a code and looks at the page that wants it."""
    await person.open(f"/t/{slug}/login")
    await person.submit(f"/t/{slug}/login", fields)


async def test_from_the_front_door_to_the_dashboard(person: Visitor, db: Database, ring: KeyRing, clock: Clock) -> None:
    """The front door leads to the tenant's page, to the code, to the dashboard; signing out leads out for good."""
    tenant = await add_tenant(db, clock(), name="Northwind Energy", phone_number="+447700900123")
    await person.open("/")
    assert person.page.url.path == "/login"
    await person.submit("/login", {"slug": tenant.slug})
    await person.submit(f"/t/{tenant.slug}/login", {"identifier": "", "channel": ""})
    assert "It has 6 digits and works once" in person.text
    assert "You can ask for a new code in 60 seconds" in person.text
    code = await current_code(db, ring, challenge_of(person))

    await person.submit(f"/t/{tenant.slug}/verify", {"code": f" {code[:3]}-{code[3:]} "})
    assert "Northwind Energy" in person.text
    assert "o***@" in person.text
    assert "+44*****0123" in person.text
    assert str(tenant.email) not in person.page.text
    assert f"Signed inChrome on Linux · {person.address}" in person.text

    session = person.session
    await person.submit(f"/t/{tenant.slug}/logout")
    assert "You are signed out." in person.text
    person.client.cookies.set(session_name(tenant.slug), str(session), domain="localhost.local")
    await person.open(f"/t/{tenant.slug}/")
    assert person.page.url.path == f"/t/{tenant.slug}/login"


async def test_cookies_are_bound_to_the_host_wherever_there_is_tls(
    settings: Settings, clock: Clock, db: Database
) -> None:
    """`__Host-`, Secure, HttpOnly, SameSite=Lax, no domain; plain names only on a developer's http://localhost."""
    tenant = await add_tenant(db, clock())
    async with serve(settings, clock, public_url="https://login.example") as http, visitor(http) as person:
        before = (await person.open("/login")).headers["set-cookie"]
        assert before.startswith("__Host-gh_pre=")
        for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=lax"):
            assert attribute in before
        assert "Domain" not in before
        # A browser keeps Secure cookies from http, this client's server included: it is told by hand.
        value = before.partition("=")[2].partition(";")[0]
        cookie = {"Cookie": f"__Host-gh_pre={value}", "Origin": "https://login.example"}
        answer = await person.send(f"/t/{tenant.slug}/login", {}, headers=cookie)
        assert answer.status_code == 303
        assert answer.headers["set-cookie"].startswith("__Host-gh_challenge_")


async def test_a_slug_nobody_has_looks_like_any_other(http: Http, db: Database, clock: Clock) -> None:
    """Page by page, from asking to the last wrong code and the hourly limit: status, headers, cookies, words."""
    names = {
        "known": "same-length-a",
        "nobody": "same-length-b",
        "suspended": "same-length-c",
        "silent": "same-length-d",
    }
    await add_tenant(db, clock(), slug=names["known"])
    await add_tenant(db, clock(), slug=names["suspended"], status="suspended")
    await add_tenant(db, clock(), slug=names["silent"], email=None)
    stories: dict[str, list[tuple[Any, ...]]] = {}
    started = clock()
    for kind, slug in names.items():
        clock.now = started
        story = stories[kind] = []
        async with visitor(http) as person:

            async def look(story: list[tuple[Any, ...]] = story, slug: str = slug, person: Visitor = person) -> None:
                story.append(looks(person, slug))

            await person.open(f"/t/{slug}/")
            await look()
            await person.submit(f"/t/{slug}/login", {"identifier": "", "channel": "email"})
            await look()
            clock.forward(seconds=3)
            await person.open(f"/t/{slug}/verify")
            await look()
            await person.submit(f"/t/{slug}/resend", {"channel": ""})
            await look()
            clock.forward(seconds=60)
            await person.submit(f"/t/{slug}/resend", {"channel": "email"})
            await look()
            for _ in range(5):
                await person.submit(f"/t/{slug}/verify", {"code": "000000"})
                await look()
            await person.open(f"/t/{slug}/verify")
            await look()
            for _ in range(2):
                await person.open(f"/t/{slug}/login")
                await person.submit(f"/t/{slug}/login", {})
                await look()
                clock.forward(seconds=61)
    assert "Too many attempts" in stories["known"][-3][2]
    assert "Too many codes were asked for" in stories["known"][-1][2]
    for kind in ("nobody", "suspended", "silent"):
        assert stories[kind] == stories["known"], kind


async def test_wrong_codes_are_counted_down_and_the_fifth_ends_it(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Each wrong code says how many are left; after the last the right one is refused too."""
    tenant = await add_tenant(db, clock())
    await ask(person, tenant.slug)
    code = await current_code(db, ring, challenge_of(person))
    for left in (4, 3, 2, 1):
        answer = await person.submit(f"/t/{tenant.slug}/verify", {"code": wrong(code)})
        assert answer.status_code == 401
        assert f"{left} attempt{'s' if left > 1 else ''} left" in person.text
    for typed in (wrong(code), code):
        await person.open(f"/t/{tenant.slug}/login")
        answer = await person.submit(f"/t/{tenant.slug}/verify", {"code": typed})
        assert answer.status_code == 429
        assert "Too many attempts" in person.text
        assert answer.headers["retry-after"]
    assert person.session is None


async def test_a_code_that_only_lacks_a_digit_costs_nothing_and_is_kept(
    person: Visitor, db: Database, clock: Clock
) -> None:
    """What was typed stands in the field again, with the reason beside it, and no attempt is gone."""
    tenant = await add_tenant(db, clock())
    await ask(person, tenant.slug)
    answer = await person.submit(f"/t/{tenant.slug}/verify", {"code": "12345"})
    assert answer.status_code == 400
    assert 'value="12345"' in answer.text
    await person.submit(f"/t/{tenant.slug}/verify", {"code": "000000"})
    assert "4 attempts left" in person.text


async def test_an_expired_code_says_so(person: Visitor, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Both when it is typed and when the page is looked at again."""
    tenant = await add_tenant(db, clock())
    await ask(person, tenant.slug)
    code = await current_code(db, ring, challenge_of(person))
    clock.forward(minutes=10)
    answer = await person.submit(f"/t/{tenant.slug}/verify", {"code": code})
    assert answer.status_code == 410
    assert "The code has expired" in person.text
    await person.open(f"/t/{tenant.slug}/verify")
    assert "The code has expired" in person.text


async def test_a_new_code_takes_its_time_and_voids_the_old_one(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Too early the wait is spelled out; afterwards only the new code opens."""
    tenant = await add_tenant(db, clock())
    await ask(person, tenant.slug)
    old = await current_code(db, ring, challenge_of(person))
    clock.forward(seconds=20)
    answer = await person.submit(f"/t/{tenant.slug}/resend", {"channel": ""})
    assert answer.status_code == 429
    assert "You can ask again in 40 seconds" in person.text
    clock.forward(seconds=40)
    await person.submit(f"/t/{tenant.slug}/resend", {"channel": "email"})
    assert "A new code is on its way" in person.text
    answer = await person.submit(f"/t/{tenant.slug}/verify", {"code": old})
    assert answer.status_code == 401
    await person.submit(f"/t/{tenant.slug}/verify", {"code": await current_code(db, ring, challenge_of(person))})
    assert person.page.url.path == f"/t/{tenant.slug}/"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"email": None}, "Tenant contact information missing"),
        ({"status": "suspended"}, "This organisation is suspended."),
        (
            {"otp_delivery_method": "sms", "email": None, "phone_number": "+447700900123"},
            "This way of delivery is not available.",
        ),
    ],
)
async def test_development_tells_why_no_code_comes(
    settings: Settings, db: Database, clock: Clock, fields: dict[str, Any], said: str
) -> None:
    """Disclosed, the sign-in page itself says what is wrong, and for nobody's slug too."""
    tenant = await add_tenant(db, clock(), **fields)
    async with serve(settings, clock, otp_disclose_errors=True) as http, visitor(http) as person:
        await ask(person, tenant.slug)
        assert said in person.text
        await ask(person, "nobody-has-this")
        assert person.page.status_code == 404
        assert "No organisation has this address." in person.text


async def test_a_failed_delivery_is_told_to_those_who_may_know(settings: Settings, db: Database, clock: Clock) -> None:
    """The page says that the code was not delivered; concealed, it says what it says to everybody."""
    tenant = await add_tenant(db, clock())
    for disclosed, said in ((True, "Failed to deliver the code"), (False, "Sent.")):
        async with serve(settings, clock, otp_disclose_errors=disclosed) as http, visitor(http) as person:
            await ask(person, tenant.slug)
            async with db.every_tenant() as connection:
                await connection.execute("UPDATE outbox SET state = 'failed' WHERE tenant_id = $1", tenant.id)
            clock.forward(seconds=3)
            await person.open(f"/t/{tenant.slug}/verify")
            assert said in person.text


async def test_the_live_part_is_a_part(person: Visitor, db: Database, clock: Clock) -> None:
    """A line about the delivery goes to htmx alone; a browser that asks for it by itself gets the page."""
    tenant = await add_tenant(db, clock())
    await ask(person, tenant.slug)
    part = await person.client.get(f"/t/{tenant.slug}/verify/status", headers={"HX-Request": "true", "Accept": "*/*"})
    assert part.text.strip().startswith('<p id="delivery"')
    assert "Your code is on its way" in part.text
    await person.open(f"/t/{tenant.slug}/verify/status")
    assert person.page.url.path == f"/t/{tenant.slug}/verify"


async def test_a_default_tenant_spares_naming_it(settings: Settings, db: Database, ring: KeyRing, clock: Clock) -> None:
    """With DEFAULT_TENANT the front page asks for the email or phone only, and the code follows at once."""
    tenant = await add_tenant(db, clock())
    assert tenant.email
    async with serve(settings, clock, default_tenant=tenant.slug) as http, visitor(http) as person:
        await person.open("/login")
        assert "Your organisation" not in person.text
        await person.submit("/login", {"identifier": "  "})
        assert person.page.status_code == 400
        assert "Enter your email or phone number." in person.text
        await person.submit("/login", {"identifier": "nonsense@"})
        assert person.page.status_code == 400
        assert 'value="nonsense@"' in person.page.text
        await person.submit("/login", {"identifier": f" {tenant.email} "})
        await person.submit(f"/t/{tenant.slug}/verify", {"code": await current_code(db, ring, challenge_of(person))})
        assert person.page.url.path == f"/t/{tenant.slug}/"


async def test_signed_in_here_is_not_signed_in_there(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Another tenant's pages are those of a stranger, and a session there leaves the one here alone."""
    ours, theirs = await add_tenant(db, clock(), name="Ours"), await add_tenant(db, clock(), name="Theirs")
    await sign_in(person, db, ring, ours.slug)
    await person.open(f"/t/{theirs.slug}/")
    assert person.page.url.path == f"/t/{theirs.slug}/login"
    assert "Ours" not in person.page.text
    assert (await person.open(f"/t/{ours.slug}/")).url.path == f"/t/{ours.slug}/"

    await sign_in(person, db, ring, theirs.slug)
    live = "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL"
    assert await count(db, live, theirs.id) == 1
    assert await count(db, live, ours.id) == 1


async def test_sessions_and_devices_are_ended_by_their_owner(
    http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """One by one or all others at once; the device that is forgotten loses its lane."""
    tenant = await add_tenant(db, clock(), policy={"hourly_limit": 10})
    async with visitor(http) as first, visitor(http) as second, visitor(http) as third:
        for person in (first, second, third):
            await sign_in(person, db, ring, tenant.slug)
            clock.forward(minutes=21)
        await first.open(f"/t/{tenant.slug}/")
        ends = re.findall(r'action="(/t/[^"]*/sessions/[^"]*/end)"', first.page.text)
        assert len(ends) == 2
        await first.submit(ends[0])
        assert "That session has ended." in first.text
        await third.open(f"/t/{tenant.slug}/")
        assert third.page.url.path == f"/t/{tenant.slug}/login"
        await first.submit(f"/t/{tenant.slug}/sessions/end-others")
        await second.open(f"/t/{tenant.slug}/")
        assert second.page.url.path == f"/t/{tenant.slug}/login"
        forgets = re.findall(r'action="(/t/[^"]*/devices/[^"]*/forget)"', first.page.text)
        assert len(forgets) == 3
        await first.submit(forgets[0])
        assert "That device is forgotten." in first.text
        assert (
            await count(db, "SELECT count(*) FROM devices WHERE tenant_id = $1 AND revoked_at IS NULL", tenant.id) == 2
        )
        answer = await first.submit(ends[0])
        assert answer.status_code == 404


async def test_a_browser_that_signed_in_before_keeps_its_lane(
    http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """A stranger burns the tenant's codes for the hour; the known browser still gets one and signs in."""
    tenant = await add_tenant(db, clock())
    async with visitor(http) as person, visitor(http) as stranger:
        await sign_in(person, db, ring, tenant.slug)
        await person.submit(f"/t/{tenant.slug}/logout")
        for _ in range(4):
            await ask(stranger, tenant.slug)
            clock.forward(seconds=61)
        assert stranger.page.status_code == 429
        assert "You can ask again in" in stranger.text
        await sign_in(person, db, ring, tenant.slug)


async def test_the_history_goes_back_page_by_page(person: Visitor, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Newest first, twenty at a time, in words; "Older" leads back and "Newest" returns."""
    tenant = await add_tenant(db, clock())
    for _ in range(7):
        await sign_in(person, db, ring, tenant.slug)
        await person.submit(f"/t/{tenant.slug}/logout")
        clock.forward(hours=2)
    await sign_in(person, db, ring, tenant.slug)
    assert person.page.text.count('class="entry') == 20
    older = re.search(r'href="([^"]*before=[^"]*)"', person.page.text)
    assert older
    await person.open(older[1])
    # Eight times asked for and signed in, seven times signed out.
    assert person.page.text.count('class="entry') == 3
    assert "Newest" in person.text
    assert "Older" not in person.text
    answer = await person.open(f"/t/{tenant.slug}/?before=nonsense")
    assert answer.status_code == 400


async def test_what_an_admin_did_is_told_without_where_from(
    settings: Settings, person: Visitor, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """The history names an admin's change in plain words; the admin's address and browser stay the admin's."""
    tenant = await add_tenant(db, clock())
    admin = Client("page", "198.51.100.77", "AdminBrowser/1.0")
    tenants = Tenants(db, settings, clock)
    await tenants.update(tenant.slug, {"name": "Northwind"}, actor=OPERATOR, client=admin)
    await sign_in(person, db, ring, tenant.slug)
    await person.open(f"/t/{tenant.slug}/")
    assert "An admin changed the settings" in person.text
    assert "198.51.100.77" not in person.page.text
    assert "AdminBrowser" not in person.page.text


async def test_a_sign_in_link_wants_a_press(http: Http, db: Database, clock: Clock, sessions: Sessions) -> None:
    """Opening it changes nothing, as mail scanners do; the button signs in, once."""
    tenant = await add_tenant(db, clock())
    link = await Links(db, sessions, clock).create(tenant.id, ("tenant", tenant.id), OPERATOR, SHELL)
    path = f"/t/{tenant.slug}/link/{link}"
    async with visitor(http) as person, visitor(http) as late:
        for _ in range(2):
            await person.open(path)
            assert "It works once." in person.text
        await late.open(path)
        await person.submit(path)
        assert person.page.url.path == f"/t/{tenant.slug}/"
        assert "Signed in with a link from an admin" in person.text
        answer = await late.submit(path)
        assert answer.status_code == 410
        assert "This link has expired or was used already." in late.text


async def test_an_admins_link_opens_no_tenant_page(http: Http, db: Database, clock: Clock, sessions: Sessions) -> None:
    """A token of the other portal gives no cookie here."""
    admin = await Admins(db, clock).add(f"{clock().timestamp()}@admin.example", "owner", actor=OPERATOR, client=SHELL)
    link = await Links(db, sessions, clock).create(SYSTEM_TENANT, ("admin", admin.id), OPERATOR, SHELL)
    async with visitor(http) as person:
        await person.open(f"/t/any-tenant/link/{link}")
        answer = await person.submit(f"/t/any-tenant/link/{link}")
        assert answer.status_code == 410
        assert person.session is None


async def test_a_front_end_gets_its_person_back(settings: Settings, db: Database, ring: KeyRing, clock: Clock) -> None:
    """`next` leads there through a page of ours if RETURN_URLS has it, and to the dashboard if not."""
    tenant = await add_tenant(db, clock(), policy={"hourly_limit": 10})
    front_end = "https://app.example/signed-in"
    for wanted, lands in ((f"{front_end}?a=1", "continue"), ("https://app.example.evil.example/signed-in", "")):
        async with serve(settings, clock, return_urls=(front_end,)) as http, visitor(http) as person:
            await person.open(f"/login?next={quote(wanted)}")
            shown = re.search(r'name="next" value="([^"]*)"', person.page.text)
            await person.submit("/login", {"slug": tenant.slug, "next": wanted})
            assert (shown is not None) == (lands == "continue")
            await person.submit(f"/t/{tenant.slug}/login", {"next": wanted})
            code = await current_code(db, ring, challenge_of(person))
            await person.submit(f"/t/{tenant.slug}/verify", {"code": code})
            assert person.page.url.path == f"/t/{tenant.slug}/{lands}"
            assert (f'content="0; url={wanted}"' in person.page.text) == (lands == "continue")
            await person.open(f"/t/{tenant.slug}/continue?next={quote('https://evil.example/')}")
            assert person.page.status_code == 404


async def test_malformed_slugs_are_refused_as_a_page(person: Visitor) -> None:
    """An address that can't be a tenant's is a 400 in words; the form points at the field and keeps what was typed."""
    for path in ("/t/ACME/login", "/t/-x/verify", "/t/_system/login", "/t/_system"):
        answer = await person.open(path)
        assert answer.status_code == 400, path
        assert answer.headers["content-type"].startswith("text/html")
    await person.open("/login")
    answer = await person.submit("/login", {"slug": "Acme Ltd"})
    assert answer.status_code == 400
    assert 'value="Acme Ltd"' in answer.text
    assert 'aria-invalid="true"' in answer.text
