"""The admin API as a program sees it that looks after tenants."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.audit.log import Actor, Client
from app.auth.admin_sessions import STEP_UP
from app.auth.admins import Admin
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.auth.signing_in import SignIn
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.web import csrf
from tests.adminapi import AdminApi, admin_api
from tests.admins import add_admin
from tests.conftest import Clock
from tests.http import BASE_URL, Http, serve
from tests.people import SomeTenant, add_member, add_tenant, count, current_code


@dataclass(frozen=True, slots=True)
class World:
    """The application, its database, and callers of each role."""

    http: Http
    db: Database
    clock: Clock
    owner: AdminApi
    manager: AdminApi
    viewer: AdminApi

    async def tenant(self, **fields: Any) -> SomeTenant:
        return await add_tenant(self.db, self.clock(), **fields)


@pytest.fixture
async def world(settings: Settings, clock: Clock, db: Database) -> AsyncIterator[World]:
    async with serve(settings, clock, sms_enabled=True) as http:
        keys = [await admin_api(http, db, clock, role) for role in ("owner", "manager", "viewer")]
        yield World(http, db, clock, *keys)


@pytest.fixture
def slug() -> str:
    return f"api-{uuid4().hex[:10]}"


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The refusal, which must be this one."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_a_tenant_from_its_first_day_to_its_last(world: World, slug: str) -> None:
    """Added, read, found, changed, suspended, removed: to the letter of the contract."""
    api = world.owner
    body = {
        "slug": slug, "name": "Grün & Söhne", "email": f"Ops@{slug}.example", "phone_number": "+44 7700 900123",
        "otp_delivery_method": "sms", "fallback_methods": ["email"], "policy": {"max_attempts": 3},
    }  # fmt: skip
    added = await api("POST", "/tenants", json=body)
    assert (added.status_code, added.headers["ETag"]) == (201, '"1"')
    assert added.headers["Location"] == f"/api/v1/admin/tenants/{slug}"
    tenant = added.json()
    assert list(tenant) == [
        "slug", "name", "status", "email", "phone_number", "otp_delivery_method", "fallback_methods", "locale",
        "timezone", "policy", "version", "created_at", "updated_at",
    ]  # fmt: skip
    assert (tenant["email"], tenant["phone_number"]) == (f"ops@{slug}.example", "+447700900123")
    assert (await api("GET", f"/tenants/{slug}")).json() == tenant
    assert (await api("GET", "/tenants", params={"search": slug})).json() == {
        "tenants": [tenant],
        "next": None,
        "previous": None,
    }

    changed = await api("PATCH", f"/tenants/{slug}", json={"name": "Grün", "policy": {"max_attempts": None}})
    assert (changed.json()["name"], changed.json()["policy"], changed.headers["ETag"]) == ("Grün", {}, '"2"')
    assert (await api("PATCH", f"/tenants/{slug}", json={"status": "suspended"})).json()["status"] == "suspended"
    assert (await api("DELETE", f"/tenants/{slug}")).status_code == 204
    problem(await api("GET", f"/tenants/{slug}"), 404, "tenant-not-found")


async def test_lists_are_filtered_sorted_and_paged(world: World, slug: str) -> None:
    """Every page once, forwards and back, in the order asked for."""
    for n in range(5):
        await world.tenant(slug=f"{slug}-{n}", name=f"Name {4 - n}", email=None if n == 0 else f"a@{slug}.example")
    seen: list[str] = []
    page: dict[str, Any] = {"next": None}
    for _ in range(3):
        query = {"search": slug, "sort": "name", "limit": 2} | ({"cursor": page["next"]} if page["next"] else {})
        page = (await world.viewer("GET", "/tenants", params=query)).json()
        seen += [tenant["slug"] for tenant in page["tenants"]]
    assert seen == [f"{slug}-{n}" for n in (4, 3, 2, 1, 0)]
    assert page["next"] is None
    back = await world.viewer(
        "GET", "/tenants", params={"search": slug, "sort": "name", "limit": 2, "cursor": page["previous"]}
    )
    assert [tenant["slug"] for tenant in back.json()["tenants"]] == [f"{slug}-2", f"{slug}-1"]
    missing = await world.viewer("GET", "/tenants", params={"search": slug, "contact_missing": "true"})
    assert [tenant["slug"] for tenant in missing.json()["tenants"]] == [f"{slug}-0"]
    sound = await world.viewer("GET", "/tenants", params={"search": slug, "sort": "slug", "failing": "false"})
    assert len(sound.json()["tenants"]) == 5
    failing = await world.viewer("GET", "/tenants", params={"search": slug, "failing": "true"})
    assert failing.json()["tenants"] == []


async def test_whoever_read_an_older_version_is_told(world: World) -> None:
    """If-Match with another version or somebody else's: 412 with the current version; without it, done."""
    tenant = await world.tenant()
    path = f"/tenants/{tenant.slug}"
    assert (await world.manager("PATCH", path, json={"name": "A"}, headers={"If-Match": '"1"'})).status_code == 200
    for stale in ('"1"', 'W/"1"', '"abc"', '""'):
        refused = problem(
            await world.manager("PATCH", path, json={"name": "B"}, headers={"If-Match": stale}), 412, "edit-conflict"
        )
        assert refused["current_version"] == 2
    problem(await world.manager("PATCH", path, json={}, headers={"If-Match": "2"}), 400, "invalid-request")
    problem(await world.owner("DELETE", path, headers={"If-Match": '"1"'}), 412, "edit-conflict")
    assert (await world.manager("PATCH", path, json={"name": "C"}, headers={"If-Match": "*"})).status_code == 200
    assert (await world.manager("PATCH", path, json={"name": "D"})).json()["version"] == 4


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x", "surprise": 1}, "/surprise"),
        ({"name": 7}, "/name"),
        ({"name": None}, "/name"),
        ({"email": "a@x.example, b@y.example"}, "/email"),
        ({"name": "A\r\nBcc: b"}, "/name"),
        ({"policy": {"max_attempts": "3"}}, "/policy/max_attempts"),
        ({"otp_delivery_method": "pigeon"}, "/otp_delivery_method"),
        ({"slug": "other"}, "/slug"),
    ],
)
async def test_bad_input_points_at_the_field(world: World, body: dict[str, object], pointer: str) -> None:
    """400, the fault beside its field, nothing changed."""
    tenant = await world.tenant()
    refused = problem(await world.manager("PATCH", f"/tenants/{tenant.slug}", json=body), 400, "invalid-request")
    assert [error["pointer"] for error in refused["errors"]] == [pointer]
    assert (await world.manager("GET", f"/tenants/{tenant.slug}")).json()["version"] == 1


