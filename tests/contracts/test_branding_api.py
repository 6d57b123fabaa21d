"""The look of a tenant's messages over the admin API: read by viewers, changed by managers, refused with a pointer."""

from base64 import b64encode
from typing import Any

import pytest

from admin_portal.api.branding import SIZE_LIMIT
from app.delivery.logo import MAX_BYTES
from app.storage.db import Database
from app.web.reading import BODY_LIMIT
from tests.adminapi import AdminApi, admin_api
from tests.conftest import Clock
from tests.http import Http
from tests.people import SomeTenant, add_tenant
from tests.unit.test_messages_branding import JPEG, WEBP_LOSSY, png

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def tenant(db: Database, clock: Clock) -> SomeTenant:
    return await add_tenant(db, clock.now)


@pytest.fixture
async def manager(http: Http, db: Database, clock: Clock) -> AdminApi:
    return await admin_api(http, db, clock, "manager")


def address(tenant: SomeTenant) -> str:
    return f"/tenants/{tenant.slug}/branding"


def base64(data: bytes) -> str:
    return b64encode(data).decode()


async def pointers(manager: AdminApi, tenant: SomeTenant, body: dict[str, Any]) -> set[str]:
    """Where a refused change is at fault."""
    answer = await manager("PUT", address(tenant), json=body)
    assert answer.status_code == 400, answer.text
    return {error["pointer"] for error in answer.json()["errors"]}


async def test_changed_and_read_again(manager: AdminApi, tenant: SomeTenant) -> None:
    """What is named is saved in its normal form, what isn't stays, and null clears; the version is the ETag."""
    plain = await manager("GET", address(tenant))
    assert plain.status_code == 200
    assert plain.headers["etag"] == '"0"'
    assert plain.json() == {
        "sender_name": None,
        "reply_to": None,
        "colour": None,
        "logo": None,
        "code_in_subject": True,
        "email_intro": None,
        "sms_text": None,
        "version": 0,
    }
    changed = await manager("PUT", address(tenant), json={"sender_name": " Acme ", "colour": "#ABC"})
    assert changed.status_code == 200, changed.text
    changed = await manager("PUT", address(tenant), json={"code_in_subject": False, "sender_name": None})
    assert changed.headers["etag"] == '"2"'
    assert changed.json() == plain.json() | {"colour": "#aabbcc", "code_in_subject": False, "version": 2}
    assert (await manager("GET", address(tenant))).json() == changed.json()


@pytest.mark.parametrize(
    ("image", "media_type"), [(png(), "image/png"), (JPEG, "image/jpeg"), (WEBP_LOSSY, "image/webp")]
)
async def test_a_logo_goes_up_and_is_served(
    http: Http, manager: AdminApi, tenant: SomeTenant, image: bytes, media_type: str
) -> None:
    """In base64; its address answers with the same bytes until null takes it away."""
    logo = (await manager("PUT", address(tenant), json={"logo": base64(image)})).json()["logo"]
    assert (logo["media_type"], logo["width"], logo["height"]) == (media_type, 120, 40)
    served = await http.client.get(logo["url"])
    assert (served.status_code, served.headers["content-type"], served.content) == (200, media_type, image)
    assert (await manager("PUT", address(tenant), json={"logo": None})).json()["logo"] is None
    assert (await http.client.get(logo["url"])).status_code == 404


async def test_wrong_logos(manager: AdminApi, tenant: SomeTenant) -> None:
    """Another type, no base64, too many bytes: a refusal at /logo. The largest one fits, with everything else."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    heavy = png() + bytes(MAX_BYTES)
    for wrong in (base64(svg), "not base64!", base64(heavy), 7):
        assert await pointers(manager, tenant, {"logo": wrong}) == {"/logo"}
    largest = base64(png() + bytes(MAX_BYTES - len(png())))
    words = {"email_intro": "é" * 300, "sms_text": "{{ code }}" + "é" * 240}
    answer = await manager("PUT", address(tenant), json={"logo": largest} | words)
    assert answer.status_code == 200, answer.text


async def test_too_large_a_body(manager: AdminApi, tenant: SomeTenant) -> None:
    """413 above a limit that is this route's own: the neighbours keep the usual one."""
    answer = await manager("PUT", address(tenant), content=b" " * (SIZE_LIMIT + 1), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload-too-large")
    answer = await manager("PATCH", f"/tenants/{tenant.slug}", content=b" " * (BODY_LIMIT + 1), headers=JSON)
    assert answer.status_code == 413


async def test_every_fault_is_told(manager: AdminApi, tenant: SomeTenant) -> None:
    """All at once, each at its field; nothing is saved."""
    body = {"sender_name": "a@b", "reply_to": "nobody", "colour": "red", "email_intro": "{{ code }}", "sms_text": "Hi"}
    assert await pointers(manager, tenant, body | {"code_in_subject": True}) == {f"/{name}" for name in body}
    assert await pointers(manager, tenant, {"code_in_subject": "yes"}) == {"/code_in_subject"}
    assert await pointers(manager, tenant, {"shade": "#abc"}) == {"/shade"}
    assert (await manager("GET", address(tenant))).json()["version"] == 0


async def test_two_admins_at_once(manager: AdminApi, tenant: SomeTenant) -> None:
    """If-Match with the version that was read: the second is refused, and the first's change stays."""
    first, second = ({"json": {"colour": colour}, "headers": {"If-Match": '"0"'}} for colour in ("#111111", "#222222"))
    assert (await manager("PUT", address(tenant), **first)).status_code == 200
    refused = await manager("PUT", address(tenant), **second)
    assert (refused.status_code, refused.json()["code"]) == (412, "edit-conflict")
    assert refused.json()["current_version"] == 1
    assert (await manager("GET", address(tenant))).json()["colour"] == "#111111"
    anyway = await manager("PUT", address(tenant), json={"colour": "#222222"}, headers={"If-Match": "*"})
    assert anyway.status_code == 200


async def test_a_viewer_reads_masked_and_changes_nothing(
    http: Http, db: Database, clock: Clock, manager: AdminApi, tenant: SomeTenant
) -> None:
    """The address for answers is somebody's contact."""
    await manager("PUT", address(tenant), json={"reply_to": "help@acme.example"})
    viewer = await admin_api(http, db, clock, "viewer")
    assert (await viewer("GET", address(tenant))).json()["reply_to"] == "h***@acme.example"
    assert (await manager("GET", address(tenant))).json()["reply_to"] == "help@acme.example"
    refused = await viewer("PUT", address(tenant), json={"reply_to": None})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_nobodys_branding(manager: AdminApi) -> None:
    """404 for a slug that nobody has."""
    for method in ("GET", "PUT"):
        answer = await manager(method, "/tenants/nobody-has-this/branding", json={})
        assert (answer.status_code, answer.json()["code"]) == (404, "tenant-not-found")


async def test_its_documentation(http: Http) -> None:
    """The reference names every refusal there is, and the logo as text in base64."""
    document = (await http.get("/docs/openapi.json")).json()
    operation = document["paths"]["/api/v1/admin/tenants/{slug}/branding"]["put"]
    assert {"200", "400", "401", "403", "404", "412", "413", "503"} <= operation["responses"].keys()
    logo = str(document["components"]["schemas"]["BrandingChangeRequest"]["properties"]["logo"])
    assert "base64" in logo
    assert "'string'" in logo
