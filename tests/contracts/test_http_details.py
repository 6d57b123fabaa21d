"""HTTP as clients rely on it: entity tags, media types, encodings, methods, and a code for each refusal."""

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import uuid4

import pytest
from litestar.routes import HTTPRoute

from app.errors import GatehouseError
from app.settings import Settings
from app.storage.db import Database
from app.web.etags import is_known
from app.web.problems import CODES, STATUS
from tests.adminapi import AdminApi, admin_api
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import SomeTenant, add_member, add_tenant

JSON: Final = {"Content-Type": "application/json"}


@pytest.fixture
async def http(settings: Settings, clock: Clock) -> AsyncIterator[Http]:
    async with serve(settings, clock) as served:
        yield served


@pytest.fixture
async def api(http: Http, db: Database, clock: Clock) -> AdminApi:
    return await admin_api(http, db, clock)


@pytest.fixture
async def tenant(db: Database, clock: Clock) -> SomeTenant:
    return await add_tenant(db, clock())


@pytest.mark.parametrize(
    ("tag", "status"),
    [
        ('"1"', 200),
        ('W/"1"', 200),
        ('"1-gzip"', 200),
        ('W/"1;br"', 200),
        ('"7", W/"1"', 200),
        ('"1","2","3"', 200),
        ("*", 200),
        (" * ", 200),
        ('"2"', 412),
        ('W/"2"', 412),
        ('"7", "8"', 412),
        ('""', 412),
        ('"abc"', 412),
        ('"9", "1",', 200),
        (', , W/"1"', 200),
        ('"9", , "1"', 200),
        (",", 400),
        ('"1",' * 8000, 400),
        ('w/"1"', 400),
        ("1", 400),
        ('"1', 400),
        ('"1" "2"', 400),
        ('*, "1"', 400),
        ("", 400),
    ],
)
async def test_a_change_needs_the_version_that_was_read(
    api: AdminApi, tenant: SomeTenant, db: Database, clock: Clock, tag: str, status: int
) -> None:
    """If-Match at every door that takes it: strong, weak, changed by a proxy, in a list."""
    member = await add_member(db, clock(), tenant, email="ana@home.example")
    calls = [
        ("PATCH", f"/tenants/{tenant.slug}", {"name": "B"}),
        ("PATCH", f"/tenants/{tenant.slug}/members/{member}", {"name": "B"}),
        ("DELETE", f"/tenants/{tenant.slug}/members/{member}", None),
        ("DELETE", f"/tenants/{tenant.slug}", None),
    ]
    for method, path, body in calls:
        # A change before it makes another version: each is called at version 1.
        at_one = method == "PATCH" or status != 200
        if not at_one and '"' in tag:
            continue
        answer = await api(method, path, headers={"If-Match": tag}, **({"json": body} if body else {}))
        assert answer.status_code == (204 if status == 200 and method == "DELETE" else status), (method, path)


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ('"1"', True),
        ('W/"1"', True),
        ('"9", W/"1"', True),
        ('"9", "1",', True),
        ("*", True),
        ('"2"', False),
        ('W/"11"', False),
        ("1", False),
        ("", False),
        ('"1', False),
    ],
)
async def test_what_is_known_is_not_sent_again(
    api: AdminApi, tenant: SomeTenant, db: Database, clock: Clock, asked: str, known: bool
) -> None:
    """If-None-Match on everything that has a tag: 304 without a body, by GET and HEAD."""
    member = await add_member(db, clock(), tenant, email="ana@home.example")
    for path in (f"/tenants/{tenant.slug}", f"/tenants/{tenant.slug}/members/{member}"):
        for method in ("GET", "HEAD"):
            answer = await api(method, path, headers={"If-None-Match": asked})
            assert answer.status_code == (304 if known else 200)
            assert answer.headers["etag"] == '"1"'
            assert (answer.content == b"") == (known or method == "HEAD")
            assert ("content-type" in answer.headers) != known
    refused = await api("PATCH", f"/tenants/{tenant.slug}", json={"name": 7}, headers={"If-None-Match": "*"})
    assert refused.status_code == 400
    assert is_known('W/"1"', asked) == known


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + b'{"name": "B"}',
        b'  {"name": "B"}\r\n',
        b'{"name":\t"\\u0042"}',
    ],
)
async def test_json_as_programs_write_it(api: AdminApi, tenant: SomeTenant, body: bytes) -> None:
    """With a byte order mark, with blanks, with escapes; with a charset or without."""
    for kind in ("application/json", "application/json; charset=UTF-8", 'Application/JSON;charset="utf-8"'):
        answer = await api("PATCH", f"/tenants/{tenant.slug}", content=body, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json().get("name")) == (200, "B"), (kind, answer.text)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"name": "B"}'.encode("utf-16"), "not in UTF-8"),
        ('{"name": "B"}'.encode("utf-16-be"), "not in UTF-8"),
        ('{"name": "B"}'.encode("utf-32"), "not in UTF-8"),
        ('{"name": "Bü"}'.encode("latin-1"), "not JSON"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "not JSON"),
        (b"\xef\xbb\xbf", "not JSON"),
        (b'{"name": "A", "name": "B"}', "there twice"),
        (b'{"name": "A", "n\\u0061me": "B"}', "there twice"),
        (b'{"policy": {"max_attempts": 3, "max_attempts": 4}}', "there twice"),
    ],
)
async def test_json_that_could_be_read_in_two_ways(api: AdminApi, tenant: SomeTenant, body: bytes, said: str) -> None:
    """Another encoding, two marks, a member twice: 400, with what is wrong, and nothing changed."""
    answer = await api("PATCH", f"/tenants/{tenant.slug}", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert said in answer.json()["detail"]
    assert (await api("GET", f"/tenants/{tenant.slug}")).json()["version"] == 1


@pytest.mark.parametrize(
    ("method", "path", "kind", "accepted"),
    [
        ("PATCH", "/tenants/{slug}", "text/plain", "application/json"),
        ("PATCH", "/tenants/{slug}", "application/merge-patch+json", "application/json"),
        ("POST", "/tenants", "application/vnd.api+json", "application/json"),
        ("POST", "/tenants", "application/json; charset=utf-16", "application/json"),
        ("POST", "/tenants", "", "application/json"),
        ("POST", "/tenants/import", "application/json", "text/csv, application/jsonl, application/x-ndjson"),
        ("POST", "/tenants/{slug}/members/import", "text/plain", "text/csv"),
    ],
)
async def test_other_media_types(
    api: AdminApi, tenant: SomeTenant, method: str, path: str, kind: str, accepted: str
) -> None:
    """415 with a code of its own and the types that are read, under the names that HTTP has for them."""
    answer = await api(method, path.format(slug=tenant.slug), content=b"{}", headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
    assert answer.headers["accept"] == answer.headers[f"accept-{method.lower()}"] == accepted


async def test_other_methods(http: Http) -> None:
    """405 with a code of its own and the methods there are; OPTIONS tells the same ones, for every route."""
    routes: dict[str, set[str]] = {}
    for route in http.app.routes:
        if isinstance(route, HTTPRoute):
            routes.setdefault(route.path_format, set()).update(route.methods)
    assert len(routes) > 80
    for template, methods in routes.items():
        path = template.replace("{name}", "favicon.svg").replace("{", "").replace("}", "")
        path = "/".join(_ID if part.endswith("_id") else part for part in path.split("/"))
        told = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        asked = await http.client.options(path)
        assert (asked.status_code, asked.headers["allow"]) == (204, told), template
        refused = await http.client.request("TRACE", path)
        assert (refused.status_code, refused.json()["code"], refused.headers["allow"]) == (
            405,
            "method-not-allowed",
            told,
        ), template


_ID: Final = "00000000-0000-0000-0000-000000000001"


async def test_every_refusal_has_a_code_of_its_own(http: Http) -> None:
    """No two kinds share a code, each has its status on its page, and its title is no riddle."""
    kinds: dict[str, type[GatehouseError]] = {}
    for kind in STATUS:
        assert kinds.setdefault(kind.code, kind) is kind, kind
    assert {"method-not-allowed", "unsupported-media-type", "head-too-large", "idempotency-key-reused"} <= CODES
    for code, kind in kinds.items():
        page = await http.get(f"/problems/{code}")
        assert page.status_code == 200
        assert f">{STATUS[kind]}<" in page.text.replace("\n", ""), code


@pytest.mark.parametrize("cleared", [None, ""])
async def test_the_contact_that_codes_go_to_is_not_cleared(
    api: AdminApi, tenant: SomeTenant, db: Database, clock: Clock, cleared: str | None
) -> None:
    """The only one, or the preferred one of two: 422 with the field, for tenants and members; the other one goes."""
    path = f"/tenants/{tenant.slug}"
    await missing(api, path, {"email": cleared}, "/email")
    assert (await api("PATCH", path, json={"phone_number": "+447700900123"})).status_code == 200
    await missing(api, path, {"email": cleared}, "/email")
    assert (await api("PATCH", path, json={"phone_number": cleared})).status_code == 200
    member = await add_member(db, clock(), tenant, email=f"{uuid4().hex[:8]}@home.example")
    path = f"{path}/members/{member}"
    await missing(api, path, {"email": cleared}, "/email")
    change = {"phone_number": "+447700900124", "preferred_method": "sms"}
    assert (await api("PATCH", path, json=change)).status_code == 200
    await missing(api, path, {"phone_number": cleared}, "/phone_number")
    assert (await api("PATCH", path, json={"email": cleared})).status_code == 200


async def missing(api: AdminApi, path: str, change: dict[str, Any], pointer: str) -> None:
    answer = await api("PATCH", path, json=change)
    assert (answer.status_code, answer.json()["code"]) == (422, "contact-missing"), answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


async def test_a_file_does_not_clear_it_either(api: AdminApi, tenant: SomeTenant) -> None:
    """An empty cell where codes go is a fault of its row, at its field; nothing is imported."""
    content = f"slug,email\n{tenant.slug},\n".encode()
    csv = {"Content-Type": "text/csv"}
    tried = (await api("POST", "/tenants/import?dry_run=true", content=content, headers=csv)).json()
    assert [(fault["row"], fault["field"]) for fault in tried["errors"]] == [(2, "email")]
    refused = await api("POST", "/tenants/import", content=content, headers=csv)
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/2/email"]
    assert (await api("GET", f"/tenants/{tenant.slug}")).json()["email"] == tenant.email
