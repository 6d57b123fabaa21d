"""What a refusal does to the contact it concerned, and what staff read of it: real stores, a real mail server."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.audit.log import Actor, Client
from app.audit.overview import Overview
from app.audit.timeline import Timeline
from app.delivery.callbacks.posted import Report
from app.delivery.callbacks.reports import Reports
from app.delivery.faults import Fault
from app.delivery.marks import Marks
from app.keys import KeyRing
from app.members.service import Members
from app.settings import Settings
from app.storage.db import Database
from app.tenants.service import Tenants
from tests.admins import AdminBrowser, Office, open_office
from tests.conftest import Clock
from tests.deliveries import Works
from tests.mailserver import MailServer, mail_server
from tests.people import SomeTenant, add_member

BY, SHELL = Actor("operator"), Client("cli")
BLOCKED = "550 5.7.1 Service unavailable, client host [203.0.113.9] blocked using zen.example"
GONE = "550 5.1.1 no such user"


@dataclass
class Here:
    """An installation whose mail server answers as it is told, and its staff."""

    office: Office
    mail: MailServer
    works: Works
    settings: Settings

    async def ask(self, tenant: SomeTenant, answer: str | None = None, **body: Any) -> None:
        """A code is asked for and sent; the server gives this answer to the recipient."""
        asked = await self.office.http.otp(tenant.slug, "request", body)
        assert asked.status_code == 202, asked.text
        await self.sending(answer)

    async def sending(self, answer: str | None = None) -> None:
        """The worker sends what is due."""
        if answer:
            self.mail.answers["RCPT"].append(answer)
        async with self.works.running():
            await self.mail.asked("RCPT", self.mail.count("RCPT") + 1)

    async def marked(self, tenant: SomeTenant, subject: UUID | None = None) -> list[tuple[str, str]]:
        """Channel and class of a contact's marks."""
        marks = await Marks(self.office.db, self.office.clock).of(tenant.id, subject or tenant.id)
        return [(mark.channel, mark.error_class) for mark in marks]

    async def story(self, tenant: SomeTenant) -> list[str]:
        """What staff read, newest first."""
        return [
            entry.text for entry in (await Timeline(self.office.db).read(tenant.id, {}, sees_contacts=True)).entries
        ]

    async def message_id(self, tenant: SomeTenant) -> str:
        """What a bounce would call the tenant's newest mail."""
        async with self.office.db.every_tenant() as connection:
            key: str = await connection.fetchval(
                "SELECT report_key FROM outbox WHERE tenant_id = $1 ORDER BY created_at DESC LIMIT 1", tenant.id
            )
        return key.removeprefix("smtp:")

    async def bounce(self, message_id: str) -> None:
        """The next server's "no such user" comes back."""
        reports = Reports(self.office.db, {}, self.office.clock, lambda: None)
        await reports.write("smtp", Report(message_id, "failed", Fault.RECIPIENT, GONE))

    def tenants(self) -> Tenants:
        return Tenants(self.office.db, self.settings, self.office.clock, lambda: None)

    async def page(self, path: str, role: str = "manager") -> AdminBrowser:
        browser = await self.office.signed_in(role)
        await browser.get(path)
        assert browser.page.status_code == 200
        return browser


@pytest.fixture
async def here(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Here]:
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM outbox; DELETE FROM provider_reports; DELETE FROM contact_health")
    # A time of its own: home looks at a day.
    clock.now = datetime(2031, 5, 1, 9, 0, tzinfo=UTC) + timedelta(days=id(clock) % 3000)
    async with mail_server() as mail, open_office(settings, clock, db, ring) as office:
        yield Here(office, mail, Works(settings, ring, clock, mail), settings)


