"""Where everybody signs in with a password, nobody becomes a member without one."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, serve
from tests.pages import visitor
from tests.people import CONSENT, add_member, add_tenant, count, current_code

EMAIL, PASSWORD = "ana@home.example", "correct horse battery"
ANA = {"name": "Ana Silva", "email": EMAIL, "consent": CONSENT}
SHOP = {"first_factor": "password", "registration": "open"}
WANTED = {"pointer": "/password", "detail": "This organisation asks for a password."}


@pytest.fixture
async def http(settings: Settings, clock: Clock) -> AsyncIterator[Http]:
    async with serve(settings, clock, otp_disclose_errors=False) as served:
        yield served


async def register(http: Http, slug: str, **more: Any) -> httpx.Response:
    """`POST …/members` of somebody with a name."""
    return await http.post(f"/api/v1/tenants/{slug}/members", ANA | more)


async def test_it_is_asked_for_before_a_code_is_sent(http: Http, db: Database, clock: Clock) -> None:
    """Refused at the field, whoever may register there; nothing is sent, no quota spent. With one a code goes out."""
    tenant = await add_tenant(db, clock(), policy=SHOP)
    shut = await add_tenant(db, clock(), policy=SHOP | {"registration": "closed"})
    taken = await add_tenant(db, clock(), policy=SHOP)
    await add_member(db, clock(), taken, email=EMAIL)
    for slug in (tenant.slug, shut.slug, taken.slug):
        for _ in range(4):
            refused = await register(http, slug)
            assert (refused.status_code, refused.json()["errors"]) == (400, [WANTED])
    sent = "SELECT count(*) FROM outbox WHERE tenant_id = ANY ($1)"
    assert await count(db, sent, [tenant.id, shut.id, taken.id]) == 0
    for slug in (tenant.slug, shut.slug, taken.slug):
        assert (await register(http, slug, password=PASSWORD)).status_code == 202
    assert await count(db, sent, [tenant.id, shut.id, taken.id]) == 3


@pytest.mark.parametrize("consent", [None, {"document": "terms"}, {"document": " ", "version": "1"}])
async def test_nobody_becomes_a_member_without_consent(
    http: Http, db: Database, ring: KeyRing, clock: Clock, consent: dict[str, str] | None
) -> None:
    """Neither by code nor by the token of a proven address, wherever they would register; the token stays good."""
    tenant = await add_tenant(db, clock(), policy={"registration": "open"})
    shut = await add_tenant(db, clock())
    for slug in (tenant.slug, shut.slug, "nobody-at-all"):
        refused = await register(http, slug, consent=consent)
        assert refused.status_code == 400
        assert refused.json()["errors"][0]["pointer"].startswith("/consent")
    challenge = (await http.otp(tenant.slug, "request", {"identifier": EMAIL})).json()["challenge_id"]
    body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
    token = (await http.otp(tenant.slug, "verify", body)).json()["registration_token"]
    refused = await register(http, tenant.slug, registration_token=token, consent=consent)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid-request")
    assert (await register(http, tenant.slug, registration_token=token)).status_code == 200
    assert await count(db, "SELECT count(*) FROM consents WHERE tenant_id = $1", tenant.id) == 1


async def test_all_that_is_wrong_with_a_registration_is_told_at_once(http: Http) -> None:
    """Each fault at its field; and the reference says that consent is needed."""
    body = {"name": "", "email": "ana at home", "password": "short", "consent": {"document": " ", "version": "1"}}
    refused = await http.post("/api/v1/tenants/anybody/members", body)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid-request")
    pointers = {error["pointer"] for error in refused.json()["errors"]}
    assert pointers == {"/name", "/email", "/password", "/consent/document"}
    schema = (await http.get("/docs/openapi.json")).json()["components"]["schemas"]["RegistrationRequest"]
    assert set(schema["required"]) == {"name", "consent"}


async def test_elsewhere_it_is_not(http: Http, db: Database, clock: Clock) -> None:
    """A tenant of codes, a slug nobody has and a suspended tenant, whatever its policy was, answer alike."""
    plain = await add_tenant(db, clock(), policy={"registration": "open"})
    off = await add_tenant(db, clock(), policy=SHOP, status="suspended")
    answers = [await register(http, slug) for slug in (plain.slug, off.slug, "nobody-at-all")]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({tuple(sorted(answer.json())) for answer in answers}) == 1


async def test_a_proven_address_waits_for_it(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """The second path, by token: refused likewise, and the token is still good for a try with a password."""
    tenant = await add_tenant(db, clock(), policy={"registration": "open"})
    challenge = (await http.otp(tenant.slug, "request", {"identifier": EMAIL})).json()["challenge_id"]
    body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
    token = (await http.otp(tenant.slug, "verify", body)).json()["registration_token"]
    async with db.tenant(tenant.id) as connection:
        await connection.execute("UPDATE tenants SET policy = $1", SHOP)
    refused = await register(http, tenant.slug, registration_token=token)
    assert (refused.status_code, refused.json()["errors"]) == (400, [WANTED])
    assert await count(db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 0
    made_up = await register(http, tenant.slug, registration_token=token[:-4] + "AAAA")
    assert made_up.status_code == 410, "who has no token learns nothing by it"
    entered = await register(http, tenant.slug, registration_token=token, password=PASSWORD)
    assert entered.status_code == 200, entered.text
    assert entered.json()["subject"]["kind"] == "member"


async def test_the_page_says_it_at_the_field(http: Http, db: Database, clock: Clock) -> None:
    """What was typed besides is kept, and with a password the code is asked for."""
    tenant = await add_tenant(db, clock(), policy=SHOP)
    page = f"/t/{tenant.slug}/register"
    typed = {"name": "Ana Silva", "email": EMAIL, "consent": "yes", "document": "terms", "version": "1"}
    async with visitor(http) as person:
        await person.open(page)
        await person.submit(page, typed)
        assert person.page.status_code == 400
        assert 'id="f-password-error"' in person.page.text
        assert "This organisation asks for a password." in person.text
        assert f'value="{EMAIL}"' in person.page.text
        await person.submit(page, typed | {"password": PASSWORD})
        assert person.page.url.path == f"/t/{tenant.slug}/verify"
