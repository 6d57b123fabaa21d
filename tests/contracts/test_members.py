"""What is promised to those who look after members: service, admin API and command line, on the real database."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.audit.log import Actor, Client
from app.errors import AlreadyExists, ContactMissing, EditConflict, InvalidRequest, NotFound, TenantNotFound
from app.keys import KeyRing
from app.members.model import Member
from app.members.search import Filters
from app.members.service import Members
from app.settings import Settings
from app.storage.db import Database
from tests.adminapi import admin_api
from tests.conftest import Clock
from tests.contracts.test_cli import Shell, environment, gatehouse, slug
from tests.http import Http, serve
from tests.people import CONSENT, SomeTenant, add_member, add_tenant, count, current_code

__all__ = ["environment", "gatehouse", "slug"]

BY_HAND, SHELL = Actor("operator"), Client("cli")


@dataclass(frozen=True, slots=True)
class Desk:
    """Somebody who looks after the members of one tenant, and the application they sign in to."""

    members: Members
    tenant: SomeTenant
    http: Http
    db: Database
    ring: KeyRing
    clock: Clock

    async def add(self, **fields: Any) -> Member:
        values = {"name": "Ana Silva", "email": f"ana-{uuid4().hex[:8]}@home.example", **fields}
        return await self.members.create(self.tenant.slug, values, actor=BY_HAND, client=SHELL)

    async def change(self, member: Member, expected_version: int | None = None, /, **values: Any) -> Member:
        return await self.members.update(
            self.tenant.slug, member.id, values, expected_version=expected_version, actor=BY_HAND, client=SHELL
        )

    async def ask(self, identifier: str, **more: Any) -> dict[str, str]:
        """A challenge and its right code."""
        asked = await self.http.otp(self.tenant.slug, "request", {"identifier": identifier, **more})
        assert asked.status_code == 202, asked.text
        challenge = asked.json()["challenge_id"]
        return {"challenge_id": challenge, "code": await current_code(self.db, self.ring, challenge)}

    async def sign_in(self, identifier: str) -> dict[str, Any]:
        answer = await self.http.otp(self.tenant.slug, "verify", await self.ask(identifier))
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def count(self, sql: str, *args: Any) -> int:
        return await count(self.db, sql, self.tenant.id, *args)


@pytest.fixture
async def desk(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Desk]:
    both = replace(settings, sms_enabled=True, sms_provider=("console",))
    tenant = await add_tenant(db, clock(), locale="en-GB")
    async with serve(both, clock) as http:
        yield Desk(Members(db, both, clock), tenant, http, db, ring, clock)


async def test_the_same_address_only_once(desk: Desk) -> None:
    """However an email's letters or a phone's digits are written; another tenant may have the same."""
    await desk.add(email="Ana@Home.Example", phone_number="07700 900123")
    for fields in ({"email": "ana@HOME.example"}, {"email": None, "phone_number": "+44 (0)7700 900-123"}):
        with pytest.raises((AlreadyExists, InvalidRequest)):
            await desk.add(**fields)
    with pytest.raises(AlreadyExists):
        await desk.add(email=None, phone_number="+447700900123")
    other = await add_tenant(desk.db, desk.clock())
    values = {"name": "Ana", "email": "ana@home.example"}
    await desk.members.create(other.slug, values, actor=BY_HAND, client=SHELL)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"email": "nobody"}, "/email"),
        ({"email": None}, "/email"),
        ({"phone_number": "12"}, "/phone_number"),
        ({"preferred_method": "push"}, "/preferred_method"),
        ({"locale": "xx"}, "/locale"),
        ({"status": "gone"}, "/status"),
        ({"codes_enabled": "yes"}, "/codes_enabled"),
        ({"must_verify": 1}, "/must_verify"),
        ({"password_hash": "x"}, "/password_hash"),
        ({"id": str(uuid4())}, "/id"),
    ],
)
async def test_what_a_member_may_not_be(desk: Desk, fields: dict[str, Any], pointer: str) -> None:
    """Refused with the field that is wrong, and nothing is written."""
    with pytest.raises(InvalidRequest) as refused:
        await desk.add(**fields)
    assert [error.pointer for error in refused.value.errors] == [pointer]
    assert await desk.count("SELECT count(*) FROM members WHERE tenant_id = $1") == 0


async def test_the_preferred_way_has_its_contact(desk: Desk) -> None:
    """A new member who wants SMS has a number: told at the field that is to be filled in, and nothing is written."""
    with pytest.raises(ContactMissing) as refused:
        await desk.add(preferred_method="sms")
    assert refused.value.extra["pointer"] == "/phone_number"
    assert await desk.count("SELECT count(*) FROM members WHERE tenant_id = $1") == 0


async def test_a_contact_change_by_staff(desk: Desk) -> None:
    """Open codes are void, sessions end, devices are strangers, both addresses are told, the log has it masked."""
    member = await desk.add(email="old@home.example")
    tokens = await desk.sign_in("old@home.example")
    proof = await desk.ask("old@home.example")
    desk.clock.forward(seconds=4)
    after = await desk.change(member, email="new@home.example")
    assert (after.version, after.email_verified_at) == (2, None)
    assert (await desk.http.otp(desk.tenant.slug, "verify", proof)).status_code == 410
    assert (await desk.http.auth("GET", "me", tokens["access_token"])).status_code == 401
    assert await desk.count("SELECT count(*) FROM devices WHERE tenant_id = $1 AND revoked_at IS NULL") == 0
    async with desk.db.every_tenant() as connection:
        told = await connection.fetch(
            "SELECT destination, payload FROM outbox WHERE tenant_id = $1 AND kind = 'notice'", desk.tenant.id
        )
        logged = await connection.fetchval(
            "SELECT data FROM audit_events WHERE tenant_id = $1 AND action = 'member.changed'", desk.tenant.id
        )
    assert {row["destination"] for row in told} == {"old@home.example", "new@home.example"}
    assert {row["payload"]["template"] for row in told} == {"own_contact_changed"}
    assert logged["changes"] == [{"field": "email", "before": "o***@home.example", "after": "n***@home.example"}]
    assert (logged["codes_voided"], logged["sessions_ended"]) == (1, 1)
    with pytest.raises(EditConflict):
        await desk.change(after, 1, name="Ana Maria")


async def test_suspended_and_resumed(desk: Desk) -> None:
    """Out within seconds, no code, and in again afterwards."""
    member = await desk.add(email="ana@home.example")
    tokens = await desk.sign_in("ana@home.example")
    desk.clock.forward(seconds=4)
    await desk.change(member, status="suspended")
    assert (await desk.http.auth("GET", "me", tokens["access_token"])).status_code == 401
    assert (await desk.http.auth("POST", "refresh", json={"refresh_token": tokens["refresh_token"]})).status_code == 401
    asked = await desk.http.otp(desk.tenant.slug, "request", {"identifier": "ana@home.example"})
    assert asked.status_code == 202
    decoys = "SELECT count(*) FROM challenges WHERE tenant_id = $1 AND decoy AND ended_at IS NULL"
    assert await desk.count(decoys) == 1
    await desk.change(member, status="active")
    assert (await desk.sign_in("ana@home.example"))["subject"]["id"] == str(member.id)


async def test_the_preferred_way(desk: Desk) -> None:
    """Whichever address is typed, the code goes the way the member prefers; a channel asked for comes first."""
    await desk.add(email="ana@home.example", phone_number="+447700900123", preferred_method="sms")
    channel = "SELECT count(*) FROM challenges WHERE tenant_id = $1 AND channel = $2"
    await desk.ask("ana@home.example")
    assert await desk.count(channel, "sms") == 1
    await desk.ask("+447700900123", channel="email")
    assert await desk.count(channel, "email") == 1


async def test_must_verify(desk: Desk) -> None:
    """An address that staff entered is proven by the first sign-in; from then on the other one doesn't count."""
    member = await desk.add(email="ana@home.example", phone_number="+447700900123", must_verify=True)
    await desk.sign_in("ana@home.example")
    proven = await desk.members.get(desk.tenant.slug, member.id)
    assert (proven.email_verified_at, proven.phone_verified_at) == (desk.clock(), None)
    await desk.http.otp(desk.tenant.slug, "request", {"identifier": "+447700900123"})
    assert await desk.count("SELECT count(*) FROM challenges WHERE tenant_id = $1 AND decoy") == 1
    await desk.http.otp(desk.tenant.slug, "request", {"identifier": "ana@home.example", "channel": "sms"})
    assert await desk.count("SELECT count(*) FROM challenges WHERE tenant_id = $1 AND decoy") == 2


