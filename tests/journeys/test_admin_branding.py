"""An admin gives a tenant's messages a look, and sees them before anybody else does. Over HTTP, without JavaScript."""

import re
from collections.abc import AsyncIterator
from html import unescape

import pytest

from app.audit.log import Actor, Client
from app.delivery.branding import Brandings
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.admins import Office, open_office
from tests.conftest import Clock
from tests.markup import faults
from tests.people import SomeTenant
from tests.unit.test_messages_branding import png

LOOK = {
    "sender_name": "Acme Water",
    "reply_to": "help@acme.example",
    "colour": "#aa0000",
    "code_in_subject": "no",
    "email_intro": "Your key to {{ tenant }}:",
    "sms_text": "{{ code }} opens the tap.",
}


@pytest.fixture
async def office(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Office]:
    async with open_office(settings, clock, db, ring) as opened:
        yield opened


def page_of(tenant: SomeTenant) -> str:
    return f"/admin/tenants/{tenant.slug}/branding"


async def save_elsewhere(office: Office, tenant: SomeTenant, **values: object) -> None:
    """A colleague's change, by another way."""
    await Brandings(office.db).set(tenant.id, values, now=office.clock(), actor=Actor("operator"), client=Client("cli"))


async def test_from_the_tenant_to_a_look(office: Office) -> None:
    """Linked from the tenant's page; what is saved stands in the form and in both previews."""
    tenant = await office.tenant(name="Acme")
    browser = await office.signed_in("manager")
    await browser.get(f"/admin/tenants/{tenant.slug}")
    assert f'href="{page_of(tenant)}"' in browser.page.text
    assert "Edit look" in browser.words

    await browser.get(page_of(tenant))
    assert browser.page.status_code == 200
    assert faults(browser.page.text) == []
    assert browser.value("version") == "0"
    await browser.post(page_of(tenant), {"version": "0", **LOOK})
    assert browser.page.headers["location"] == f"{page_of(tenant)}?done=saved"
    await browser.get(f"{page_of(tenant)}?done=saved")
    assert "The look is saved." in browser.words
    assert browser.value("sender_name") == "Acme Water"
    assert browser.value("version") == "1"
    assert "123456 opens the tap." in browser.words, "the SMS"
    frame = re.search(r'<iframe sandbox title="[^"]+" src="([^"]+)"', browser.page.text)
    assert frame
    mail = await browser.get(unescape(frame[1]))
    assert "Your key to Acme:" in mail.text


async def test_mistakes_stay_to_be_mended(office: Office) -> None:
    """Each fault stands at its field, everything typed is kept, and nothing is saved."""
    tenant = await office.tenant()
    browser = await office.signed_in("manager")
    wrong = {"colour": "red", "sms_text": "No code in it <b>", "code_in_subject": ""}
    await browser.press(page_of(tenant), page_of(tenant), {"version": "0", **LOOK, **wrong})
    assert browser.page.status_code == 422
    assert faults(browser.page.text) == []
    for name in wrong:
        assert f'href="#f-{name}"' in browser.page.text
    assert "This must be a colour such as #76530c." in browser.words
    assert browser.value("colour") == "red"
    assert browser.value("sender_name") == "Acme Water"
    assert "No code in it &lt;b&gt;</textarea>" in browser.page.text
    assert (await Brandings(office.db).get(tenant.id)).version == 0
    for version in ("", "x", "9" * 20):
        await browser.press(page_of(tenant), page_of(tenant), {"version": version, **LOOK})
        assert browser.page.status_code == 400


