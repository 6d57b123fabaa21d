"""Bad input is refused with a pointer to the field; nothing is stored and no attempt is lost."""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import add_tenant, challenge_row, count, current_code

_TABLES = ("tenants", "challenges", "outbox", "quota", "refusals", "sessions", "audit_events")
_JSON = {"Content-Type": "application/json"}

NOT_CODES = {
    "empty": "",
    "null": None,
    "number": 123456,
    "true": True,
    "list": ["123456"],
    "object": {"code": "123456"},
    "five digits": "12345",
    "eleven digits": "12345678901",
    "letters": "12345a",
    "sign": "+123456",
    "exponent": "1e1000",
    "NUL": "123456\x00",
    "20 kB would be too much": "1" * 15_000,
}
NOT_IDENTIFIERS = {
    "two addresses": "a@example.com, b@example.com",
    "two by semicolon": "a@example.com;b@example.com",
    "header in it": "a@example.com\r\nBcc: b@example.com",
    "NUL": "a@example.com\x00",
    "no domain": "a@",
    "long": "a" * 10_000 + "@example.com",
    "empty": "",
    "words": "somebody",
    "national number": "07700 900123",
    "phone with letters": "+44CALLME",
    "too long a number": "+" + "4" * 40,
    "number": 447700900123,
    "list": ["a@example.com"],
}
NOT_SLUGS = ["ACME", "a_b", "-a", "a-", "a" * 64, "_system", "a b", "%00", "a%0d%0aX-Evil:1", "ä", "a" * 20_000]


async def stored(db: Database) -> list[int]:
    """How many rows there are of everything a sign-in writes."""
    return [await count(db, f"SELECT count(*) FROM {table}") for table in _TABLES]


def pointers(body: dict[str, list[dict[str, str]]]) -> list[str]:
    return [fault["pointer"] for fault in body["errors"]]


@pytest.mark.parametrize("code", NOT_CODES.values(), ids=NOT_CODES.keys())
async def test_what_is_no_code_costs_no_attempt(
    http: Http, clock: Clock, db: Database, ring: KeyRing, code: object
) -> None:
    """Only 6 to 10 ASCII digits in a JSON string are a guess; the right code still has all its attempts after this."""
    tenant = await add_tenant(db, clock())
    challenge = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
    before = await stored(db)

    answer = await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})

    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid-request"
    assert pointers(answer.json()) == ["/code"]
    assert (await challenge_row(db, challenge))["attempts"] == 0
    assert await stored(db) == before
    right = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
    assert (await http.otp(tenant.slug, "verify", right)).status_code == 200


@pytest.mark.parametrize("identifier", NOT_IDENTIFIERS.values(), ids=NOT_IDENTIFIERS.keys())
async def test_what_is_no_contact_gets_no_code(http: Http, clock: Clock, db: Database, identifier: object) -> None:
    """One address or one phone number in E.164; nothing that could reach a second recipient."""
    tenant = await add_tenant(db, clock())
    before = await stored(db)
    answer = await http.otp(tenant.slug, "request", {"identifier": identifier})
    assert answer.status_code == 400
    assert pointers(answer.json()) == ["/identifier"]
    assert await stored(db) == before


