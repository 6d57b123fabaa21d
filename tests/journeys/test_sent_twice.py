"""A form whose answer is lost, or that is pressed twice: it leads where the first one led, and is done once.

Every form of both portals that does something once. A line in `FORMS` is a form; each is sent again after its answer
was lost, sent several times at once, and sent by another browser.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from app.audit.log import Actor, Client
from app.auth.codes import read_challenge_id
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.delivery.disowning import token_for
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from tests.admins import add_admin
from tests.conftest import Clock
from tests.factors import App
from tests.http import Http, serve
from tests.pages import Visitor, challenge_of, visitor
from tests.people import SomeTenant, add_member, add_tenant, count, current_code, wrong

EMAIL: Final = "ana@home.example"
NEW: Final = "ana@work.example"
PASSWORD: Final = "a window left ajar"
HTTPS: Final = "https://login.example"
_SIGNING_IN: Final = ("sessions", "challenges", "devices", "half_sign_ins", "sign_in_links", "factors", "backup_codes")
_SPENT: Final = ("outbox", "quota", "refusals", "activity", "audit_events")
_TABLES: Final = (*_SIGNING_IN, *_SPENT, "tenants", "members", "claims", "consents")


async def everything(db: Database) -> dict[str, list[str]]:
    """All that a form could do, spend or count."""
    async with db.every_tenant() as connection:
        return {
            table: [row[0] for row in await connection.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")]
            for table in _TABLES
        }


@dataclass(frozen=True, slots=True)
class House:
    """One installation, somebody at a browser, and the form that they are about to send."""

    http: Http
    db: Database
    ring: KeyRing
    clock: Clock
    sessions: Sessions
    person: Visitor
    tenant: SomeTenant

    @property
    def at(self) -> str:
        return f"/t/{self.tenant.slug}"

    async def code(self, cookie: str = "challenge") -> str:
        return await current_code(self.db, self.ring, challenge_of(self.person, cookie))

    async def lose(self, path: str, fields: Mapping[str, str] | None = None, **options: Any) -> httpx.Response:
        """Sends the form of the page; its answer never gets to the browser."""
        jar = self.person.client.cookies.jar
        before = list(jar)
        answer = await self.person.send(path, fields, **options)
        jar.clear()
        for cookie in before:
            jar.set_cookie(cookie)
        return answer


Form = tuple[str, dict[str, str]]
Prepared = Callable[[House], Awaitable[Form]]


async def ask_for_a_code(house: House) -> Form:
    await house.person.open(f"{house.at}/login")
    return f"{house.at}/login", {"identifier": ""}


async def ask_as_a_member(house: House) -> Form:
    await add_member(house.db, house.clock(), house.tenant, email=EMAIL)
    await house.person.open(f"{house.at}/login")
    return f"{house.at}/login", {"identifier": EMAIL, "password": "", "channel": ""}


async def ask_for_nobody(house: House) -> Form:
    await house.person.open("/t/nobody-has-this/login")
    return "/t/nobody-has-this/login", {"identifier": ""}


async def type_the_code(house: House) -> Form:
    await house.person.open(f"{house.at}/login")
    await house.person.submit(f"{house.at}/login", {"identifier": ""})
    return f"{house.at}/verify", {"code": await house.code(), "remember_device": "yes"}


async def type_a_wrong_code(house: House) -> Form:
    path, fields = await type_the_code(house)
    return path, {"code": wrong(fields["code"])}


async def have_it_resent(house: House) -> Form:
    await type_the_code(house)
    house.clock.forward(seconds=61)
    return f"{house.at}/resend", {"channel": ""}


async def have_it_resent_too_early(house: House) -> Form:
    await type_the_code(house)
    return f"{house.at}/resend", {"channel": ""}


async def register(house: House) -> Form:
    path = f"{house.at}/register"
    await house.person.open(path)
    hidden = dict(re.findall(r'<input type="hidden" name="(document|version)" value="([^"]*)"', house.person.page.text))
    told = {"name": "Ana Silva", "email": EMAIL, "phone_number": "", "password": "", "consent": "yes"}
    return path, {**told, **hidden}


async def become_a_member(house: House) -> Form:
    path, fields = await register(house)
    await house.person.submit(path, fields)
    return f"{house.at}/verify", {"code": await house.code()}


async def register_where_the_address_is_proven(house: House) -> Form:
    await house.person.open(f"{house.at}/login")
    await house.person.submit(f"{house.at}/login", {"identifier": EMAIL})
    await house.person.submit(f"{house.at}/verify", {"code": await house.code()})
    assert house.person.page.url.path == f"{house.at}/register", house.person.text
    path, fields = await register(house)
    return path, {**fields, "email": ""}


async def signed_in(house: House, identifier: str = "") -> None:
    if identifier:
        await add_member(house.db, house.clock(), house.tenant, email=identifier)
    await house.person.open(f"{house.at}/login")
    await house.person.submit(f"{house.at}/login", {"identifier": identifier})
    await house.person.submit(f"{house.at}/verify", {"code": await house.code()})
    assert house.person.page.url.path == f"{house.at}/", house.person.text


async def with_an_app(house: House) -> App:
    """Sets an app up on the page and signs out."""
    person, base = house.person, f"{house.at}/factors"
    await signed_in(house)
    await person.open(base)
    await person.submit(f"{base}/totp")
    shown = re.search(r"secret=([A-Z2-7]+)", person.page.text) or re.search(r"((?:[A-Z2-7]{4} ?){8})", person.text)
    assert shown, person.text
    app = App.scan(shown[1].replace(" ", ""), house.clock)
    await person.submit(f"{base}/totp/confirm", {"code": app.code()})
    await person.open(f"{house.at}/")
    await person.submit(f"{house.at}/logout")
    return app


async def prove_the_second_factor(house: House) -> Form:
    app = await with_an_app(house)
    path, fields = await type_the_code(house)
    await house.person.submit(path, fields)
    assert house.person.page.url.path == f"{house.at}/second-factor", house.person.text
    return f"{house.at}/second-factor", {"totp": app.next()}


async def reach_the_second_factor(house: House) -> Form:
    await with_an_app(house)
    return await type_the_code(house)


async def mistype_the_second_factor(house: House) -> Form:
    path, fields = await prove_the_second_factor(house)
    return path, {"totp": wrong(fields["totp"])}


async def confirm_an_app(house: House) -> Form:
    person, base = house.person, f"{house.at}/factors"
    await signed_in(house)
    await person.open(base)
    await person.submit(f"{base}/totp")
    shown = re.search(r"secret=([A-Z2-7]+)", person.page.text) or re.search(r"((?:[A-Z2-7]{4} ?){8})", person.text)
    assert shown, person.text
    return f"{base}/totp/confirm", {"code": App.scan(shown[1].replace(" ", ""), house.clock).code()}


async def press_a_link(house: House) -> Form:
    links = Links(house.db, house.sessions, house.clock)
    token = await links.create(house.tenant.id, ("tenant", house.tenant.id), Actor("operator"), Client("cli"))
    await house.person.open(f"{house.at}/link/{token}")
    return f"{house.at}/link/{token}", {}


async def disown_a_code(house: House) -> Form:
    await type_the_code(house)
    challenge = read_challenge_id(challenge_of(house.person))
    path = f"/not-me/{token_for(house.ring, house.tenant.id, challenge)}"
    await house.person.open(path)
    return path, {}


async def sign_out(house: House) -> Form:
    await signed_in(house)
    return f"{house.at}/logout", {}


async def end_the_others(house: House) -> Form:
    await signed_in(house)
    return f"{house.at}/sessions/end-others", {}


async def claim_an_address(house: House) -> Form:
    await signed_in(house, EMAIL)
    await house.person.open(f"{house.at}/contacts/email")
    return f"{house.at}/contacts/email", {"email": NEW}


async def prove_an_address(house: House) -> Form:
    path, fields = await claim_an_address(house)
    await house.person.submit(path, fields)
    return f"{path}/confirm", {"code": await house.code("email-claim")}


async def set_a_password(house: House) -> Form:
    await signed_in(house, EMAIL)
    await house.person.open(f"{house.at}/password")
    return f"{house.at}/password", {"password": PASSWORD}


async def staff_ask_for_a_code(house: House) -> Form:
    admin = await add_admin(house.db, house.clock)
    await house.person.open("/admin/sign-in")
    return "/admin/sign-in", {"email": admin.email, "next": "/admin/tenants"}


async def staff_type_the_code(house: House) -> Form:
    path, fields = await staff_ask_for_a_code(house)
    await house.person.submit(path, fields)
    return "/admin/sign-in/code", {"code": await house.code("admin_challenge"), "next": "/admin/tenants"}


async def staff_have_it_resent(house: House) -> Form:
    await staff_type_the_code(house)
    house.clock.forward(seconds=61)
    return "/admin/sign-in/resend", {"next": ""}


async def break_glass(house: House) -> Form:
    admin = await add_admin(house.db, house.clock)
    links = Links(house.db, house.sessions, house.clock)
    token = await links.create(SYSTEM_TENANT, ("admin", admin.id), Actor("operator"), Client("cli"))
    await house.person.open(f"/admin/link/{token}")
    return f"/admin/link/{token}", {}


async def staff(house: House, page: str) -> None:
    path, fields = await staff_type_the_code(house)
    await house.person.submit(path, fields)
    await house.person.open(page)
    assert house.person.page.url.path == page.partition("?")[0], house.person.text


async def staff_sign_out(house: House) -> Form:
    await staff(house, "/admin")
    return "/admin/sign-out", {}


async def add_an_organisation(house: House) -> Form:
    await staff(house, "/admin/tenants/new")
    slug = f"new-{uuid4().hex[:12]}"
    told = {"name": "New", "slug": slug, "email": "new@home.example", "phone_number": ""}
    return "/admin/tenants/new", {**told, "otp_delivery_method": "email", "locale": "en", "timezone": "UTC"}


async def send_a_test(house: House) -> Form:
    base = f"/admin/tenants/{house.tenant.slug}"
    await staff(house, base)
    return f"{base}/test-message", {"channel": "email"}


async def make_a_link(house: House) -> Form:
    base = f"/admin/tenants/{house.tenant.slug}"
    await staff(house, base)
    return f"{base}/sign-in-link", {}


async def add_a_person(house: House) -> Form:
    base = f"/admin/tenants/{house.tenant.slug}/members/new"
    await staff(house, base)
    told = {"name": "Ana", "email": EMAIL, "phone_number": "", "locale": "en"}
    return base, told


async def suspend_an_organisation(house: House) -> Form:
    base = f"/admin/tenants/{house.tenant.slug}/suspend"
    await staff(house, base)
    return base, {"reason": "They asked for it."}


async def save_the_look(house: House) -> Form:
    base = f"/admin/tenants/{house.tenant.slug}/branding"
    await staff(house, base)
    version = re.search(r'name="version" value="([^"]*)"', house.person.page.text)
    assert version
    look = {"sender_name": "Acme", "reply_to": "", "colour": "#004477", "code_in_subject": "no"}
    return base, {"version": version[1], **look, "email_intro": "", "sms_text": ""}


FORMS: Final[dict[str, Prepared]] = {
    each.__name__.replace("_", " "): each
    for each in (
        ask_for_a_code,
        ask_as_a_member,
        ask_for_nobody,
        type_the_code,
        type_a_wrong_code,
        have_it_resent,
        have_it_resent_too_early,
        register,
        become_a_member,
        register_where_the_address_is_proven,
        reach_the_second_factor,
        prove_the_second_factor,
        mistype_the_second_factor,
        confirm_an_app,
        press_a_link,
        disown_a_code,
        sign_out,
        end_the_others,
        claim_an_address,
        prove_an_address,
        set_a_password,
        staff_ask_for_a_code,
        staff_type_the_code,
        staff_have_it_resent,
        break_glass,
        staff_sign_out,
        add_an_organisation,
        send_a_test,
        make_a_link,
        add_a_person,
        suspend_an_organisation,
        save_the_look,
    )
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture
async def http(settings: Settings, clock: Clock) -> Any:
    async with serve(settings, clock, otp_ip_hourly_limit=1000) as served:
        yield served


@pytest.fixture
async def house(http: Http, db: Database, ring: KeyRing, clock: Clock, sessions: Sessions) -> Any:
    policy = {"registration": "open", "hourly_limit": 10, "per_minute_limit": 10}
    tenant = await add_tenant(db, clock(), policy=policy)
    async with visitor(http) as person:
        yield House(http, db, ring, clock, sessions, person, tenant)


@every_form
async def test_the_answer_is_lost(house: House, form: Prepared) -> None:
    """The browser sends it again: the same answer with the same cookies, and the database as it was."""
    path, fields = await form(house)
    first = await house.lose(path, fields)
    assert first.status_code in {200, 303, 401, 429}, first.text
    before = await everything(house.db)
    again = await house.person.send(path, fields)
    assert (again.status_code, again.headers.get("location")) == (first.status_code, first.headers.get("location"))
    assert again.headers.get_list("set-cookie") == first.headers.get_list("set-cookie")
    assert again.content == first.content
    assert await everything(house.db) == before
    if first.status_code == 303:
        landed = await house.person.open(first.headers["location"])
        assert landed.status_code == 200, landed.text
        assert landed.url.path == first.headers["location"].partition("?")[0].partition("#")[0]


@every_form
async def test_it_is_pressed_several_times(house: House, form: Prepared) -> None:
    """At once, and once more when the answer is there: all are answered as one."""
    path, fields = await form(house)
    answers = await asyncio.gather(*(house.lose(path, fields) for _ in range(3)))
    before = await everything(house.db)
    late = await house.person.send(path, fields)
    # By now the browser has the first one's cookies.
    latest = await house.person.send(path, fields)
    assert len({(each.status_code, each.headers.get("location"), each.content) for each in (*answers, late)}) == 1
    assert (latest.status_code, latest.headers.get("location")) == (late.status_code, late.headers.get("location"))
    assert await everything(house.db) == before


@every_form
async def test_another_browser_gets_nothing_of_it(house: House, form: Prepared) -> None:
    """Not even with the form's number and the challenge, when it lacks the cookie that the page was given to."""
    path, fields = await form(house)
    token = house.person.token
    stolen = {name: value for name, value in house.person.cookies.items() if "challenge" in name or "half" in name}
    await house.person.send(path, fields)
    before = await everything(house.db)
    async with visitor(house.http) as thief:
        for name, value in stolen.items():
            thief.client.cookies.set(name, value, domain="localhost.local")
        await thief.open("/login")
        answer = await thief.send(path, {**fields, "csrf_token": token})
        assert answer.status_code in {303, 403}
        if answer.status_code == 303:
            assert re.search(r"/(login|sign-in)(\?|$)", answer.headers["location"])
        assert not [name for name in thief.cookies if "session" in name or name == "gh_admin" or "device" in name]
    assert await everything(house.db) == before