async def test_viewers_see_no_contact(world: World) -> None:
    """Neither of a tenant nor of a colleague, in no list, file, story or log."""
    canary = f"canary{uuid4().hex[:8]}"
    tenant = await world.tenant(email=f"{canary}@x.example", phone_number="+447700900999")
    admin = await add_admin(world.db, world.clock, "viewer")
    async with world.db.every_tenant() as connection:
        await connection.execute(
            "UPDATE admins SET email = $2, name = $2 WHERE id = $1", admin.id, f"{canary}@staff.example"
        )
    await world.manager("PATCH", f"/tenants/{tenant.slug}", json={"email": f"{canary}2@x.example"})
    assert canary in (await world.manager("GET", f"/tenants/{tenant.slug}")).text
    assert canary in (await world.manager("GET", "/tenants/export")).text
    for path in (
        "/tenants", f"/tenants/{tenant.slug}", f"/tenants/{tenant.slug}/timeline", "/tenants/export",
        "/tenants/export?format=jsonl", "/deliveries", "/events", "/events?format=csv", "/events?format=jsonl",
        "/admins", "/api-keys", "/stats",
    ):  # fmt: skip
        answer = await world.viewer("GET", path)
        assert answer.status_code == 200, path
        assert canary not in answer.text, path
        assert "7700900999" not in answer.text, path
        assert "192.0.2.10" not in answer.text, path