@pytest.mark.parametrize("slug", NOT_SLUGS, ids=lambda slug: slug[:20])
@pytest.mark.parametrize("verb", ["request", "verify"])
async def test_what_is_no_slug_is_refused(http: Http, db: Database, slug: str, verb: str) -> None:
    """Never folded, never looked up; the system tenant's own slug can't be named either."""
    before = await stored(db)
    body = {} if verb == "request" else {"challenge_id": "A" * 22, "code": "123456"}
    answer = await http.otp(slug, verb, body)
    assert answer.status_code == 400
    assert pointers(answer.json()) == ["/slug"]
    assert len(answer.content) < 1000
    assert await stored(db) == before


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"channel": "fax"}, "/channel"),
        ({"channel": 1}, "/channel"),
        ({"channel": ["sms"]}, "/channel"),
        ({"admin": True}, "/admin"),
        ({"a/b~c": 1}, "/a~1b~0c"),
        ({"x" * 5000: 1}, "/" + "x" * 80),
        ({"password": "hunter2"}, "/identifier"),
        ({"password": 1}, "/password"),
    ],
)
async def test_unknown_and_mistyped_fields_are_named(
    http: Http, clock: Clock, db: Database, fields: dict[str, object], pointer: str
) -> None:
    """A field nobody reads is a misunderstanding; the answer says which one it is, and doesn't repeat its value."""
    tenant = await add_tenant(db, clock())
    before = await stored(db)
    answer = await http.otp(tenant.slug, "request", fields)
    assert answer.status_code == 400
    assert pointers(answer.json()) == [pointer]
    assert "hunter2" not in answer.text
    assert await stored(db) == before


@pytest.mark.parametrize(
    ("extra", "pointer"),
    [
        ({"device_name": "a\r\nb"}, "/device_name"),
        ({"device_name": "x" * 81}, "/device_name"),
        ({"device_name": "a\u202eb"}, "/device_name"),
        ({"device_name": "a\x00b"}, "/device_name"),
        ({"device_name": 7}, "/device_name"),
        ({"remember_device": "true"}, "/remember_device"),
        ({"remember_device": 1}, "/remember_device"),
        ({"remember_device": None}, "/remember_device"),
        ({"challenge_id": 5}, "/challenge_id"),
        ({"admin": True}, "/admin"),
    ],
)
async def test_the_other_fields_of_verify(
    http: Http, clock: Clock, db: Database, ring: KeyRing, extra: dict[str, object], pointer: str
) -> None:
    """Even with the right code nothing happens until every field is right."""
    tenant = await add_tenant(db, clock())
    challenge = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
    body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
    answer = await http.otp(tenant.slug, "verify", body | extra)
    assert answer.status_code == 400
    assert pointers(answer.json()) == [pointer]
    assert (await challenge_row(db, challenge))["attempts"] == 0
    assert (await http.otp(tenant.slug, "verify", body)).status_code == 200


@pytest.mark.parametrize(
    "challenge_id", ["", "x", "A" * 21, "A" * 23, "\x00" * 22, "é" * 22, "A" * 15_000, "A" * 21 + "B", "../../etc"]
)
async def test_a_malformed_challenge_is_an_unknown_one(http: Http, challenge_id: str) -> None:
    """Which ids are well-formed is nobody's business: 410, as for any that isn't there."""
    for verb, more in (("verify", {"code": "123456"}), ("resend", {}), ("status", {})):
        answer = await http.otp("somebody", verb, {"challenge_id": challenge_id, **more})
        assert (answer.status_code, answer.json()["code"]) == (410, "code-expired")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"{}"',
        b"{} {}",
        b"\xff\xfe{}",
        b'{"identifier": "\xff"}',
        b'{"identifier": "\\ud800"}',
        b"{'identifier': 1}",
        b"[" * 1000 + b"]" * 1000,
        b'{"identifier":' * 1000 + b"1" + b"}" * 1000,
        b"{" * 1000,
        b'{"identifier": NaN}',
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_what_is_no_json_object(http: Http, clock: Clock, db: Database, body: bytes) -> None:
    """Broken, nested a thousand deep, not UTF-8, not an object: 400, never 500."""
    tenant = await add_tenant(db, clock())
    before = await stored(db)
    answer = await http.client.post(f"/api/v1/tenants/{tenant.slug}/otp/request", content=body, headers=_JSON)
    assert answer.status_code == 400
    assert pointers(answer.json()) in ([""], ["/identifier"])
    assert await stored(db) == before


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
async def test_other_media_types_are_refused(http: Http, db: Database, media_type: str) -> None:
    """JSON that doesn't say so could come from a form on somebody else's page."""
    before = await stored(db)
    path = f"/api/v1/tenants/nobody-{uuid4().hex}/otp/request"
    answer = await http.client.post(path, content=b"{}", headers={"Content-Type": media_type})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
    assert await stored(db) == before