async def test_a_fresh_page_is_a_new_wish_after_a_while(house: House) -> None:
    """Whoever goes back and asks the same again is led to the code under way. After the cooldown, or for another
    question, there is another code.
    """
    path, fields = await ask_for_a_code(house)
    sent = "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind IN ('code', 'decoy')"
    await house.lose(path, fields)
    await house.person.send(path, fields)
    await house.person.open(path)
    again = await house.person.send(path, fields)
    assert again.headers["location"] == f"{house.at}/verify?done=asked"
    assert await count(house.db, sent, house.tenant.id) == 1
    await house.person.open(path)
    await house.person.send(path, fields | {"identifier": "else@home.example"})
    assert await count(house.db, sent, house.tenant.id) == 2
    house.clock.forward(seconds=61)
    await house.person.open(path)
    await house.person.send(path, fields | {"identifier": "else@home.example"})
    assert await count(house.db, sent, house.tenant.id) == 3


async def test_later_it_is_no_repetition(house: House) -> None:
    """After two minutes nothing is kept: the code is used, and who is in is led on."""
    path, fields = await type_the_code(house)
    await house.person.send(path, fields)
    house.clock.forward(minutes=2)
    before = await everything(house.db)
    late = await house.person.send(path, fields)
    assert (late.status_code, late.headers["location"]) == (303, f"{house.at}/")
    assert await everything(house.db) == before