async def test_the_story_of_a_tenant(world: World) -> None:
    """What happened to its codes, newest first, in pages."""
    tenant = await world.tenant()
    await world.http.otp(tenant.slug, "request")
    world.clock.forward(seconds=1)
    await world.manager("PATCH", f"/tenants/{tenant.slug}", json={"email": "new@x.example"})
    story = (await world.viewer("GET", f"/tenants/{tenant.slug}/timeline", params={"limit": 1})).json()
    assert [entry["text"] for entry in story["entries"]] == ["Changed: email"]
    older = await world.viewer("GET", f"/tenants/{tenant.slug}/timeline", params={"cursor": story["next"]})
    assert [entry["text"] for entry in older.json()["entries"]] == ["Code asked for"]


async def test_a_test_message_is_queued_or_waited_for(settings: Settings, clock: Clock, db: Database) -> None:
    """202 at once; with Prefer: wait the outcome, or 502 with the provider's reason; 202 when it takes longer."""
    tenant = await add_tenant(db, clock())
    path = f"/tenants/{tenant.slug}/test-message"
    outcome: list[tuple[str, str | None]] = []

    async def worker_works(_: float) -> None:
        async with db.tenant(tenant.id) as connection:
            for state, error in outcome:
                await connection.execute(
                    "UPDATE outbox SET state = $2, error_text = $3, provider = 'smtp' WHERE tenant_id = $1",
                    tenant.id, state, error,
                )  # fmt: skip

    async with serve(settings, clock, sleep=worker_works) as http:
        api = await admin_api(http, db, clock, "manager")
        queued = await api("POST", path, json={})
        assert (queued.status_code, queued.json()["state"], queued.json()["channel"]) == (202, "queued", "email")
        waited = await api("POST", path, json={"channel": "email"}, headers={"Prefer": "wait=1"})
        assert (waited.status_code, waited.headers["Preference-Applied"]) == (202, "wait=1")
        outcome.append(("sent", None))
        sent = await api("POST", path, json={}, headers={"Prefer": "wait=1"})
        assert (sent.status_code, sent.json()["state"], sent.json()["provider"]) == (200, "sent", "smtp")
        outcome[:] = [("failed", "550 no such mailbox")]
        failed = await api("POST", path, json={}, headers={"Prefer": "wait=1"})
        assert problem(failed, 502, "delivery-failed")["detail"] == "550 no such mailbox"
        problem(await api("POST", path, json={"channel": "sms"}), 422, "channel-unavailable")
        problem(await api("POST", path, json={"channel": "pigeon"}), 400, "invalid-request")


async def test_unlocking_lets_the_next_code_out(world: World) -> None:
    """After the hour's codes are used up; and says when there was nothing to forget."""
    tenant = await world.tenant()
    for _ in range(3):
        assert (await world.http.otp(tenant.slug, "request")).status_code == 202
    assert (await world.http.otp(tenant.slug, "request")).status_code == 429
    assert (await world.manager("POST", f"/tenants/{tenant.slug}/unlock")).json() == {"unlocked": True}
    assert (await world.http.otp(tenant.slug, "request")).status_code == 202
    untouched = await world.tenant()
    assert (await world.manager("POST", f"/tenants/{untouched.slug}/unlock")).json() == {"unlocked": False}


async def test_a_mark_is_taken_off(world: World) -> None:
    """A tenant's or a member's, by managers; what was marked is answered, and there is a line for the story."""
    tenant = await world.tenant()
    member = await add_member(world.db, world.clock(), tenant, email="ana@home.example")
    mark = "INSERT INTO contact_health (tenant_id, subject_id, channel, since, error_class) VALUES ($1, $2, $3, $4, $5)"
    async with world.db.every_tenant() as connection:
        for subject, channel in ((tenant.id, "email"), (tenant.id, "sms"), (member, "email")):
            await connection.execute(mark, tenant.id, subject, channel, world.clock(), "recipient")
    base = f"/tenants/{tenant.slug}"
    assert (await world.viewer("POST", f"{base}/clear-failing")).status_code == 403
    assert (await world.manager("POST", f"{base}/clear-failing")).json() == {"cleared": ["email", "sms"]}
    assert (await world.manager("POST", f"{base}/clear-failing")).json() == {"cleared": []}
    assert (await world.manager("POST", f"{base}/members/{member}/clear-failing")).json() == {"cleared": ["email"]}
    story = (await world.viewer("GET", f"{base}/timeline")).json()["entries"]
    assert [line["text"] for line in story] == ["Contact said to work again"] * 2


