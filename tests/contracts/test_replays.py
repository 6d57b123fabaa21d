"""What an Idempotency-Key gives back, and to whom: nothing without today's right, no secret twice."""

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import uuid4

import pytest

from app.auth.encryption import decrypt
from app.auth.idempotency import context_of
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.adminapi import PREFIX, AdminApi, admin_api
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import SomeTenant, add_tenant

# Calls whose answer shows a secret, and the member of the answer that is one.
SECRETS: Final = {"/api-keys": "key", "/tenants/{slug}/sign-in-link": "url"}
_SECRET_NAMES: Final = {"key", "secret", "token", "url", "codes", "backup_codes", "otpauth", "seed", "password"}


@pytest.fixture
async def http(settings: Settings, clock: Clock) -> AsyncIterator[Http]:
    async with serve(settings, clock) as served:
        yield served


@pytest.fixture
async def tenant(db: Database, clock: Clock) -> SomeTenant:
    return await add_tenant(db, clock())


@pytest.fixture
async def owner(http: Http, db: Database, clock: Clock) -> AdminApi:
    return await admin_api(http, db, clock)


@pytest.mark.parametrize("path", SECRETS)
async def test_a_secret_is_shown_once(
    owner: AdminApi, tenant: SomeTenant, db: Database, ring: KeyRing, path: str
) -> None:
    """The repetition says that it was done and where it is, makes nothing, and no store has the secret."""
    body: dict[str, Any] = {"json": {"name": "once"}} if path == "/api-keys" else {}
    where = path.format(slug=tenant.slug)
    key = uuid4().hex
    first = await owner("POST", where, key=key, **body)
    assert first.status_code == 201
    secret = first.json()[SECRETS[path]]
    for _ in range(2):
        again = await owner("POST", where, key=key, **body)
        assert (again.status_code, again.json()["code"]) == (409, "secret-shown-once")
        assert again.json().get("location") == first.headers.get("location")
        assert secret not in again.text
    async with db.every_tenant() as connection:
        row = await connection.fetchrow("SELECT * FROM idempotency_keys WHERE key = $1", key)
    kept = decrypt(ring, row["key_id"], context_of(row["caller"], key), row["answer"])
    assert secret.encode() not in kept
    assert secret.rpartition("/")[2].encode() not in kept
    if path == "/api-keys":
        listed = (await owner("GET", "/api-keys")).json()["api_keys"]
        assert [f"{PREFIX}/api-keys/{one['id']}" for one in listed if one["name"] == "once"].count(
            again.json()["location"]
        ) == 1
        assert (await owner.http.client.delete(again.json()["location"], headers=bearer_of(owner))).status_code == 204


def bearer_of(api: AdminApi) -> dict[str, str]:
    return {"Authorization": f"Bearer {api.key}"}


async def test_every_answer_with_a_secret_is_listed(http: Http) -> None:
    """By the document: a POST whose answer has a member that is named like a secret declares that it is shown once."""
    document = http.app.openapi_schema.to_schema()
    found = set()
    for path, operations in document["paths"].items():
        operation = operations.get("post")
        if operation is None or not path.startswith(PREFIX):
            continue
        answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        refs = [c["schema"].get("$ref", "") for a in answers for c in a.get("content", {}).values()]
        members = {name for ref in refs for name in members_of(document, ref)}
        if members & _SECRET_NAMES:
            found.add(path.removeprefix(PREFIX))
            assert "secret-shown-once" in str(operation["responses"]["409"]), path
    assert found == SECRETS.keys()


def members_of(document: dict[str, Any], ref: str) -> set[str]:
    """The members of a schema."""
    return set(document["components"]["schemas"].get(ref.rpartition("/")[2], {}).get("properties", {}))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("role = 'viewer'", 403),
        ("scopes = '{introspect}'", 403),
        ("revoked_at = now()", 401),
        ("role = 'owner'", 201),
    ],
)
async def test_a_repetition_is_for_who_may_do_it_now(
    http: Http, db: Database, clock: Clock, change: str, status: int
) -> None:
    """The role, scope and life of the key at the time of the repetition decide."""
    manager = await admin_api(http, db, clock, "manager")
    body = {"slug": f"t-{uuid4().hex[:12]}", "name": "Acme", "email": "owner@acme.example"}
    assert (await manager("POST", "/tenants", json=body, key="k")).status_code == 201
    async with db.every_tenant() as connection:
        await connection.execute(f"UPDATE api_keys SET {change} WHERE id = $1", manager.key.split("_")[1])
    again = await manager("POST", "/tenants", json=body, key="k")
    assert again.status_code == status
    assert ("owner@acme.example" in again.text) == (status == 201)


@pytest.mark.parametrize("other", ["body", "path", "query", "type"])
async def test_another_call_with_the_key_is_refused(owner: AdminApi, tenant: SomeTenant, other: str) -> None:
    """422 with a code of its own, and nothing is done."""
    csv = {"Content-Type": "text/csv"}
    first = ("POST", "/tenants/import?dry_run=true", b"slug,name\n", csv)
    assert (await owner(*first[:2], content=first[2], headers=csv, key="k")).status_code == 200
    method, path, content, headers = {
        "body": (*first[:2], f"slug,name\n{tenant.slug},B\n".encode(), csv),
        "path": ("POST", f"/tenants/{tenant.slug}/unlock", b"", {}),
        "query": ("POST", "/tenants/import", b"slug,name\n", csv),
        "type": (*first[:2], b"slug,name\n", {"Content-Type": "application/jsonl"}),
    }[other]
    refused = await owner(method, path, content=content, headers=headers, key="k")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused")


async def test_two_keys_are_none(owner: AdminApi, tenant: SomeTenant) -> None:
    """Which of them counts would be anybody's guess."""
    headers = [("Authorization", f"Bearer {owner.key}"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await owner.http.client.post(f"{PREFIX}/tenants/{tenant.slug}/unlock", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