async def test_a_page_that_counts_no_more_says_so(house: House) -> None:
    """Not that a right is missing: what happened, and what to do."""
    await signed_in(house)
    answer = await house.person.submit(f"{house.at}/sessions/end-others", {"csrf_token": "A" * 64})
    assert answer.status_code == 403
    assert "This page was used already, or had been open for too long." in house.person.text
    assert "owner" not in house.person.text
    assert f'href="{house.at}/"' in answer.text


async def test_signing_out_ends_what_could_be_repeated(house: House) -> None:
    """Somebody else at the same computer goes back and sends the form again: the session that it gives is over."""
    path, fields = await type_the_code(house)
    page = house.person.page
    await house.person.submit(path, fields)
    await house.person.submit(f"{house.at}/logout")
    house.person.page = page
    await house.person.send(path, fields)
    house.clock.forward(seconds=4)
    await house.person.open(f"{house.at}/")
    assert house.person.page.url.path == f"{house.at}/login"


async def test_a_link_made_once_is_not_shown_to_an_ended_session(house: House) -> None:
    """What a page shows once is repeated to a session in force, and to no other."""
    path, fields = await make_a_link(house)
    shown = await house.lose(path, fields)
    assert "/link/" in shown.text
    page = house.person.page
    await house.lose("/admin/sign-out", {})
    house.clock.forward(seconds=4)
    house.person.page = page
    again = await house.person.send(path, fields)
    assert "/link/" not in again.text
    assert again.status_code == 303


async def test_over_two_web_processes(settings: Settings, house: House) -> None:
    """Nothing of it is kept in a process: the first try goes to one, the second one, at the same time, to another."""
    path, fields = await type_the_code(house)
    async with serve(settings, house.clock) as other, visitor(other) as twin:
        twin.client.cookies.update(house.person.client.cookies)
        twin.page = house.person.page
        first, second = await asyncio.gather(house.person.send(path, fields), twin.send(path, fields))
    assert first.headers.get_list("set-cookie") == second.headers.get_list("set-cookie")
    started = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'session.started'"
    assert await count(house.db, started, house.tenant.id) == 1