async def test_a_sign_in_link_works_once(world: World, ring: KeyRing, settings: Settings) -> None:
    """Its token signs the tenant in, its making is in the audit log, and no suspended tenant gets one."""
    tenant = await world.tenant()
    made = await world.manager("POST", f"/tenants/{tenant.slug}/sign-in-link")
    assert (made.status_code, made.json()["expires_in"]) == (201, 600)
    address, _, token = made.json()["url"].rpartition("/")
    assert address == f"{BASE_URL}/t/{tenant.slug}/link"
    links = Links(world.db, Sessions(world.db, ring, settings, world.clock), world.clock)
    entered = await links.use(token, Client("page"))
    assert isinstance(entered, SignIn)
    assert entered.tenant_slug == tenant.slug
    events = await world.viewer("GET", "/events", params={"tenant": tenant.slug, "action": "sign_in_link.*"})
    assert [event["action"] for event in events.json()["events"]] == ["sign_in_link.created"]
    stopped = await world.tenant(status="suspended")
    problem(await world.manager("POST", f"/tenants/{stopped.slug}/sign-in-link"), 403, "tenant-suspended")


async def test_a_repeated_post_is_done_once(world: World, slug: str) -> None:
    """Key and body again: the very same answer; another body: 422; a refusal isn't kept; after a day it is over."""
    body = {"slug": slug, "name": "Acme"}
    first = await world.manager("POST", "/tenants", json=body, key="k")
    again = await world.manager("POST", "/tenants", json=body, key="k")
    assert (again.status_code, again.content, again.headers["ETag"]) == (201, first.content, '"1"')
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]
    problem(await world.manager("POST", "/tenants", json=body | {"name": "B"}, key="k"), 422, "idempotency-key-reused")
    assert (await world.owner("POST", "/tenants", json=body | {"slug": f"{slug}-2"}, key="k")).status_code == 201
    problem(await world.manager("POST", "/tenants", json=body, key="other"), 409, "already-exists")
    await world.owner("DELETE", f"/tenants/{slug}")
    assert (await world.manager("POST", "/tenants", json=body, key="other")).status_code == 201
    world.clock.forward(hours=24)
    problem(await world.manager("POST", "/tenants", json=body, key="k"), 409, "already-exists")
    problem(await world.manager("POST", "/tenants", json=body, key="k" * 256), 400, "invalid-request")


async def test_parallel_posts_with_one_key_are_done_once(world: World) -> None:
    """Of twenty, one works; the others get its answer, or are told that it is under way."""
    answers = await asyncio.gather(
        *(world.owner("POST", "/api-keys", json={"name": "once", "role": "viewer"}, key="same") for _ in range(20))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.text for answer in answers if answer.status_code == 201}) == 1
    listed = (await world.owner("GET", "/api-keys")).json()["api_keys"]
    assert [key["name"] for key in listed].count("once") == 1


async def test_no_kept_answer_can_be_read_in_the_database(world: World) -> None:
    """The answer is given again to whoever got it, but stands nowhere in plain."""
    body = {"email": "kept@staff.example", "role": "viewer"}
    made = await world.owner("POST", "/admins", json=body, key="kept")
    again = await world.owner("POST", "/admins", json=body, key="kept")
    assert again.json() == made.json()
    async with world.db.every_tenant() as connection:
        stored = await connection.fetchval("SELECT answer FROM idempotency_keys WHERE key = 'kept'")
    assert stored
    assert b"kept" not in stored