async def test_a_blocklist_is_ours_to_mend_and_said_once(here: Here) -> None:
    """Three tenants' codes are refused: no address is branded, and home says it once, until it is mended."""
    tenants = [await here.office.tenant(name=f"Blocked {number}") for number in range(3)]
    for tenant in tenants:
        await here.ask(tenant, BLOCKED)
        assert await here.marked(tenant) == []
        assert (await here.story(tenant))[0] == "Not delivered: the mail server refuses us"
    found = await Overview(here.office.db).read(here.office.clock())
    assert found.failing == []
    assert found.providers == []
    ((refusing),) = found.refusing
    assert (refusing.name, refusing.channel, refusing.messages, refusing.tenants) == ("smtp", "email", 3, 3)
    home = await here.page("/admin", "viewer")
    assert home.page.text.count("<strong>smtp refuses our Email messages</strong>") == 1
    assert 'It said: "550 5.7.1 Service unavailable' in home.words
    assert "3 messages of 3 tenants" in home.words
    assert "Blocked 1" not in home.words

    there = await here.page(f"/admin/tenants/{tenants[0].slug}")
    assert "a new contact won't help: the home page says what to fix" in there.words
    assert "Failing" not in there.words
    listed = await here.page(f"/admin/tenants?q={tenants[0].slug}&contact=failing")
    assert "No tenant matches." in listed.words

    here.office.clock.forward(minutes=2)
    for tenant in tenants:
        await here.ask(tenant)
    assert (await Overview(here.office.db).read(here.office.clock())).refusing == []


async def test_what_a_second_provider_takes_is_still_said(here: Here) -> None:
    """One provider refused us, the next one took the message: nobody was kept waiting, and it is to be mended."""
    tenant = await here.office.tenant()
    async with here.office.db.every_tenant() as connection:
        for state, provider, error_class in (("queued", "twilio", "credentials"), ("sent", "vonage", None)):
            await connection.execute(
                "INSERT INTO delivery_events (tenant_id, at, outbox_id, kind, channel, state, provider, error_class) "
                "VALUES ($1, $2, $1, 'code', 'sms', $3, $4, $5)",
                tenant.id,
                here.office.clock(),
                state,
                provider,
                error_class,
            )
    found = await Overview(here.office.db).read(here.office.clock())
    assert [(one.name, one.error_class) for one in found.refusing] == [("twilio", "credentials")]
    assert (await here.story(tenant))[-1] == "Not taken: the provider rejected our credentials"


async def test_greylisting_is_one_line_with_its_tries(here: Here) -> None:
    """However often the server asks us to come back; once the mail is through it is told as over."""
    tenant = await here.office.tenant()
    here.mail.answers["RCPT"].extend(["450 4.2.0 Greylisted"] * 4)
    asked = await here.office.http.otp(tenant.slug, "request")
    assert asked.status_code == 202
    async with here.works.running():
        await here.mail.asked("RCPT", 4)
        held = await Timeline(here.office.db).read(tenant.id, {}, sees_contacts=True)
        while sum(h.what == "delivery.queued" for h in held.happenings) < 3:
            held = await Timeline(here.office.db).read(tenant.id, {}, sees_contacts=True)
        await here.mail.next()
    waiting = next(entry for entry in held.entries if entry.look == "queued")
    assert waiting.text == "Still trying: the mail server asked us to come back"
    entries = (await Timeline(here.office.db).read(tenant.id, {}, sees_contacts=True)).entries
    assert [entry.text for entry in entries] == [
        "Accepted by the mail server",
        "Put off: the mail server asked us to come back",
        "Code asked for",
    ]
    assert "4 tries" in entries[1].notes
    assert entries[1].since is not None
    assert await here.marked(tenant) == []


@pytest.mark.parametrize("answer", ["552 5.2.2 over quota", "550 5.2.1 disabled"])
async def test_a_mailbox_that_takes_nothing_is_said_and_not_held_against_the_address(here: Here, answer: str) -> None:
    """Another channel may reach them; nobody looks for another address."""
    tenant = await here.office.tenant()
    await here.ask(tenant, answer)
    assert await here.marked(tenant) == []
    page = await here.page(f"/admin/tenants/{tenant.slug}")
    assert "another channel may reach them" in page.words
    assert "Failing" not in page.words


async def test_a_mark_goes_with_the_next_arrival(here: Here) -> None:
    """Accepted by a mail server is arrived, as long as nothing else comes."""
    tenant = await here.office.tenant()
    await here.ask(tenant, GONE)
    assert await here.marked(tenant) == [("email", "recipient")]
    here.office.clock.forward(minutes=2)
    await here.ask(tenant)
    assert await here.marked(tenant) == []
    page = await here.page(f"/admin/tenants/{tenant.slug}")
    assert "bounced" not in page.words.split("Why didn")[0]