async def test_invited(desk: Desk) -> None:
    """Only whoever staff has added as pending registers; the member is the one that was invited."""
    async with desk.db.every_tenant() as connection:
        policy = {"registration": "invite"}
        await connection.execute("UPDATE tenants SET policy = $2 WHERE id = $1", desk.tenant.id, policy)
    guest = await desk.add(email="guest@home.example", name="Guest", status="pending")
    path = f"/api/v1/tenants/{desk.tenant.slug}/members"
    for email, decoy in (("guest@home.example", False), ("other@home.example", True)):
        asked = await desk.http.post(path, {"name": "Ana Silva", "email": email, "consent": CONSENT})
        challenge = asked.json()["challenge_id"]
        decoys = "SELECT count(*) FROM challenges WHERE tenant_id = $1 AND decoy"
        assert await desk.count(decoys) == int(decoy)
        if not decoy:
            code = await current_code(desk.db, desk.ring, challenge)
            done = await desk.http.otp(desk.tenant.slug, "verify", {"challenge_id": challenge, "code": code})
            assert done.json()["subject"] == {"kind": "member", "id": str(guest.id), "name": "Ana Silva"}
    assert (await desk.members.get(desk.tenant.slug, guest.id)).status == "active"


async def test_erased(desk: Desk) -> None:
    """Nothing of the person is left in any table but the audit log, and there no name and no whole address."""
    member = await desk.add(email="before@home.example", phone_number="+447700900123", name="Ana Very Rare")
    await desk.sign_in("before@home.example")
    # The notice to the old address still waits to be sent.
    await desk.change(member, email="ana@home.example")
    body = await desk.ask("ana@home.example") | {"device_name": "Ana Very Rare's phone"}
    assert (await desk.http.otp(desk.tenant.slug, "verify", body)).status_code == 200
    await desk.ask("ana@home.example")
    kept = await desk.members.export(desk.tenant.slug, member.id, actor=BY_HAND, client=SHELL)
    assert kept["member"]["email"] == "ana@home.example"
    assert (len(kept["sessions"]), len(kept["devices"]), len(kept["challenges"])) == (2, 2, 3)
    assert "member.created" in {event["action"] for event in kept["events"]}
    await desk.members.erase(desk.tenant.slug, member.id, actor=BY_HAND, client=SHELL)
    async with desk.db.every_tenant() as connection:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
            "AND NOT relispartition"
        )
        for (table,) in tables:
            for word in ("ana@home.", "before@home.", "+447700900123", "Ana Very Rare", str(member.id)):
                where = f"SELECT count(*) FROM {table} t WHERE to_jsonb(t)::text LIKE '%' || $1 || '%'"
                where += " AND to_jsonb(t) ->> 'tenant_id' = $2"
                found = await connection.fetchval(where, word, str(desk.tenant.id))
                assert found == 0 or (table == "audit_events" and word == str(member.id)), (table, word)
    with pytest.raises(NotFound):
        await desk.members.get(desk.tenant.slug, member.id)