async def test_removing_leaves_nothing_but_the_log(world: World, ring: KeyRing) -> None:
    """Whoever is signed in is out, and no table but the audit log has a row of the tenant's any more."""
    tenant = await world.tenant()
    asked = (await world.http.otp(tenant.slug, "request")).json()["challenge_id"]
    code = await current_code(world.db, ring, asked)
    tokens = (await world.http.otp(tenant.slug, "verify", {"challenge_id": asked, "code": code})).json()
    await world.http.otp(tenant.slug, "request")
    await world.owner("POST", f"/tenants/{tenant.slug}/sign-in-link")
    assert (await world.owner("DELETE", f"/tenants/{tenant.slug}")).status_code == 204

    world.clock.forward(seconds=4)
    assert (await world.http.auth("GET", "me", tokens["access_token"])).status_code == 401
    refreshed = await world.http.auth("POST", "refresh", json={"refresh_token": tokens["refresh_token"]})
    assert refreshed.status_code == 401
    async with world.db.every_tenant() as connection:
        tables = await connection.fetch(
            """
            SELECT DISTINCT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND a.attname = 'tenant_id'
            """
        )
        left = [
            name
            for (name,) in tables
            if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {name} WHERE tenant_id = $1)", tenant.id)
        ]
    assert left == ["audit_events"]
    removed = (await world.viewer("GET", "/events", params={"action": "tenant.removed", "limit": 1})).json()["events"]
    assert removed[0]["data"]["slug"] == tenant.slug


async def test_a_csv_is_tried_then_imported(world: World, slug: str) -> None:
    """The dry run answers with counts and every error beside its row and field; the import is all or nothing."""
    good = f"slug,name,email\n{slug},Acme,a@{slug}.example\n"
    bad = good + "Bad Slug,,no\n"
    as_csv = {"Content-Type": "text/csv"}
    tried = await world.manager("POST", "/tenants/import?dry_run=true", content=bad, headers=as_csv)
    report = tried.json()
    assert (report["applied"], report["new"], report["faulty"]) == (False, 1, 1)
    assert {(error["row"], error["field"]) for error in report["errors"]} == {(3, "slug"), (3, "name"), (3, "email")}
    refused = problem(
        await world.manager("POST", "/tenants/import", content=bad, headers=as_csv), 400, "invalid-request"
    )
    assert {error["pointer"] for error in refused["errors"]} == {"/3/slug", "/3/name", "/3/email"}
    problem(await world.viewer("GET", f"/tenants/{slug}"), 404, "tenant-not-found")

    done = await world.manager("POST", "/tenants/import", content=good, headers=as_csv)
    assert (done.json()["applied"], done.json()["new"]) == (True, 1)
    assert (await world.manager("GET", f"/tenants/{slug}")).json()["email"] == f"a@{slug}.example"
    problem(await world.manager("POST", "/tenants/import", json={}), 415, "unsupported-media-type")


async def test_an_import_has_a_size_limit_of_its_own(world: World) -> None:
    """More than the 16 KiB of other calls is read; more than 10 MiB isn't."""
    rows = "".join(f"nobody-{n},Acme\n" for n in range(2_000))
    headers = {"Content-Type": "text/csv"}
    big = await world.manager("POST", "/tenants/import?dry_run=true", content="slug,name\n" + rows, headers=headers)
    assert big.json()["new"] == 2_000
    assert len(big.json()["rows"]) == 1_000
    huge = "slug,name\n" + "x" * (10 * 1024 * 1024)
    problem(await world.manager("POST", "/tenants/import", content=huge, headers=headers), 413, "payload-too-large")
    problem(await world.manager("POST", "/tenants", json={"name": "x" * 20_000}), 413, "payload-too-large")


async def test_exports_go_by_the_filter_and_defuse_formulas(world: World, slug: str) -> None:
    """CSV by default, JSON Lines by Accept; cells that a spreadsheet would run are quoted; the export is on record."""
    await world.tenant(slug=f"{slug}-1", name="=HYPERLINK(1)", phone_number="+447700900123")
    await world.tenant(slug=f"{slug}-2", status="suspended")
    everything = await world.manager("GET", "/tenants/export", params={"search": slug})
    assert everything.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert everything.headers["Content-Disposition"] == 'attachment; filename="tenants.csv"'
    rows = list(csv.DictReader(io.StringIO(everything.content.decode("utf-8-sig"))))
    assert [(row["slug"], row["name"], row["phone_number"]) for row in rows] == [
        (f"{slug}-1", "'=HYPERLINK(1)", "'+447700900123"),
        (f"{slug}-2", "Acme", ""),
    ]
    lines = await world.manager(
        "GET",
        "/tenants/export",
        params={"search": slug, "status": "suspended"},
        headers={"Accept": "application/jsonl"},
    )
    assert lines.headers["Content-Type"] == "application/jsonl"
    assert [json.loads(line)["slug"] for line in lines.text.splitlines()] == [f"{slug}-2"]
    problem(await world.manager("GET", "/tenants/export?status=odd"), 400, "invalid-request")
    taken = (await world.viewer("GET", "/events?action=tenants.exported&limit=1")).json()["events"]
    assert taken[0]["data"] == {"format": "jsonl", "contacts": "shown"}