@pytest.mark.parametrize("by_page", [True, False])
async def test_staff_take_a_mark_off(here: Here, by_page: bool) -> None:
    """With one button; advice and badge go at once, and it is told who did it."""
    tenant = await here.office.tenant()
    await here.ask(tenant, GONE)
    base = f"/admin/tenants/{tenant.slug}"
    browser = await here.page(base)
    assert "Failing" in browser.words
    assert "The email address bounced. Ask for a new one" in browser.words
    if by_page:
        await browser.post(f"{base}/clear-failing")
        assert browser.page.headers["location"] == f"{base}?done=cleared#contact"
    else:
        marks = Marks(here.office.db, here.office.clock)
        assert await marks.clear(tenant.id, actor=BY, client=SHELL) == ["email"]
        assert await marks.clear(tenant.id, actor=BY, client=SHELL) == []
    await browser.get(base)
    assert "Failing" not in browser.words
    assert "Advice" not in browser.words
    assert "Contact said to work again" in browser.words
    assert await here.marked(tenant) == []
    assert (await Overview(here.office.db).read(here.office.clock())).failing == []


async def test_a_members_contact_likewise(here: Here) -> None:
    """The mark is the member's, not the tenant's; correcting the address ends it, and so does the button."""
    tenant = await here.office.tenant()
    member = await add_member(here.office.db, here.office.clock(), tenant, email="ana@home.example")
    await here.ask(tenant, GONE, identifier="ana@home.example")
    assert (await here.marked(tenant), await here.marked(tenant, member)) == ([], [("email", "recipient")])
    base = f"/admin/tenants/{tenant.slug}/members/{member}"
    browser = await here.page(base)
    assert "The email address bounced. Ask for a new one" in browser.words
    assert "It works again" in browser.words
    whole = await here.page(f"/admin/tenants/{tenant.slug}")
    assert "Advice" not in whole.words, "the tenant's own contact is fine"

    await browser.get(base)
    await browser.post(f"{base}/clear-failing")
    await browser.get(base)
    assert "bounced" not in browser.words.split("Why didn")[0]
    assert await here.marked(tenant, member) == []

    here.office.clock.forward(hours=1, minutes=2)
    await here.ask(tenant, GONE, identifier="ana@home.example")
    assert await here.marked(tenant, member) == [("email", "recipient")]
    members = Members(here.office.db, here.settings, here.office.clock, lambda: None)
    await members.update(tenant.slug, member, {"email": "ana@new.example"}, actor=BY, client=SHELL)
    assert await here.marked(tenant, member) == []
    await browser.get(base)
    assert "bounced" not in browser.words.split("Why didn")[0]


async def test_a_late_bounce_of_the_old_address_says_nothing_of_the_new_one(here: Here) -> None:
    """It comes after the correction, as bounces do; and the arrival at the old one proves nothing either."""
    tenant = await here.office.tenant()
    await here.ask(tenant)
    old = await here.message_id(tenant)
    await here.tenants().update(tenant.slug, {"email": "new@acme.example"}, actor=BY, client=SHELL)
    await here.bounce(old)
    assert await here.marked(tenant) == []
    assert "Not delivered: there is no such address, or it takes no mail" in await here.story(tenant)
    page = await here.page(f"/admin/tenants/{tenant.slug}")
    assert "Failing" not in page.words
    assert "The email address bounced" not in page.words
    assert (await Overview(here.office.db).read(here.office.clock())).failing == []

    here.office.clock.forward(minutes=2)
    async with here.works.running():
        await here.mail.asked("RCPT", 2)
    here.office.clock.forward(hours=1)
    await here.ask(tenant)
    await here.bounce(await here.message_id(tenant))
    assert await here.marked(tenant) == [("email", "recipient")]


async def test_an_address_that_is_yet_to_be_proven_marks_nobody(here: Here) -> None:
    """Somebody registers with an address that doesn't exist: the tenant's own contact has nothing to do with it."""
    tenant = await here.office.tenant(policy={"registration": "open"})
    asked = await here.office.http.client.post(
        f"/api/v1/tenants/{tenant.slug}/members",
        json={
            "name": "Bo",
            "email": "nobody@nowhere.example",
            "consent": {"document": "terms", "version": "2026-01"},
        },
    )
    assert asked.status_code == 202, asked.text
    await here.sending(GONE)
    async with here.office.db.every_tenant() as connection:
        assert await connection.fetchval("SELECT count(*) FROM contact_health WHERE tenant_id = $1", tenant.id) == 0
