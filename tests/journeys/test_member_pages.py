"""S2 and S3 on pages, without JavaScript: members register, sign in by code or password, and set a new password."""

import re
from typing import Any

import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, serve
from tests.pages import Visitor, challenge_of, looks, visitor
from tests.people import SomeTenant, add_member, add_tenant, count, current_code, sent_to

EMAIL = "ana@home.example"
PASSWORD = "a window left ajar"
SHOP = {"registration": "open", "first_factor": "password", "remember_device_days": 30}
MEMBERS = "SELECT count(*) FROM members WHERE tenant_id = $1"


async def ask(person: Visitor, slug: str, **fields: str) -> None:
    await person.open(f"/t/{slug}/login")
    await person.submit(f"/t/{slug}/login", {"identifier": EMAIL, "password": "", "channel": "", **fields})


async def enter(person: Visitor, db: Database, ring: KeyRing, slug: str, **more: str) -> None:
    """Types the code that was sent."""
    assert person.page.url.path == f"/t/{slug}/verify", person.text
    await person.submit(f"/t/{slug}/verify", {"code": await current_code(db, ring, challenge_of(person)), **more})


def as_drawn(person: Visitor, **fields: str) -> dict[str, str]:
    """A registration with the page's own hidden fields and the box ticked."""
    hidden = dict(re.findall(r'<input type="hidden" name="(document|version)" value="([^"]*)"', person.page.text))
    assert set(hidden) == {"document", "version"}
    return {"name": "Ana Silva", "email": "", "phone_number": "", "password": "", "consent": "yes", **hidden, **fields}


async def register(person: Visitor, db: Database, ring: KeyRing, tenant: SomeTenant, **fields: str) -> None:
    """The long way in, from the link on the sign-in page."""
    path = f"/t/{tenant.slug}/register"
    await person.open(f"/t/{tenant.slug}/login")
    assert f'href="{path}"' in person.page.text
    await person.open(path)
    await person.submit(path, as_drawn(person, email=EMAIL, **fields))
    await enter(person, db, ring, tenant.slug)
    assert person.page.url.path == f"/t/{tenant.slug}/", person.text


async def test_a_member_signs_in_by_email(person: Visitor, db: Database, ring: KeyRing, clock: Clock) -> None:
    """The code goes to the member named, not to the organisation, and the dashboard greets the member."""
    tenant = await add_tenant(db, clock(), name="City Water")
    await add_member(db, clock(), tenant, email=EMAIL)
    await ask(person, tenant.slug)
    assert await sent_to(db, challenge_of(person)) == EMAIL
    await enter(person, db, ring, tenant.slug)
    assert "You are signed in as Ana Silva" in person.text
    assert "a***@home.example" in person.text