async def test_an_export_has_every_table(desk: Desk) -> None:
    """Whatever has rows of a member by their id has a part of its own, or is named here with a reason."""
    member = await desk.add()
    kept = await desk.members.export(desk.tenant.slug, member.id, actor=BY_HAND, client=SHELL)
    async with desk.db.every_tenant() as connection:
        rows = await connection.fetch(
            "SELECT DISTINCT c.table_name AS name FROM information_schema.columns c "
            "JOIN pg_class t ON t.relname = c.table_name AND NOT t.relispartition "
            "WHERE c.table_schema = 'public' AND c.column_name IN ('subject_id', 'member_id')"
        )
    # The log's are called events there.
    assert {row["name"] for row in rows} - {"audit_events"} <= set(kept)
    assert {"events", "deliveries"} <= set(kept)


async def test_found_however_it_is_written(desk: Desk) -> None:
    """Staff look somebody up by an email or a number as it was told them."""
    member = await desk.add(email="ana@bücher.example", phone_number="+447700900123")
    for told in ("Ana@BÜCHER.example", "ana@xn--bcher-kva.example", "+44 (0)7700 900-123", "07700 900123"):
        assert (await desk.members.find(desk.tenant.slug, told)).id == member.id, told
    for nobodys in ("bo@home.example", "+447700900124", "nobody", "", "a@b@c"):
        with pytest.raises(NotFound):
            await desk.members.find(desk.tenant.slug, nobodys)


