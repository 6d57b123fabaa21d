"""Members by the admin API and the command line, many at once: imported, exported, counted."""

import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.audit.log import Actor, Client
from app.keys import KeyRing
from app.members.files import MOST_ROWS
from app.members.search import Filters
from app.members.service import Members
from app.settings import Settings
from app.storage.db import Database
from tests.adminapi import AdminApi, admin_api
from tests.conftest import Clock
from tests.contracts.test_cli import Shell, environment, gatehouse, slug
from tests.http import Http, serve
from tests.people import SomeTenant, add_member, add_tenant, count, current_code, wrong

__all__ = ["environment", "gatehouse", "slug"]

CSV = {"Content-Type": "text/csv"}


@dataclass(frozen=True, slots=True)
class World:
    """A tenant, the application, and callers of two roles."""

    http: Http
    db: Database
    ring: KeyRing
    clock: Clock
    tenant: SomeTenant
    manager: AdminApi
    viewer: AdminApi

    @property
    def path(self) -> str:
        return f"/tenants/{self.tenant.slug}/members"

    async def add(self, **fields: Any) -> UUID:
        return await add_member(self.db, self.clock(), self.tenant, **fields)

    async def load(self, text: str, **options: Any) -> Any:
        return await self.manager("POST", f"{self.path}/import", content=text.encode(), headers=CSV, **options)

    async def people(self) -> int:
        return await count(self.db, "SELECT count(*) FROM members WHERE tenant_id = $1", self.tenant.id)

    async def sign_in(self, email: str, *, wrong_tries: int = 0, ends_well: bool = True) -> str:
        """The challenge of a sign-in, with wrong codes first."""
        asked = await self.http.otp(self.tenant.slug, "request", {"identifier": email})
        challenge: str = asked.json()["challenge_id"]
        code = await current_code(self.db, self.ring, challenge)
        for _ in range(wrong_tries):
            await self.http.otp(self.tenant.slug, "verify", {"challenge_id": challenge, "code": wrong(code)})
        if ends_well:
            answer = await self.http.otp(self.tenant.slug, "verify", {"challenge_id": challenge, "code": code})
            assert answer.status_code == 200, answer.text
        return challenge

    async def delivered(self, *states: str) -> None:
        """What a provider said about the newest code's message, now."""
        async with self.db.every_tenant() as connection:
            for state in states:
                await connection.execute(
                    "INSERT INTO delivery_events (tenant_id, at, outbox_id, challenge_id, kind, channel, state) "
                    "SELECT tenant_id, $1, $2, challenge_id, 'code', 'email', $3 FROM audit_events "
                    "WHERE tenant_id = $4 AND action = 'code.requested' ORDER BY id DESC LIMIT 1",
                    self.clock(),
                    uuid4(),
                    state,
                    self.tenant.id,
                )