async def test_from_the_register_link_to_the_dashboard(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """A code proves the address and makes the member; the consent is kept with the version that was read."""
    tenant = await add_tenant(db, clock(), policy={"registration": "open"})
    await register(person, db, ring, tenant)
    assert "You are signed in as Ana Silva" in person.text
    consents = "SELECT count(*) FROM consents WHERE tenant_id = $1 AND document = 'member-data' AND version = '1'"
    assert await count(db, consents, tenant.id) == 1


async def test_an_address_nobody_has_leads_to_registration(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Who proved an address first only tells a name; the token is in a cookie that no script reads, and is dropped."""
    tenant = await add_tenant(db, clock(), policy={"registration": "open"})
    await ask(person, tenant.slug)
    code = await current_code(db, ring, challenge_of(person))
    answer = await person.send(f"/t/{tenant.slug}/verify", {"code": code})
    assert answer.headers["location"] == f"/t/{tenant.slug}/register"
    kept = next(line for line in answer.headers.get_list("set-cookie") if "gh_newcomer" in line)
    assert "HttpOnly" in kept
    await person.open(answer.headers["location"])
    assert "Your code was right." in person.text
    assert "ghm_" not in person.page.text

    await person.submit(f"/t/{tenant.slug}/register", as_drawn(person))
    assert person.page.url.path == f"/t/{tenant.slug}/", person.text
    assert "You are signed in as Ana Silva" in person.text
    assert "a***@home.example" in person.text
    assert not [name for name in person.cookies if "gh_newcomer" in name]


async def test_a_proof_that_is_over_costs_no_typing(person: Visitor, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Too late, the page says so and keeps what was typed; sent once more it asks for a new code."""
    tenant = await add_tenant(db, clock(), policy={"registration": "open"})
    await ask(person, tenant.slug)
    await enter(person, db, ring, tenant.slug)
    clock.forward(hours=1)
    path = f"/t/{tenant.slug}/register"
    answer = await person.submit(path, as_drawn(person, email=EMAIL))
    assert answer.status_code == 410
    assert "This registration has expired" in person.text
    assert 'value="Ana Silva"' in answer.text
    assert await count(db, MEMBERS, tenant.id) == 0
    await person.submit(path, as_drawn(person, email=EMAIL))
    await enter(person, db, ring, tenant.slug)
    assert "You are signed in as Ana Silva" in person.text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, 'id="f-name-error"'),
        ({"email": ""}, 'id="f-email-error"'),
        ({"email": "nonsense@"}, 'id="f-email-error"'),
        ({"phone_number": "12"}, 'id="f-phone_number-error"'),
        ({"password": "short"}, 'id="f-password-error"'),
        ({"consent": None}, 'id="f-consent-error"'),
    ],
)
async def test_what_is_wrong_stands_at_its_field(
    person: Visitor, db: Database, clock: Clock, fields: dict[str, Any], said: str
) -> None:
    """Refused with 400, no code sent, and the rest of the form as it was; a password is never sent back."""
    tenant = await add_tenant(db, clock(), policy={"registration": "open"})
    path = f"/t/{tenant.slug}/register"
    await person.open(path)
    typed = as_drawn(person, email=EMAIL) | fields
    answer = await person.submit(path, {name: value for name, value in typed.items() if value is not None})
    assert answer.status_code == 400
    assert said in answer.text
    if typed["password"]:
        assert typed["password"] not in answer.text
    assert await count(db, "SELECT count(*) FROM challenges WHERE tenant_id = $1", tenant.id) == 0


async def test_who_may_register_where_is_not_told(http: Http, db: Database, clock: Clock) -> None:
    """Open, closed, taken or nobody's: the page, what follows it, and what a wrong password gets are the same."""
    slugs = {
        "open": "same-size-open",
        "closed": "same-size-shut",
        "taken": "same-size-mine",
        "nobody": "same-size-none",
    }
    await add_tenant(db, clock(), slug=slugs["open"], policy={"registration": "open"})
    await add_tenant(db, clock(), slug=slugs["closed"])
    taken = await add_tenant(db, clock(), slug=slugs["taken"], policy={"registration": "open"})
    await add_member(db, clock(), taken, email=EMAIL)
    stories: dict[str, list[tuple[Any, ...]]] = {}
    for kind, slug in slugs.items():
        story = stories[kind] = []
        async with visitor(http) as person:
            await person.open(f"/t/{slug}/register")
            story.append(looks(person, slug))
            await person.submit(f"/t/{slug}/register", as_drawn(person, email=EMAIL, password=PASSWORD))
            story.append(looks(person, slug))
            await ask(person, slug, password="not the one")
            story.append(looks(person, slug))
    assert stories["open"][1][1].endswith("/t/SLUG/verify")
    assert stories["open"][2][0] == 401
    assert "Wrong sign-in details" in stories["open"][2][2]
    for kind, story in stories.items():
        assert story == stories["open"], kind