async def test_a_file_has_each_member_once(desk: Desk) -> None:
    """Two rows that are one person's, however they are spelled: the second is a fault, and nothing is imported."""
    await desk.add(email="here@home.example", phone_number="+447700900123")
    rows = [
        "Ana,ana@home.example,",
        "Eve,ANA@Home.Example,",
        "Bo,here@home.example,+447700900123",
        "Di,,07700 900123",
    ]
    body = "\r\n".join(["name,email,phone_number", *rows]).encode()
    report = await desk.members.import_(desk.tenant.slug, body, dry_run=False, actor=BY_HAND, client=SHELL)
    assert [(fault.row, fault.field, fault.detail) for fault in report.faults] == [
        (3, "email", "Row 2 is about this member already."),
        (5, "phone_number", "Row 4 is about this member already."),
    ]
    assert await desk.count("SELECT count(*) FROM members WHERE tenant_id = $1") == 1


async def test_pages_and_search(desk: Desk) -> None:
    """By name, in pages, nothing twice; found by part of a name, an email or a number, and of this tenant only."""
    for n in range(7):
        await desk.add(name=f"Member {n}", email=f"m{n}@home.example", phone_number=f"+4477009001{n:02}")
    other = await add_tenant(desk.db, desk.clock())
    await add_member(desk.db, desk.clock(), other, email="m9@home.example", name="Member 9")
    names: list[str] = []
    cursor = None
    while True:
        page = await desk.members.page(desk.tenant.slug, Filters(contacts=True), cursor=cursor, limit=3)
        names += [member.name for member in page.members]
        cursor = page.next
        if cursor is None:
            break
    assert names == [f"Member {n}" for n in range(7)]
    for needle in ("member 3", "M3@HOME", "900103"):
        found = await desk.members.page(desk.tenant.slug, Filters(needle, contacts=True))
        assert [member.name for member in found.members] == ["Member 3"], needle
    assert (await desk.members.page(desk.tenant.slug, Filters("%", contacts=True))).members == []
    for bad in ({"cursor": "nonsense"}, {"found": Filters(status="gone", contacts=True)}, {"limit": 0}):
        with pytest.raises(InvalidRequest):
            await desk.members.page(desk.tenant.slug, **({"found": Filters(contacts=True)} | bad))
    with pytest.raises(TenantNotFound):
        await desk.members.page("nobody-has-this-slug", Filters(contacts=True))


async def test_codes_switched_in_bulk(desk: Desk) -> None:
    """For all or for some, each change in the log."""
    first, second = await desk.add(), await desk.add()
    slug = desk.tenant.slug
    assert await desk.members.switch_codes(slug, False, only=[first.id], actor=BY_HAND, client=SHELL) == 1
    assert await desk.members.switch_codes(slug, False, actor=BY_HAND, client=SHELL) == 1
    assert not (await desk.members.get(slug, second.id)).codes_enabled
    assert await desk.members.switch_codes(slug, True, actor=BY_HAND, client=SHELL) == 2
    changed = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'member.changed'"
    assert await desk.count(changed) == 4


