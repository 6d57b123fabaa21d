"""An admin imports members from a file, over HTTP and without JavaScript."""

import re

import httpx

from tests.adminpages import base_of, looks, office, somebody, tenant
from tests.admins import AdminBrowser, Office
from tests.http import BASE_URL
from tests.markup import faults
from tests.people import SomeTenant, count

__all__ = ["office", "tenant"]


async def upload(
    browser: AdminBrowser, base: str, body: bytes, fields: dict[str, str] | None = None, origin: str = BASE_URL
) -> httpx.Response:
    """Sends a file as a browser does, with the token of the page it was on last."""
    sent = {"csrf_token": browser.token(), **(fields or {})}
    files = {"file": ("members.csv", body, "text/csv")}
    browser.page = await browser.client.post(f"{base}/import", data=sent, files=files, headers={"Origin": origin})
    return browser.page


async def test_a_file_is_checked_and_imported(office: Office, tenant: SomeTenant) -> None:
    """First what each row would do; then, with the same file again, it is done."""
    await somebody(office, tenant)
    await somebody(office, tenant, name="Ben Okri", email="ben@home.example")
    browser, base = await office.signed_in("manager"), base_of(tenant)
    await looks(browser, f"{base}/import")
    body = b"name,email,locale\nAna Maria,ana@home.example,en\nBen Okri,ben@home.example,en\nCleo,c@home.example,de\n"
    await upload(browser, base, body)
    assert (browser.page.status_code, faults(browser.page.text)) == (200, [])
    assert "In the file 1 1 1 0" in browser.words
    assert "Row 2 Ana Maria Changed: Name" in browser.words
    assert "Row 4 Cleo Added" in browser.words
    people = "SELECT count(*) FROM members WHERE tenant_id = $1"
    assert await count(office.db, people, tenant.id) == 2
    digest = re.search(r'name="checked" value="([^"]+)"', browser.page.text)
    assert digest
    await upload(browser, base, body + b"Dan,dan@home.example,en\n", {"checked": digest[1]})
    assert browser.page.status_code == 422
    assert "This is not the file that was checked." in browser.words
    assert await count(office.db, people, tenant.id) == 2
    await upload(browser, base, body, {"checked": digest[1]})
    assert browser.page.headers["location"] == f"{base}?done=members-imported"
    assert await count(office.db, people, tenant.id) == 3


async def test_a_faulty_file(office: Office, tenant: SomeTenant) -> None:
    """Every fault stands with its row and column, nothing is imported, and there is no button to do it all the same."""
    browser, base = await office.signed_in("manager"), base_of(tenant)
    await browser.get(f"{base}/import")
    body = b"name,email,phone_number\nAna,ana@home.example,12\n,nobody,\nCleo,c@home.example,\nDan,d***@home.example,\n"
    await upload(browser, base, body)
    assert (browser.page.status_code, faults(browser.page.text)) == (422, [])
    assert "In the file 1 0 0 3" in browser.words
    for words in (
        "Row 2 Phone number",
        "Row 3 Name Enter the name.",
        "Row 3 Email",
        "Row 5 Email This contact is masked",
    ):
        assert words in browser.words
    assert 'name="checked"' not in browser.page.text
    for what, words in (
        (b"", "Choose a file."),
        (b"name\n\xff\xfe", "The file is not in UTF-8."),
        (b"name,iban\nAna,1\n", "The first row has the names of the fields"),
    ):
        await upload(browser, base, what)
        assert browser.page.status_code == 422
        assert words in browser.words
    assert await count(office.db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 0


async def test_an_upload_is_guarded_as_any_form(office: Office, tenant: SomeTenant) -> None:
    """Another site's, one without the token, one with an unknown or repeated field: refused, nothing imported."""
    browser, base = await office.signed_in("manager"), base_of(tenant)
    body = b"name,email\nAna,ana@home.example\n"
    await browser.get(f"{base}/import")
    assert (await upload(browser, base, body, origin="https://evil.example")).status_code == 403
    await browser.get(f"{base}/import")
    assert (await upload(browser, base, body, {"csrf_token": "odd"})).status_code == 403
    await browser.get(f"{base}/import")
    assert (await upload(browser, base, body, {"odd": "1"})).status_code == 400
    await browser.get(f"{base}/import")
    assert (await upload(browser, base, body, {"file": "1"})).status_code == 400
    with_file = await browser.client.post(f"{base}/new", files={"name": ("x", b"x")}, headers={"Origin": BASE_URL})
    assert with_file.status_code == 415, "a form without a field for a file"
    await browser.get(f"{base}/import")
    await browser.post(f"{base}/import", {"file": "name"})
    assert "Choose a file." in browser.words
    assert await count(office.db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 0