async def test_deliveries_in_pages_and_as_files(world: World) -> None:
    """Filtered, newest first; CSV and JSON Lines have them all."""
    tenant = await world.tenant()
    async with world.db.tenant(tenant.id) as connection:
        for n, state in enumerate(("queued", "sent", "delivered")):
            await connection.execute(
                """
                INSERT INTO delivery_events (tenant_id, at, outbox_id, kind, channel, state, provider, took_ms)
                VALUES ($1, $2, $3, 'code', 'email', $4, 'smtp', 40)
                """,
                tenant.id, world.clock() + timedelta(seconds=n), UUID(int=n), state,
            )  # fmt: skip
    query = {"tenant": tenant.slug, "limit": 2}
    page = (await world.viewer("GET", "/deliveries", params=query)).json()
    assert [(d["state"], d["tenant"], d["took_ms"]) for d in page["deliveries"]] == [
        ("delivered", tenant.slug, 40),
        ("sent", tenant.slug, 40),
    ]
    rest = (await world.viewer("GET", "/deliveries", params=query | {"cursor": page["next"]})).json()
    assert ([d["state"] for d in rest["deliveries"]], rest["next"]) == (["queued"], None)
    only = await world.viewer("GET", "/deliveries", params={"tenant": tenant.slug, "state": "sent"})
    assert len(only.json()["deliveries"]) == 1
    later = {"tenant": tenant.slug, "from": (world.clock() + timedelta(seconds=2)).isoformat()}
    assert [d["state"] for d in (await world.viewer("GET", "/deliveries", params=later)).json()["deliveries"]] == [
        "delivered"
    ]
    table = await world.viewer("GET", "/deliveries", params={"tenant": tenant.slug, "format": "csv"})
    assert [row["state"] for row in csv.DictReader(io.StringIO(table.content.decode("utf-8-sig")))] == [
        "delivered",
        "sent",
        "queued",
    ]
    lines = await world.viewer("GET", "/deliveries", params={"tenant": tenant.slug, "format": "jsonl"})
    assert len(lines.text.splitlines()) == 3
    problem(await world.viewer("GET", "/deliveries?cursor=nonsense"), 400, "invalid-request")
    problem(await world.viewer("GET", "/deliveries?from=2026-03-14T00:00:00"), 400, "invalid-request")
    problem(await world.viewer("GET", "/deliveries?tenant=nobody-has-this"), 404, "tenant-not-found")


async def test_the_audit_log_in_pages_and_as_files(world: World) -> None:
    """JSON newest first with who did it; files oldest first with all of it."""
    tenant = await world.tenant()
    for name in ("A", "B", "C"):
        world.clock.forward(seconds=1)
        await world.manager("PATCH", f"/tenants/{tenant.slug}", json={"name": name})
    query = {"tenant": tenant.slug, "action": "tenant.*", "limit": 2}
    page = (await world.viewer("GET", "/events", params=query)).json()
    assert [event["data"]["version"] for event in page["events"]] == [4, 3]
    assert {(event["actor_kind"], event["actor"], event["source"]) for event in page["events"]} == {
        ("api-key", "a manager", "api")
    }
    rest = (await world.viewer("GET", "/events", params=query | {"cursor": page["next"]})).json()
    assert [event["data"]["version"] for event in rest["events"]] == [2]
    everywhere = (await world.viewer("GET", "/events", params={"limit": 1})).json()
    assert everywhere["events"][0]["id"] > page["events"][-1]["id"]
    older = (await world.viewer("GET", "/events", params={"limit": 1, "cursor": everywhere["next"]})).json()
    assert older["events"][0]["id"] < everywhere["events"][0]["id"]
    table = await world.viewer("GET", "/events", params={"tenant": tenant.slug}, headers={"Accept": "text/csv"})
    assert [row["action"] for row in csv.DictReader(io.StringIO(table.content.decode("utf-8-sig")))] == [
        "tenant.changed"
    ] * 3