async def test_password_then_code_then_a_remembered_device(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """With the password a code follows; on a device that was remembered the password alone signs in."""
    tenant = await add_tenant(db, clock(), name="Corner Shop", policy=SHOP)
    await register(person, db, ring, tenant, password=PASSWORD)
    await person.submit(f"/t/{tenant.slug}/logout")

    clock.forward(hours=2)
    await ask(person, tenant.slug, password="not the one")
    assert person.page.status_code == 401
    await ask(person, tenant.slug, password=PASSWORD)
    await enter(person, db, ring, tenant.slug, remember_device="yes")
    assert "You are signed in as Ana Silva" in person.text
    await person.submit(f"/t/{tenant.slug}/logout")

    clock.forward(hours=2)
    await ask(person, tenant.slug, password=PASSWORD)
    assert person.page.url.path == f"/t/{tenant.slug}/", person.text
    await person.submit(f"/t/{tenant.slug}/logout")
    await ask(person, tenant.slug)
    assert person.page.url.path == f"/t/{tenant.slug}/verify", "a device is no password"


async def test_a_device_nobody_asked_to_remember_needs_its_code(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Without the tick the password is followed by a code again; a wrong code leaves the tick as it was."""
    tenant = await add_tenant(db, clock(), policy=SHOP)
    await register(person, db, ring, tenant, password=PASSWORD)
    for _ in range(2):
        await person.submit(f"/t/{tenant.slug}/logout")
        clock.forward(hours=2)
        await ask(person, tenant.slug, password=PASSWORD)
        assert person.page.url.path == f"/t/{tenant.slug}/verify"
        await person.submit(f"/t/{tenant.slug}/verify", {"code": "12345", "remember_device": "yes"})
        assert 'value="yes" checked' in person.page.text
        await enter(person, db, ring, tenant.slug)


async def test_a_forgotten_password_is_replaced(person: Visitor, db: Database, ring: KeyRing, clock: Clock) -> None:
    """A code for whoever forgot it leads to the page of the new one, which is the only one from then on."""
    tenant = await add_tenant(db, clock(), policy=SHOP)
    await register(person, db, ring, tenant, password=PASSWORD)
    await person.submit(f"/t/{tenant.slug}/logout")
    clock.forward(hours=2)
    await ask(person, tenant.slug, identifier="", purpose="reset")
    assert 'id="f-identifier-error"' in person.page.text
    # A password manager fills the field in unasked.
    await ask(person, tenant.slug, purpose="reset", password="not the one")
    await enter(person, db, ring, tenant.slug)
    path = f"/t/{tenant.slug}/password"
    assert person.page.url.path == path
    answer = await person.submit(path, {"password": "short"})
    assert answer.status_code == 400
    assert "A password has 8 to 128 characters." in person.text
    await person.submit(path, {"password": "another good one"})
    assert "Your password is changed." in person.text
    await person.open(path)
    clock.forward(minutes=11)
    answer = await person.submit(path, {"password": "yet another one"})
    assert answer.status_code == 403
    assert "Sign out and in again" in person.text

    await person.submit(f"/t/{tenant.slug}/logout")
    clock.forward(hours=1)
    await ask(person, tenant.slug, password=PASSWORD)
    assert person.page.status_code == 401
    await ask(person, tenant.slug, password="another good one")
    await enter(person, db, ring, tenant.slug)
    assert person.page.url.path == f"/t/{tenant.slug}/"


async def test_an_organisation_has_no_password(person: Visitor, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Its own contact finds no such page, and a stranger the way to sign in."""
    tenant = await add_tenant(db, clock())
    await person.open(f"/t/{tenant.slug}/password")
    assert person.page.url.path == f"/t/{tenant.slug}/login"
    await ask(person, tenant.slug, identifier="")
    await enter(person, db, ring, tenant.slug)
    assert "Set a new one" not in person.text
    assert (await person.open(f"/t/{tenant.slug}/password")).status_code == 404


async def test_a_default_tenants_front_door_takes_a_password(
    settings: Settings, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """With DEFAULT_TENANT members register from the front page and sign in there with their password."""
    tenant = await add_tenant(db, clock(), policy=SHOP)
    async with serve(settings, clock, default_tenant=tenant.slug) as http, visitor(http) as person:
        await person.open("/login")
        assert f'href="/t/{tenant.slug}/register"' in person.page.text
        await register(person, db, ring, tenant, password=PASSWORD)
        await person.submit(f"/t/{tenant.slug}/logout")
        clock.forward(hours=2)
        await person.open("/login")
        await person.submit("/login", {"identifier": EMAIL, "password": "not the one"})
        assert person.page.status_code == 401
        await person.submit("/login", {"identifier": EMAIL, "password": PASSWORD})
        await enter(person, db, ring, tenant.slug)
        assert person.page.url.path == f"/t/{tenant.slug}/"