async def test_somebody_else_was_first(office: Office) -> None:
    """412 with what is saved now beside what was typed; a mistake on the way doesn't hide it; saving again decides."""
    tenant = await office.tenant()
    browser = await office.signed_in("manager")
    await browser.get(page_of(tenant))
    await save_elsewhere(office, tenant, sender_name="Theirs", colour="#aa0000")
    await browser.post(page_of(tenant), {"version": "0", **LOOK, "colour": "red"})
    assert (browser.page.status_code, browser.value("version")) == (422, "0")
    await browser.post(page_of(tenant), {"version": "0", **LOOK})
    assert browser.page.status_code == 412
    assert faults(browser.page.text) == []
    assert "Somebody else saved first" in browser.words
    assert "This is version 1" in browser.words
    assert '<span class="value" dir="auto">Theirs</span>' in browser.page.text
    assert '<span class="value" dir="auto">#aa0000</span>' not in browser.page.text, "both want it"
    assert browser.value("sender_name") == "Acme Water"
    await browser.post(page_of(tenant), {"version": browser.value("version"), **LOOK})
    assert browser.page.status_code == 303
    assert (await Brandings(office.db).get(tenant.id)).sender_name == "Acme Water"


async def test_the_preview_is_framed_by_us_alone_and_runs_nothing(office: Office) -> None:
    """Only this route may be framed, by our pages; only its page may frame; both are otherwise as strict as all."""
    tenant = await office.tenant(name="Acme <b>")
    await save_elsewhere(office, tenant, logo=png())
    browser = await office.signed_in("viewer")
    usual = (await browser.get(f"/admin/tenants/{tenant.slug}")).headers
    assert "frame-src" not in usual["content-security-policy"]
    page = (await browser.get(page_of(tenant))).headers
    assert page["content-security-policy"] == f"{usual['content-security-policy']}; frame-src 'self'"
    assert page["x-frame-options"] == usual["x-frame-options"] == "DENY"

    mail = await browser.get(f"{page_of(tenant)}/preview")
    policy = {part.split()[0]: part.split()[1:] for part in mail.headers["content-security-policy"].split("; ")}
    assert policy == {
        "sandbox": [],
        "default-src": ["'none'"],
        "style-src": ["'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'self'"],
    }
    assert mail.headers.get_list("x-frame-options") == ["SAMEORIGIN"]
    assert len(mail.headers.get_list("content-security-policy")) == 1
    assert mail.headers["cache-control"] == "no-store"
    assert "Acme &lt;b&gt;" in mail.text
    logo = f"/t/{tenant.slug}/logo?v="
    assert logo in mail.text
    assert logo in (await browser.get(page_of(tenant))).text
    assert "It is uploaded by the API" in browser.words


async def test_in_every_language(office: Office) -> None:
    """The one that is asked for, else the tenant's; what isn't one counts for nothing."""
    tenant = await office.tenant(locale="de-AT")
    browser = await office.signed_in("viewer")

    async def language(query: str) -> str:
        found = re.search(r'<html[^>]* lang="([^"]+)"', (await browser.get(f"{page_of(tenant)}/preview{query}")).text)
        assert found
        return found[1]

    assert [await language(query) for query in ("", "?locale=ar", "?locale=xx", "?locale=es")] == [
        "de",
        "ar",
        "de",
        "es",
    ]
    await browser.get(f"{page_of(tenant)}?locale=fr")
    assert '<option value="fr" selected>French' in browser.page.text
    assert "/preview?locale=fr" in browser.page.text


async def test_a_viewer_looks_on(office: Office) -> None:
    """The look and its preview, the address for answers masked, and no form to change anything."""
    tenant = await office.tenant()
    await save_elsewhere(office, tenant, reply_to="help@acme.example", code_in_subject=False)
    browser = await office.signed_in("viewer")
    await browser.get(f"/admin/tenants/{tenant.slug}")
    assert "See look" in browser.words
    await browser.get(page_of(tenant))
    assert faults(browser.page.text) == []
    assert "h***@acme.example" in browser.words
    assert "help@acme.example" not in browser.page.text
    assert "Only in the mail" in browser.words
    assert 'name="sender_name"' not in browser.page.text
    await browser.post(page_of(tenant), {"version": "1", **LOOK})
    assert browser.page.status_code == 403
