"""Another email or phone for a member, on pages without JavaScript: claimed, proven, told, and whose it may be."""

import re
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, serve
from tests.pages import Visitor, challenge_of, looks, sign_in, visitor
from tests.people import SomeTenant, add_member, add_tenant, count, current_code, sent_to, wrong

EMAIL = "ana@home.example"
NEW = "ana.silva@work.example"
PHONE = "+447700900321"


@pytest.fixture
async def http(settings: Settings, clock: Clock) -> AsyncIterator[Http]:
    async with serve(settings, clock, sms_enabled=True, sms_provider=("console",)) as served:
        yield served


@pytest.fixture
async def tenant(db: Database, clock: Clock) -> SomeTenant:
    return await add_tenant(db, clock(), name="City Water", policy={"registration": "open", "hourly_limit": 10})


async def claim(person: Visitor, tenant: SomeTenant, name: str, value: str) -> str:
    """From the link on the dashboard to the page that asks for the code; answers the challenge's id."""
    path = f"/t/{tenant.slug}/contacts/{name}"
    await person.open(f"/t/{tenant.slug}/")
    assert f'href="{path}"' in person.page.text
    await person.open(path)
    await person.submit(path, {"email" if name == "email" else "phone_number": value})
    assert person.page.url.path == f"{path}/confirm", person.text
    return challenge_of(person, f"{name}-claim")