async def test_a_file_all_or_nothing(desk: Desk) -> None:
    """Adds and changes by email or phone; with a fault nothing is done and every fault is named by its row."""
    await desk.add(name="Old Name", email="here@home.example")
    head = "name,email,phone_number,codes_enabled\r\n"
    good = head + "New Name,here@home.example,,no\r\nBo,,07700 900456,\r\n"

    async def put(text: str, *, dry_run: bool = False) -> tuple[int, int, int, list[tuple[int, str]]]:
        report = await desk.members.import_(
            desk.tenant.slug, text.encode(), dry_run=dry_run, actor=BY_HAND, client=SHELL
        )
        counts = report.counts
        return counts["new"], counts["changed"], counts["unchanged"], [(f.row, f.field) for f in report.faults]

    assert await put(good, dry_run=True) == (1, 1, 0, [])
    assert await desk.count("SELECT count(*) FROM members WHERE tenant_id = $1") == 1
    bad = good + ",x@home.example,,\r\nEve,nonsense,,maybe\r\n"
    assert (await put(bad))[3] == [(4, "name"), (5, "email"), (5, "codes_enabled")]
    assert await desk.count("SELECT count(*) FROM members WHERE tenant_id = $1") == 1
    assert await put(good) == (1, 1, 0, [])
    assert await put(good) == (0, 0, 2, [])
    assert not (await desk.members.find(desk.tenant.slug, "here@home.example")).codes_enabled
    assert (await put("name,email\r\nonly one\r\n"))[3] == [(2, "")]
    for broken in ("slug,name\r\na,b\r\n", "email\r\n"):
        with pytest.raises(InvalidRequest):
            await put(broken)