@pytest.fixture
async def world(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[World]:
    tenant = await add_tenant(db, clock(), policy={"hourly_limit": 10})
    async with serve(settings, clock, otp_hourly_limit=10) as http:
        keys = [await admin_api(http, db, clock, role) for role in ("manager", "viewer")]
        yield World(http, db, ring, clock, tenant, *keys)


async def test_a_dry_run_says_what_each_row_would_do(world: World) -> None:
    """New, changed, unchanged with the fields; nothing is written. Then the same for good, once by its key."""
    await world.add(name="Ana", email="ana@home.example")
    await world.add(name="Ben", email="ben@home.example")
    text = "name,email,locale\nAna Maria,ana@home.example,en\nBen,ben@home.example,en\nCleo,cleo@home.example,de\n"
    tried = (await world.load(text, params={"dry_run": "true"})).json()
    assert tried == {
        "applied": False,
        "new": 1,
        "changed": 1,
        "unchanged": 1,
        "faulty": 0,
        "rows": [
            {"row": 2, "name": "Ana Maria", "outcome": "changed", "fields": ["name"]},
            {"row": 3, "name": "Ben", "outcome": "unchanged", "fields": []},
            {"row": 4, "name": "Cleo", "outcome": "new", "fields": ["name", "email", "locale"]},
        ],
        "errors": [],
    }
    assert await world.people() == 2
    done = (await world.load(text, key="k-1")).json()
    assert done == tried | {"applied": True}
    assert await world.people() == 3
    again = await world.load(text, key="k-1")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (done, "true")


async def test_a_fault_stands_beside_its_cell(world: World) -> None:
    """A dry run lists every fault; without it they are a refusal with pointers, and no row was imported."""
    text = "name,email,phone_number\nAna,ana@home.example,\n,nobody,12\nDan,d***@home.example,\n"
    tried = (await world.load(text, params={"dry_run": "true"})).json()
    assert (tried["new"], tried["faulty"]) == (1, 2)
    places = [(error["row"], error["field"]) for error in tried["errors"]]
    assert places == [(3, "name"), (3, "email"), (3, "phone_number"), (4, "email")]
    refused = await world.load(text)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid-request")
    assert refused.json()["detail"] == "2 rows have faults: nothing was imported."
    assert [error["pointer"] for error in refused.json()["errors"]] == [f"/{row}/{field}" for row, field in places]
    assert await world.people() == 0


async def test_what_is_no_such_file(world: World) -> None:
    """Another media type, another header, too many rows, too many bytes, nobody's tenant, a viewer."""
    for content_type in ("application/json", "application/jsonl", "text/plain"):
        answer = await world.manager(
            "POST", f"{world.path}/import", content=b"name\nX\n", headers={"Content-Type": content_type}
        )
        assert answer.status_code == 415, content_type
    assert (await world.load("name,iban\nAna,1\n")).status_code == 400
    assert (await world.load("name,email\n" + "Ana,ana@home.example\n" * (MOST_ROWS + 1))).status_code == 400
    assert (await world.load("name\n" + "x" * 10 * 1024 * 1024)).status_code == 413
    stranger = await world.manager("POST", "/tenants/nobody-has-this/members/import", content=b"name\n", headers=CSV)
    assert stranger.status_code == 404
    lower = await world.viewer("POST", f"{world.path}/import", content=b"name\n", headers=CSV)
    assert lower.status_code == 403


async def test_exported_and_imported_again(world: World) -> None:
    """By name, of any length, formulas disarmed, and unchanged when it comes back; it is in the audit log."""
    for n in range(205):
        await world.add(name=f"=Member {n:03}", email=f"m{n}@home.example", codes_enabled=n % 2 == 0)
    await world.add(name="Zoë", phone_number="+442079460018", status="suspended", email=None)
    exported = await world.manager("GET", f"{world.path}/export")
    assert exported.headers["content-disposition"] == 'attachment; filename="members.csv"'
    rows = list(csv.DictReader(io.StringIO(exported.content.decode("utf-8-sig"))))
    assert (len(rows), rows[1]["name"], rows[1]["codes_enabled"]) == (206, "'=Member 001", "false")
    assert (rows[205]["phone_number"], rows[205]["status"]) == ("'+442079460018", "suspended")
    back = (await world.load(exported.text, params={"dry_run": "true"})).json()
    assert (back["unchanged"], back["errors"]) == (206, [])
    some = await world.manager("GET", f"{world.path}/export", params={"status": "suspended"})
    assert [row["name"] for row in csv.DictReader(io.StringIO(some.content.decode("utf-8-sig")))] == ["Zoë"]
    log = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'members.exported'"
    assert await count(world.db, log, world.tenant.id) == 2


async def test_a_viewers_file_holds_no_address(world: World) -> None:
    """Contacts are masked, can't be searched for, and such a file is refused by an import."""
    await world.add(name="Ana", email="secret.person@home.example")
    exported = await world.viewer("GET", f"{world.path}/export")
    assert "s***@home.example" in exported.text
    assert "secret.person" not in exported.text
    assert (await world.load(exported.text)).status_code == 400
    for path in (f"{world.path}/export", world.path):
        found = await world.viewer("GET", path, params={"search": "secret.person"})
        assert "Ana" not in found.text, path
    assert "Ana" in (await world.manager("GET", world.path, params={"search": "secret.person"})).text


async def test_pages_lead_on(world: World) -> None:
    """A list by name in pages of two, each member once."""
    for n in range(5):
        await world.add(name=f"Member {n}", email=f"m{n}@home.example")
    seen: list[str] = []
    cursor = None
    while True:
        page = (
            await world.viewer("GET", world.path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        ).json()
        seen += [member["name"] for member in page["members"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [f"Member {n}" for n in range(5)]


async def test_codes_are_counted(world: World) -> None:
    """Of members only, by span: asked, sent, delivered, wrong, locked, used; success is of the sign-ins begun."""
    await world.add(email="ana@home.example")
    await world.sign_in("ana@home.example", wrong_tries=2)
    await world.delivered("sent", "delivered")
    world.clock.forward(days=3)
    await world.sign_in("ana@home.example", wrong_tries=5, ends_well=False)
    await world.delivered("sent")
    world.clock.forward(minutes=20)
    # The tenant's own contact is no member, and somebody nobody knows is nobody.
    await world.http.otp(world.tenant.slug, "request")
    await world.http.otp(world.tenant.slug, "request", {"identifier": "nobody@home.example"})
    other = await add_tenant(world.db, world.clock())
    spans = (await world.viewer("GET", f"{world.path}/stats")).json()["spans"]
    day = {"requested": 1, "sent": 1, "delivered": 0, "verified": 0, "wrong": 5, "locked": 1}
    week = {"requested": 2, "sent": 2, "delivered": 1, "verified": 1, "wrong": 7, "locked": 1}
    ends = ({"begun": 1, "succeeded": 0, "success_rate": 0.0}, {"begun": 2, "succeeded": 1, "success_rate": 0.5})
    assert [span["name"] for span in spans] == ["24h", "7d", "30d"]
    assert [{name: span[name] for name in (*day, *ends[0])} for span in spans] == [
        day | ends[0],
        week | ends[1],
        week | ends[1],
    ]
    nobody = (await world.viewer("GET", f"/tenants/{other.slug}/members/stats")).json()["spans"]
    assert {span["success_rate"] for span in nobody} == {None}
    assert (await world.viewer("GET", "/tenants/nobody-has-this/members/stats")).status_code == 404


async def test_a_code_sent_again_is_no_failure(world: World) -> None:
    """Asked for twice, one sign-in, one success."""
    await world.add(email="ana@home.example")
    challenge = await world.sign_in("ana@home.example", ends_well=False)
    world.clock.forward(minutes=2)
    await world.http.otp(world.tenant.slug, "resend", {"challenge_id": challenge})
    code = await current_code(world.db, world.ring, challenge)
    await world.http.otp(world.tenant.slug, "verify", {"challenge_id": challenge, "code": code})
    span = (await world.viewer("GET", f"{world.path}/stats")).json()["spans"][0]
    assert (span["requested"], span["begun"], span["success_rate"]) == (2, 1, 1.0)


async def test_the_reference_has_them(world: World) -> None:
    """The document names the import with its CSV, the file of the export, and the counts."""
    paths = (await world.http.get("/docs/openapi.json")).json()["paths"]
    base = "/api/v1/admin/tenants/{slug}/members"
    assert list(paths[f"{base}/import"]["post"]["requestBody"]["content"]) == ["text/csv"]
    assert "text/csv" in paths[f"{base}/export"]["get"]["responses"]["200"]["content"]
    assert "200" in paths[f"{base}/stats"]["get"]["responses"]


async def test_members_of_a_page_backwards(world: World, settings: Settings) -> None:
    """The page before a page is the one that led to it; the first has none."""
    members = Members(world.db, settings, world.clock)
    for n in range(7):
        await members.create(
            world.tenant.slug,
            {"name": f"Member {n}", "email": f"m{n}@home.example"},
            actor=Actor("operator"),
            client=Client("cli"),
        )
    pages = [await members.page(world.tenant.slug, Filters(contacts=True), limit=3)]
    while pages[-1].next:
        pages.append(await members.page(world.tenant.slug, Filters(contacts=True), cursor=pages[-1].next, limit=3))
    assert [len(page.members) for page in pages] == [3, 3, 1]
    back = await members.page(world.tenant.slug, Filters(contacts=True), cursor=pages[2].previous, limit=3)
    assert back.members == pages[1].members
    first = await members.page(world.tenant.slug, Filters(contacts=True), cursor=back.previous, limit=3)
    assert (first.members, first.previous) == (pages[0].members, None)


def test_the_command_line_counts_and_imports(gatehouse: Shell, slug: str, tmp_path: Path) -> None:
    """A file is tried and loaded; the counts are a table, or JSON with the rate."""
    assert gatehouse("tenant", "add", slug, "--name", "Acme", "--email", f"a@{slug}.example").returncode == 0
    file = tmp_path / "members.csv"
    file.write_text("name,email\nAna,ana@home.example\n")
    tried = gatehouse("member", "import", slug, str(file), "--dry-run")
    assert tried.stdout == "Nothing was changed: 1 new, 0 changed, 0 unchanged.\n"
    done = json.loads(gatehouse("member", "import", slug, str(file), "--json").stdout)
    assert (done["applied"], done["new"], done["errors"]) == (True, 1, [])
    table = gatehouse("member", "stats", slug).stdout.splitlines()
    assert table[0].split()[:3] == ["LAST", "ASKED", "FOR"]
    assert [line.split()[0] for line in table[1:]] == ["24h", "7d", "30d"]
    spans = json.loads(gatehouse("member", "stats", slug, "--json").stdout)
    assert [(span["name"], span["requested"], span["success_rate"]) for span in spans] == [
        ("24h", 0, None),
        ("7d", 0, None),
        ("30d", 0, None),
    ]