async def test_another_email(
    http: Http, person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """A code to the new address makes it the member's: shown masked and verified, both addresses told, others out."""
    member = await add_member(db, clock(), tenant, email=EMAIL)
    async with visitor(http) as elsewhere:
        await sign_in(elsewhere, db, ring, tenant.slug, EMAIL)
        await sign_in(person, db, ring, tenant.slug, EMAIL)
        challenge = await claim(person, tenant, "email", f"  {NEW.upper()} ")
        assert NEW not in person.page.text.lower(), "no page shows a whole address"
        assert await sent_to(db, challenge) == NEW
        path = f"/t/{tenant.slug}/contacts/email/confirm"
        answer = await person.submit(path, {"code": "12345"})
        assert (answer.status_code, "12345" in answer.text) == (400, True), "one that lacks a digit is mended"
        await person.submit(path, {"code": await current_code(db, ring, challenge)})
        assert person.page.url.path == f"/t/{tenant.slug}/"
        assert "Your email address is verified. You can sign in with it from now on." in person.text
        assert re.search(r"a\*\*\*@work\.example Verified", person.text)
        assert "@home.example" not in person.text
        assert "Your email address was changed" in person.text, "in the history"
        assert not [name for name in person.cookies if "claim" in name]
        clock.forward(seconds=4)
        await elsewhere.open(f"/t/{tenant.slug}/")
        assert elsewhere.page.url.path == f"/t/{tenant.slug}/login"
    told = (
        "SELECT count(DISTINCT destination) FROM outbox WHERE tenant_id = $1 AND kind = 'notice' "
        "AND payload ->> 'template' = 'own_contact_changed' AND destination = ANY($2)"
    )
    assert await count(db, told, tenant.id, [EMAIL, NEW]) == 2
    assert await count(db, "SELECT count(*) FROM members WHERE id = $1 AND email = $2", member, NEW) == 1


async def test_a_first_phone_number(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """Who has none adds one, by its link on the dashboard, and can then sign in with it."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    assert "Add your phone" in person.text
    challenge = await claim(person, tenant, "phone", "+44 7700 900321")
    assert await sent_to(db, challenge) == PHONE
    assert "If the phone number can be yours" in person.text
    await person.submit(f"/t/{tenant.slug}/contacts/phone/confirm", {"code": await current_code(db, ring, challenge)})
    assert "+44*****0321 Verified" in person.text
    await person.submit(f"/t/{tenant.slug}/logout")
    clock.forward(hours=1)
    await sign_in(person, db, ring, tenant.slug, PHONE)


async def test_proving_what_is_there_already(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """A number that staff entered and nobody proved becomes verified by its code; that is no change to tell anybody."""
    member = await add_member(db, clock(), tenant, email=EMAIL, phone_number=PHONE, must_verify=True)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    assert "+44*****0321 Not verified" in person.text
    challenge = await claim(person, tenant, "phone", PHONE)
    await person.submit(f"/t/{tenant.slug}/contacts/phone/confirm", {"code": await current_code(db, ring, challenge)})
    assert "+44*****0321 Verified" in person.text
    assert await count(db, "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind = 'notice'", tenant.id) == 0
    proven = "SELECT count(*) FROM members WHERE id = $1 AND phone_verified_at = $2 AND version = 1"
    assert await count(db, proven, member, clock()) == 1


async def test_wrong_codes_count_down_to_the_end(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """Each says at its field how many are left; the fifth closes the change, and nothing is different."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    challenge = await claim(person, tenant, "email", NEW)
    path = f"/t/{tenant.slug}/contacts/email/confirm"
    typed = wrong(await current_code(db, ring, challenge))
    for left in ("4 attempts", "3 attempts", "2 attempts", "1 attempt"):
        answer = await person.submit(path, {"code": typed})
        assert answer.status_code == 401
        assert f"{left} left" in person.text
        assert 'id="f-code-error"' in answer.text
        assert typed not in answer.text, "a wrong code is typed anew"
    answer = await person.submit(path, {"code": typed})
    assert answer.status_code == 429
    assert "so this change is closed" in person.text
    assert f'href="/t/{tenant.slug}/contacts/email"' in answer.text
    await person.open(path)
    assert "Too many attempts" in person.text
    assert await count(db, "SELECT count(*) FROM members WHERE tenant_id = $1 AND email = $2", tenant.id, EMAIL) == 1


async def test_an_expired_code_says_so(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """Typed or looked at too late: 410, and the way to a new one. Without a code under way there is nothing to type."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    path = f"/t/{tenant.slug}/contacts/email"
    await person.open(f"{path}/confirm")
    assert person.page.url.path == path
    challenge = await claim(person, tenant, "email", NEW)
    code = await current_code(db, ring, challenge)
    clock.forward(minutes=10)
    answer = await person.submit(f"{path}/confirm", {"code": code})
    assert answer.status_code == 410
    assert "The code has expired" in person.text
    assert (await person.open(f"{path}/confirm")).status_code == 410
    htmx = await person.client.get(f"{path}/confirm", headers={"HX-Request": "true"})
    assert "The code has expired. Ask for a new one" in htmx.text
    assert "<form" not in htmx.text


async def test_a_new_code_voids_the_old(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """Before the cooldown is over the page says how long to wait; after it the new code is the only one."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    challenge = await claim(person, tenant, "email", NEW)
    assert "You can ask for a new code in 60 seconds." in person.text
    path = f"/t/{tenant.slug}/contacts/email"
    first = await current_code(db, ring, challenge)
    clock.forward(seconds=20)
    answer = await person.submit(f"{path}/resend", {"channel": ""})
    assert answer.status_code == 429
    assert "You can ask again in 40 seconds." in person.text
    clock.forward(seconds=40)
    await person.submit(f"{path}/resend", {"channel": ""})
    assert "A new code is on its way." in person.text
    assert await sent_to(db, challenge) == NEW
    assert (await person.submit(f"{path}/confirm", {"code": first})).status_code == 401
    await person.submit(f"{path}/confirm", {"code": await current_code(db, ring, challenge)})
    assert "Your email address is verified." in person.text
    assert (await person.send(f"{path}/resend", {"channel": "sms"})).headers["location"] == path, "none is under way"


async def test_an_address_that_is_taken_looks_free(
    settings: Settings, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """Page after page the same, up to wrong codes, also where all is disclosed; its owner gets a word and no code."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await add_member(db, clock(), tenant, email="bo@home.example", name="Bo")
    stories = []
    for address in ("bo@home.example", "fr@home.example"):
        async with serve(settings, clock, otp_disclose_errors=True) as http, visitor(http) as person:
            await sign_in(person, db, ring, tenant.slug, EMAIL)
            story = []
            challenge = await claim(person, tenant, "email", address)
            story.append(looks(person, tenant.slug))
            typed = wrong(await current_code(db, ring, challenge))
            await person.submit(f"/t/{tenant.slug}/contacts/email/confirm", {"code": typed})
            story.append(looks(person, tenant.slug))
            clock.forward(seconds=60)
            await person.submit(f"/t/{tenant.slug}/contacts/email/resend", {"channel": ""})
            story.append(looks(person, tenant.slug))
            stories.append(re.sub(r"\d\d:\d\d UTC|T\d\d:\d\d:\d\d", "TIME", str(story)))
    assert "4 attempts left" in stories[0]
    assert stories[0] == stories[1]
    told = (
        "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind = 'notice' AND destination = 'bo@home.example' "
        "AND payload ->> 'template' = 'address_taken'"
    )
    assert await count(db, told, tenant.id) == 1


async def test_an_address_lost_meanwhile(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """Who proves an address that became somebody else's after the code was sent is told, and stays as they were."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    challenge = await claim(person, tenant, "email", NEW)
    await add_member(db, clock(), tenant, email=NEW, name="Bo")
    code = await current_code(db, ring, challenge)
    answer = await person.submit(f"/t/{tenant.slug}/contacts/email/confirm", {"code": code})
    assert answer.status_code == 409
    assert "Another member has this email address" in person.text


@pytest.mark.parametrize(
    ("name", "field", "typed"),
    [
        ("email", "email", "nonsense@"),
        ("email", "email", ""),
        ("phone", "phone_number", "12"),
        ("phone", "phone_number", ""),
    ],
)
async def test_what_is_wrong_stands_at_its_field(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant, name: str, field: str, typed: str
) -> None:
    """Refused with 400 before a code is sent, and what was typed is still there."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    path = f"/t/{tenant.slug}/contacts/{name}"
    await person.open(path)
    answer = await person.submit(path, {field: typed})
    assert answer.status_code == 400
    assert f'id="f-{field}-error"' in answer.text
    assert f'value="{typed}"' in answer.text
    assert (
        await count(db, "SELECT count(*) FROM challenges WHERE tenant_id = $1 AND purpose = 'contact'", tenant.id) == 0
    )


async def test_an_old_sign_in_is_not_enough(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """Eleven minutes later the page says so before anything is typed, refuses the form, and leads to a new sign-in."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    path = f"/t/{tenant.slug}/contacts/email"
    await person.open(path)
    clock.forward(minutes=11)
    answer = await person.submit(path, {"email": NEW})
    assert answer.status_code == 403
    assert "Sign in again: this can be changed within 10 minutes of a sign-in." in person.text
    await person.open(path)
    assert "To change anything here, sign in again" in person.text
    assert 'name="email"' not in person.page.text
    await person.submit(f"/t/{tenant.slug}/logout")
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    await claim(person, tenant, "email", NEW)


async def test_whose_pages_these_are(http: Http, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant) -> None:
    """A stranger is led to the sign-in, the organisation itself finds nothing; a session of another tenant is none."""
    await add_member(db, clock(), tenant, email=EMAIL)
    other = await add_tenant(db, clock())
    paths = ("contacts/email", "contacts/email/confirm", "contacts/phone", "consents", f"consents/{uuid4()}/withdraw")
    posts = ("contacts/email", "contacts/email/confirm", "contacts/email/resend", f"consents/{uuid4()}/withdraw")
    async with visitor(http) as person, visitor(http) as owner:
        await person.open(f"/t/{tenant.slug}/login")
        for path in paths:
            await person.open(f"/t/{tenant.slug}/{path}")
            assert person.page.url.path == f"/t/{tenant.slug}/login", path
        for path in posts:
            assert (await person.send(f"/t/{tenant.slug}/{path}")).headers["location"] == f"/t/{tenant.slug}/login", (
                path
            )
        await sign_in(person, db, ring, tenant.slug, EMAIL)
        for path in posts:
            answer = await person.send(f"/t/{other.slug}/{path}")
            assert answer.headers["location"] == f"/t/{other.slug}/login", path
        await owner.open(f"/t/{tenant.slug}/login")
        await owner.submit(f"/t/{tenant.slug}/login", {"identifier": ""})
        await owner.submit(f"/t/{tenant.slug}/verify", {"code": await current_code(db, ring, challenge_of(owner))})
        assert "/contacts/" not in owner.page.text
        assert "/consents" not in owner.page.text
        for path in paths:
            assert (await owner.open(f"/t/{tenant.slug}/{path}")).status_code == 404, path
        await owner.open(f"/t/{tenant.slug}/")
        for path in posts:
            assert (await owner.send(f"/t/{tenant.slug}/{path}")).status_code == 404, path


async def test_another_members_code_is_nobodys(
    http: Http, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """With the cookie and the right code of somebody else's change the answer is that of an expired one."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await add_member(db, clock(), tenant, email="bo@home.example", name="Bo")
    async with visitor(http) as ana, visitor(http) as bo:
        await sign_in(ana, db, ring, tenant.slug, EMAIL)
        await sign_in(bo, db, ring, tenant.slug, "bo@home.example")
        challenge = await claim(ana, tenant, "email", NEW)
        (name,) = [name for name in ana.cookies if "email-claim" in name]
        bo.client.cookies.set(name, ana.cookies[name])
        path = f"/t/{tenant.slug}/contacts/email/confirm"
        answer = await bo.submit(path, {"code": await current_code(db, ring, challenge)})
        assert answer.status_code == 410
        await ana.submit(path, {"code": await current_code(db, ring, challenge)})
        assert "Your email address is verified." in ana.text


async def test_forms_that_are_not_ours(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """A forged token is 403; a field that isn't there 400; a channel or kind that isn't there 404: nothing is sent."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    base = f"/t/{tenant.slug}/contacts"
    await claim(person, tenant, "email", NEW)
    asked = "SELECT count(*) FROM outbox WHERE tenant_id = $1"
    before = await count(db, asked, tenant.id)
    for path, fields in (("email", {"email": NEW}), ("email/confirm", {"code": "123456"}), ("email/resend", {})):
        assert (await person.send(f"{base}/{path}", {**fields, "csrf_token": "x" * 43})).status_code == 403, path
    assert (await person.send(f"{base}/email", {"email": NEW, "phone_number": PHONE})).status_code == 400
    assert (await person.send(f"{base}/email", {"email": NEW, "role": "owner"})).status_code == 400
    assert (await person.send(f"{base}/email/confirm", {"code": "123456", "email": NEW})).status_code == 400
    clock.forward(minutes=2)
    assert (await person.send(f"{base}/email/resend", {"channel": "sms"})).status_code == 404
    assert (await person.send(f"{base}/fax", {"email": NEW})).status_code == 404
    assert (await person.open(f"{base}/fax")).status_code == 404
    assert await count(db, asked, tenant.id) == before


async def test_without_text_messages_there_is_no_phone_page(
    settings: Settings, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """Where no channel reaches a phone, no page promises a code to it."""
    await add_member(db, clock(), tenant, email=EMAIL)
    async with serve(settings, clock) as http, visitor(http) as person:
        await sign_in(person, db, ring, tenant.slug, EMAIL)
        assert "contacts/email" in person.page.text
        assert "contacts/phone" not in person.page.text
        assert (await person.open(f"/t/{tenant.slug}/contacts/phone")).status_code == 404