async def test_too_large_is_refused_before_it_is_read(http: Http) -> None:
    """Over 16 KiB: 413 by the announced length alone, and for a body of unknown length as soon as it is too long."""
    path, sent = "/api/v1/tenants/acme/otp/request", 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 4096
            yield b" " * 4096

    announced = await http.client.post(path, content=b"x", headers=_JSON | {"Content-Length": "20000000"})
    chunked = await http.client.post(path, content=endless(), headers=_JSON)
    just_right = json.dumps({"identifier": ""}).encode().ljust(16 * 1024)
    largest = await http.client.post(path, content=just_right, headers=_JSON)

    for answer in (announced, chunked):
        assert (answer.status_code, answer.json()["code"]) == (413, "payload-too-large")
    assert sent <= 5 * 4096
    assert largest.status_code == 400


@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "ghr_", "ghr_" + "A" * 124, "ghr_\u00e9", "A" * 15_000, "\x00"],
    ids=lambda token: repr(token[:12]),
)
async def test_what_is_no_token(http: Http, token: str) -> None:
    """As refresh token, as access token, as API key: 401, never 500."""
    answers = [await http.auth("POST", "refresh", json={"refresh_token": token})]
    if token.isascii() and token.isprintable():
        answers += [await http.auth("GET", "me", token), await http.auth("GET", "me", "ghk_" + token)]
        answers.append(
            await http.otp("acme", "status", {"challenge_id": ""}, headers={"Authorization": f"Bearer ghk_{token}"})
        )
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(401, "invalid-token")}


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"limit": "0"}, "/limit"),
        ({"limit": "101"}, "/limit"),
        ({"limit": "ten"}, "/limit"),
        ({"cursor": "!!"}, "/cursor"),
        ({"cursor": "A"}, "/cursor"),
        ({"cursor": "MjAyNg"}, "/cursor"),
    ],
)
async def test_bad_parameters(
    http: Http, clock: Clock, db: Database, ring: KeyRing, params: dict[str, str], pointer: str
) -> None:
    """Query parameters are pointed at by name."""
    tenant = await add_tenant(db, clock())
    challenge = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
    body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
    token = (await http.otp(tenant.slug, "verify", body)).json()["access_token"]
    answer = await http.auth("GET", "events", token, params=params)
    assert answer.status_code == 400
    assert pointers(answer.json()) == [pointer]


async def test_odd_headers_do_no_harm(http: Http, clock: Clock, db: Database) -> None:
    """Headers are stored or ignored, never executed and never an error."""
    tenant = await add_tenant(db, clock())
    headers = [
        (b"user-agent", b"\xff\x00\x1b[31m" + b"x" * 5000),
        (b"accept-language", b"," * 3000),
        (b"x-forwarded-for", b"not, an, address"),
        (b"x-request-id", b"<script>"),
        (b"prefer", b"wait=99999999999999999999"),
        (b"authorization", b"Bearer"),
    ]
    answer = await http.client.post(f"/api/v1/tenants/{tenant.slug}/otp/request", json={}, headers=headers)
    assert answer.status_code == 202
    assert answer.headers["x-request-id"].isalpha()
    agent = (await challenge_row(db, answer.json()["challenge_id"]))["user_agent"]
    assert len(agent) == 200
    assert agent.isprintable()


@pytest.mark.parametrize("allowed", [(), ("login.example.com",)])
async def test_two_hosts_are_refused(settings: Settings, clock: Clock, allowed: tuple[str, ...]) -> None:
    """A proxy in front may have believed the other one; also where any host is answered."""
    async with serve(settings, clock, allowed_hosts=allowed) as http:
        twice = [("Host", "login.example.com"), ("Host", "evil.example")]
        answers = [await http.client.get("/docs", headers=headers) for headers in (twice[:1], twice)]
    assert [answer.status_code for answer in answers] == [200, 400]