async def test_statistics_count_by_channel(settings: Settings, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Asked for, sent, delivered, used: the same numbers before and after the hours were rolled up."""
    # Far from what other tests write at their moment.
    clock.forward(days=400)
    async with serve(settings, clock) as http:
        viewer = await admin_api(http, db, clock, "viewer")

        async def email() -> dict[str, dict[str, int]]:
            spans = (await viewer("GET", "/stats")).json()["spans"]
            return {span["name"]: next((c for c in span["channels"] if c["channel"] == "email"), {}) for span in spans}

        tenant = await add_tenant(db, clock())
        asked = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        code = await current_code(db, ring, asked)
        await http.otp(tenant.slug, "verify", {"challenge_id": asked, "code": code})
        await http.otp(tenant.slug, "request")
        async with db.tenant(tenant.id) as connection:
            for state in ("sent", "sent", "delivered", "failed"):
                await connection.execute(
                    """
                    INSERT INTO delivery_events (tenant_id, at, outbox_id, kind, channel, state)
                    VALUES ($1, $2, $1, 'code', 'email', $3)
                    """,
                    tenant.id, clock(), state,
                )  # fmt: skip
        counts = {"channel": "email", "requested": 2, "sent": 2, "delivered": 1, "failed": 1, "verified": 1}
        assert await email() == {"24h": counts, "7d": counts, "30d": counts}
        clock.forward(hours=3)
        assert await email() == {"24h": counts, "7d": counts, "30d": counts}
        assert await count(db, "SELECT count(*) FROM channel_hours WHERE channel = 'email' AND requested = 2") == 1
        clock.forward(days=2)
        assert await email() == {"24h": {}, "7d": counts, "30d": counts}
        clock.forward(days=30)
        assert await email() == {"24h": {}, "7d": {}, "30d": {}}


async def test_admins_come_change_and_go(world: World, ring: KeyRing, settings: Settings) -> None:
    """Added, given a role, suspended: then signed out at once. The last owner stays."""
    email = f"{uuid4().hex[:8]}@staff.example"
    added = await world.owner("POST", "/admins", json={"email": email, "role": "manager"})
    assert (added.status_code, added.json()["role"], added.headers["ETag"]) == (201, "manager", '"1"')
    problem(await world.owner("POST", "/admins", json={"email": email}), 409, "already-exists")
    admin_id = added.json()["id"]
    path = f"/admins/{admin_id}"
    stale = await world.owner("PATCH", path, json={"role": "viewer"}, headers={"If-Match": '"7"'})
    problem(stale, 412, "edit-conflict")
    problem(await world.owner("PATCH", path, json={"role": "king"}), 400, "invalid-request")
    assert (await world.owner("PATCH", path, json={"name": "Ada"})).json()["name"] == "Ada"

    sessions = Sessions(world.db, ring, settings, world.clock)
    cookie = await admin_cookie(world, sessions, UUID(admin_id))
    assert await sessions.authenticate_cookie(cookie) is not None
    assert (await world.owner("DELETE", path)).status_code == 204
    world.clock.forward(seconds=4)
    assert await sessions.authenticate_cookie(cookie) is None
    listed = (await world.owner("GET", "/admins")).json()["admins"]
    assert [admin["status"] for admin in listed if admin["id"] == admin_id] == ["suspended"]
    problem(await world.owner("DELETE", f"/admins/{uuid4()}"), 404, "not-found")


async def test_the_last_owner_stays(world: World) -> None:
    """Nobody is left alone without the right to do everything, not even by two requests at once."""
    async with world.db.every_tenant() as connection:
        await connection.execute("UPDATE admins SET role = 'viewer' WHERE role = 'owner'")
    first, second = await add_admin(world.db, world.clock), await add_admin(world.db, world.clock)
    answers = await asyncio.gather(
        world.owner("PATCH", f"/admins/{first.id}", json={"role": "viewer"}),
        world.owner("DELETE", f"/admins/{second.id}"),
    )
    assert max(answer.status_code for answer in answers) == 403
    owners = "SELECT count(*) FROM admins WHERE role = 'owner' AND status = 'active'"
    assert await count(world.db, owners) == 1


async def test_a_key_is_shown_once_and_revoked(world: World) -> None:
    """It works until it is revoked, and only its making shows it."""
    made = (await world.owner("POST", "/api-keys", json={"name": "ci", "role": "viewer"})).json()
    program = AdminApi(world.http, made["key"])
    assert (await program("GET", "/tenants")).status_code == 200
    assert made["key"] not in (await world.owner("GET", "/api-keys")).text
    assert (await world.owner("DELETE", f"/api-keys/{made['id']}")).status_code == 204
    problem(await program("GET", "/tenants"), 401, "invalid-token")
    problem(await world.owner("DELETE", f"/api-keys/{made['id']}"), 404, "not-found")


async def admin_cookie(world: World, sessions: Sessions, admin_id: UUID) -> str:
    """A browser session of this admin."""
    links = Links(world.db, sessions, world.clock)
    token = await links.create(SYSTEM_TENANT, ("admin", admin_id), Actor("operator"), Client("cli"))
    entered = await links.use(token, Client("page"))
    assert isinstance(entered, SignIn)
    assert entered.cookie is not None
    return entered.cookie


async def test_a_page_of_ours_may_call_with_its_session(world: World, ring: KeyRing, settings: Settings) -> None:
    """Reading needs the cookie alone; changing also our own origin and the session's token, and no stale sign-in."""
    admin: Admin = await add_admin(world.db, world.clock, "manager")
    cookie = await admin_cookie(world, Sessions(world.db, ring, settings, world.clock), admin.id)
    tenant = await world.tenant()
    path = f"/api/v1/admin/tenants/{tenant.slug}"
    signed_in = {"Cookie": f"gh_admin={cookie}"}
    ours = signed_in | {"Origin": BASE_URL, "X-CSRF-Token": csrf.token(ring.current, "admin", cookie)}

    async def patch(headers: dict[str, str], **fields: str) -> Any:
        return await world.http.client.patch(path, json=fields, headers=headers)

    assert (await world.http.client.get(path, headers=signed_in)).status_code == 200
    problem(await patch(signed_in, name="A"), 403, "forbidden")
    problem(await patch(ours | {"Origin": "https://evil.example"}, name="A"), 403, "forbidden")
    problem(await patch(ours | {"X-CSRF-Token": "x"}, name="A"), 403, "forbidden")
    assert (await patch(ours, name="A")).status_code == 200
    assert (await patch(ours, email="b@x.example")).status_code == 200
    problem(await world.http.client.delete(path, headers=ours), 403, "forbidden")

    for _ in range(STEP_UP // timedelta(minutes=10)):
        world.clock.forward(minutes=10)
        assert (await world.http.client.get(path, headers=signed_in)).status_code == 200
    problem(await patch(ours, email="c@x.example"), 403, "forbidden")
    assert (await patch(ours, name="C")).status_code == 200
    world.clock.forward(minutes=15)
    problem(await world.http.client.get(path, headers=signed_in), 401, "invalid-token")


async def test_every_operation_is_documented(world: World) -> None:
    """With who may call, how it refuses and, where it can be repeated, the key for it."""
    document = (await world.http.get("/docs/openapi.json")).json()
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        if path.startswith("/api/v1/admin")
        for method, operation in methods.items()
    ]
    assert len(operations) >= 20
    schemes = set(document["components"]["securitySchemes"])
    for method, path, operation in operations:
        assert {name for need in operation["security"] for name in need} <= schemes, path
        assert {"400", "401", "403", "503"} <= operation["responses"].keys(), path
        assert operation["summary"], path
        names = {parameter["name"] for parameter in operation.get("parameters", ())}
        assert ("Idempotency-Key" in names) == (method == "post"), path
    upload = document["paths"]["/api/v1/admin/tenants/import"]["post"]["requestBody"]["content"]
    assert set(upload) == {"text/csv", "application/jsonl"}
    for path in ("tenants/export", "deliveries", "events"):
        answers = document["paths"][f"/api/v1/admin/{path}"]["get"]["responses"]["200"]["content"]
        assert {"text/csv", "application/jsonl"} <= set(answers), path