async def test_the_admin_api(desk: Desk) -> None:
    """Each role what it may; contacts masked for viewers; versions guard; another tenant's member isn't there."""
    owner, manager, viewer = [
        await admin_api(desk.http, desk.db, desk.clock, role) for role in ("owner", "manager", "viewer")
    ]
    base = f"/tenants/{desk.tenant.slug}/members"
    body = {"name": "Ana Silva", "email": "ana@home.example", "must_verify": True}
    assert (await viewer("POST", base, json=body)).status_code == 403
    added = await manager("POST", base, json=body)
    assert (added.status_code, added.headers["ETag"]) == (201, '"1"')
    where = f"{base}/{added.json()['id']}"
    assert (await manager("POST", base, json=body)).json()["code"] == "already-exists"
    shown = (await viewer("GET", where)).json()
    assert (shown["email"], shown["must_verify"], shown["has_password"]) == ("a***@home.example", True, False)
    listed = (await viewer("GET", base, params={"search": "ana"})).json()
    assert [member["email"] for member in listed["members"]] == ["a***@home.example"]
    changed = await manager("PATCH", where, json={"name": "Ana S"}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    assert (await manager("PATCH", where, json={"name": "B"}, headers={"If-Match": '"1"'})).status_code == 412
    assert (await manager("PATCH", where, json={"role": "owner"})).status_code == 400
    assert (await manager("POST", f"{base}/codes", json={"codes_enabled": False})).json() == {"changed": 1}
    exported = (await manager("GET", f"{where}/export")).json()
    assert exported["member"]["email"] == "ana@home.example"
    other = await add_tenant(desk.db, desk.clock())
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/export")):
        options = {"json": {"name": "Eve"}} if method == "PATCH" else {}
        foreign = f"/tenants/{other.slug}/members/{added.json()['id']}{path}"
        assert (await owner(method, foreign, **options)).status_code == 404, (method, path)
    assert (await manager("DELETE", where)).status_code == 403
    assert (await owner("DELETE", where)).status_code == 204
    assert (await owner("GET", where)).status_code == 404


async def test_unlocked(desk: Desk) -> None:
    """By the admin API: wrong codes and passwords, the lock and used-up codes are forgotten, the member's alone."""
    member, other = await desk.add(email="ana@home.example"), await desk.add(email="ben@home.example")
    for person in ("ana@home.example", "ben@home.example"):
        for _ in range(3):
            await desk.ask(person)
    tries = "UPDATE quota SET password_tries = $2, wrong = $2, locked_until = $3 WHERE tenant_id = $1"
    async with desk.db.every_tenant() as connection:
        now = desk.clock()
        await connection.execute(tries, desk.tenant.id, [now] * 15, now + timedelta(hours=1))
    manager = await admin_api(desk.http, desk.db, desk.clock, "manager")
    path = f"/tenants/{desk.tenant.slug}/members/{{}}/unlock"
    answer = await manager("POST", path.format(member.id))
    assert (answer.status_code, answer.json()) == (200, {"unlocked": True})
    kept = "SELECT count(*) FROM quota WHERE tenant_id = $1 AND recipient_key = uuid_send($2)"
    assert [await desk.count(kept, one.id) for one in (member, other)] == [0, 1]
    await desk.sign_in("ana@home.example")
    refused = await desk.http.otp(desk.tenant.slug, "request", {"identifier": "ben@home.example"})
    assert refused.status_code == 429
    logged = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND subject_id = $2 AND action = 'member.unlocked'"
    assert await desk.count(logged, member.id) == 1
    assert (await manager("POST", path.format(uuid4()))).status_code == 404
    async with desk.db.every_tenant() as connection:
        await connection.execute("DELETE FROM quota WHERE tenant_id = $1", desk.tenant.id)
    assert (await manager("POST", path.format(other.id))).json() == {"unlocked": False}
    assert await desk.count(logged, other.id) == 0


def test_the_command_line(gatehouse: Shell, slug: str, tmp_path: Path) -> None:
    """Add, set, show, list, import, suspend, unlock, export, erase; bad input is one line and exit code 2."""
    gatehouse("tenant", "add", slug, "--name", "Acme", "--email", f"o@{slug}.example")
    added = gatehouse.json("member", "add", slug, "--name", "Ana", "--email", "Ana@home.example")
    assert str(UUID(added["id"])) == added["id"]
    assert added["email"] == "ana@home.example"
    changed = gatehouse.json("member", "set", slug, "ana@home.example", "--phone", "+447700900123", "--no-codes")
    assert (changed["phone_number"], changed["codes_enabled"]) == ("+447700900123", False)
    assert gatehouse.json("member", "show", slug, "+447700900123")["id"] == added["id"]
    file = tmp_path / "members.csv"
    file.write_text("name,email\r\nBo,bo@home.example\r\n")
    assert gatehouse("member", "import", slug, str(file)).stdout == "Done: 1 new, 0 changed, 0 unchanged.\n"
    assert [m["name"] for m in gatehouse.json("member", "list", slug)] == ["Ana", "Bo"]
    assert gatehouse.json("member", "suspend", slug, added["id"])["status"] == "suspended"
    assert gatehouse.json("member", "resume", slug, added["id"])["status"] == "active"
    assert gatehouse("member", "unlock", slug, added["id"]).stdout == "There was nothing to unlock for this member.\n"
    assert json.loads(gatehouse("member", "export", slug, added["id"]).stdout)["member"]["name"] == "Ana"
    unasked = gatehouse("member", "erase", slug, added["id"])
    assert unasked.returncode == 2
    assert unasked.stderr.endswith("gatehouse: error: Nothing was erased: answer y, or give --yes.\n")
    assert gatehouse("member", "show", slug, "Ana@HOME.example").returncode == 0
    assert gatehouse("member", "erase", slug, added["id"], "--yes").returncode == 0
    gone = gatehouse("member", "show", slug, "ana@home.example")
    assert (gone.returncode, len(gone.stderr.splitlines())) == (2, 1)
    assert gatehouse("member", "add", slug, "--name", "X").returncode == 2
