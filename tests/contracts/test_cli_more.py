"""Many tenants at once, letting people in, and changing the secret: the rest of the `gatehouse` command."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.audit.log import Actor, Client, record
from app.audit.sealing import seal_once
from app.auth.admins import Admins
from app.auth.api_keys import ApiKeys
from app.auth.idempotency import Idempotency
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.auth.signing_in import SignIn
from app.cli.services import now
from app.errors import CodeExpired
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.storage.migrate import upgrade
from tests.conftest import Clock
from tests.contracts.test_cli import Shell, environment, gatehouse, refused, slug
from tests.people import add_member, add_tenant, count
from tests.stores import StoresOfTests

__all__ = ["environment", "gatehouse", "slug"]

OLD, NEW = "o" * 43, "n" * 43
_CHALLENGE = """
INSERT INTO challenges (tenant_id, id, recipient_key, subject_kind, subject_id, decoy, channel, code_length, key_id,
                        max_attempts, locale, created_at, sent_at, resend_at, expires_at)
VALUES ($1, gen_random_uuid(), '', 'tenant', $1, false, 'email', 6, $2, 5, 'en', $3, $3, $3,
        $3::timestamptz + interval '10 minutes')
"""


def csv_of(*rows: str) -> str:
    return "\r\n".join(["slug,name,email,phone_number,otp_delivery_method,policy", *rows, ""])


def test_a_file_is_tried_imported_and_exported_again(gatehouse: Shell, slug: str, tmp_path: Path) -> None:
    """A dry run writes nothing; the import does; the export of it, imported, changes nothing."""
    file = tmp_path / "tenants.csv"
    file.write_text(
        csv_of(
            f"{slug}-1,=Acme,one@{slug}.example,,email,max_attempts=3 hourly_limit=2",
            f"{slug}-2,Beta,two@{slug}.example,+447700900123,,",
        )
    )
    tried = gatehouse("tenant", "import", str(file), "--dry-run")
    assert (tried.returncode, tried.stdout) == (0, "Nothing was imported. It would be: 2 new.\n")
    assert gatehouse.json("tenant", "list", "--search", slug) == []

    done = gatehouse("tenant", "import", str(file))
    assert (done.returncode, done.stdout) == (0, "Imported: 2 new.\n")
    assert [t["policy"] for t in gatehouse.json("tenant", "list", "--search", slug)] == [
        {"max_attempts": 3, "hourly_limit": 2},
        {},
    ]

    for name in ("again.csv", "again.jsonl"):
        out = tmp_path / name
        assert gatehouse("tenant", "export", str(out), "--search", slug).returncode == 0
        again = gatehouse("tenant", "import", str(out))
        assert (again.returncode, again.stdout) == (0, "Imported: 2 unchanged.\n"), again.stderr
    assert "'=Acme" in (tmp_path / "again.csv").read_text()
    assert gatehouse("tenant", "export", "--search", slug).stdout.splitlines()[0].startswith("slug,name,status,email")


def test_a_file_with_faults_changes_nothing(gatehouse: Shell, slug: str, tmp_path: Path) -> None:
    """The dry run lists every fault by row and field, exit code 1; the import says one line, exit code 2."""
    file = tmp_path / "tenants.csv"
    file.write_text(csv_of(f"{slug},Acme,ok@x.example,,,", "Bad Slug,,no,12,pigeon,max_attempts=99"))
    tried = gatehouse("tenant", "import", str(file), "--dry-run")
    assert tried.returncode == 1
    for field in ("slug", "name", "email", "phone_number", "otp_delivery_method", "policy.max_attempts"):
        assert f"row 3: {field}: " in tried.stdout, tried.stdout
    told = refused(gatehouse("tenant", "import", str(file)), 2)
    assert "more faults" in told
    assert "Nothing was imported" in told
    assert gatehouse.json("tenant", "list", "--search", slug) == []
    assert "No such file" in refused(gatehouse("tenant", "import", str(tmp_path / "none.csv")), 2)


async def test_unlocking_forgets_the_hourly_quota(gatehouse: Shell, slug: str, db: Database, clock: Clock) -> None:
    """Once there is something to forget it is forgotten; then there is nothing."""
    tenant = await add_tenant(db, clock(), slug=slug)
    async with db.tenant(tenant.id) as connection:
        await connection.execute(
            "INSERT INTO quota (tenant_id, recipient_key, sends, seen_at) VALUES ($1, uuid_send($1), '{}', now())",
            tenant.id,
        )
    assert gatehouse("tenant", "unlock", slug).stdout == f"{slug} is unlocked.\n"
    assert gatehouse.json("tenant", "unlock", slug) == {"unlocked": False}
    assert "nobody" in refused(gatehouse("tenant", "unlock", "nobody"), 2)


async def test_a_mark_is_taken_off(gatehouse: Shell, slug: str, db: Database, clock: Clock) -> None:
    """A tenant's and a member's contact counts as working again; then there is nothing to take off."""
    tenant = await add_tenant(db, clock(), slug=slug)
    member = await add_member(db, clock(), tenant, email="ana@home.example")
    async with db.tenant(tenant.id) as connection:
        for subject in (tenant.id, member):
            await connection.execute(
                "INSERT INTO contact_health (tenant_id, subject_id, channel, since, error_class) "
                "VALUES ($1, $2, 'email', now(), 'recipient')",
                tenant.id,
                subject,
            )
    told = gatehouse("tenant", "clear-failing", slug).stdout
    assert told == f"The contact of {slug} counts as working again: email.\n"
    assert gatehouse.json("tenant", "clear-failing", slug) == {"cleared": []}
    assert gatehouse.json("member", "clear-failing", slug, "ana@home.example") == {"cleared": ["email"]}
    told = gatehouse("member", "clear-failing", slug, "ana@home.example").stdout
    assert told == "The contact of the member was not marked as failing.\n"
    assert "nobody" in refused(gatehouse("tenant", "clear-failing", "nobody"), 2)


async def test_a_link_lets_an_admin_in_once(gatehouse: Shell, slug: str, db: Database, settings: Settings) -> None:
    """Break-glass: printed once, audited, used once; for nobody else than an active admin."""
    email = f"{slug}@company.example"
    added = gatehouse.json("admin", "add", email)
    secret = {"SECRET_KEY": OLD}
    made = gatehouse("admin", "login-link", email.upper(), **secret)
    assert made.returncode == 0, made.stderr
    address, _, token = made.stdout.strip().rpartition("/")
    assert address == "http://localhost:8000/admin/link"
    events = """
        SELECT count(*) FROM audit_events
        WHERE action = 'sign_in_link.created' AND actor_kind = 'operator' AND subject_id = $1
    """
    assert await count(db, events, added["id"]) == 1

    links = Links(db, Sessions(db, KeyRing([OLD.encode()]), settings, now), now)
    entered = await links.use(token, Client("page"))
    assert isinstance(entered, SignIn)
    assert (entered.tenant_id, entered.subject.kind, str(entered.subject.id)) == (SYSTEM_TENANT, "admin", added["id"])
    with pytest.raises(CodeExpired):
        await links.use(token, Client("page"))
    assert "No active admin" in refused(gatehouse("admin", "login-link", "nobody@company.example"), 2)


async def test_an_admin_is_suspended_and_the_keys_go_to_another(gatehouse: Shell, db: Database) -> None:
    """With `--keys-to` they go on as the other owner's; without it they end."""
    keys, admins = ApiKeys(db, now), Admins(db, now)
    leaving, heir, _ = [
        await admins.add(f"{uuid4().hex}@company.example", "owner", actor=Actor("operator"), client=Client("cli"))
        for _ in range(3)
    ]
    made = [
        await keys.create("ci", "viewer", actor=Actor("admin", admin.id), client=Client("cli"))
        for admin in (leaving, heir)
    ]
    done = gatehouse("admin", "suspend", leaving.email, "--keys-to", heir.email)
    assert done.stdout == f"{leaving.email} is suspended. Their API keys are {heir.email}'s now.\n", done.stderr
    assert [await keys.authenticate(text) is not None for _, text in made] == [True, True]
    assert gatehouse("admin", "suspend", heir.email).stdout == f"{heir.email} is suspended.\n"
    assert [await keys.authenticate(text) for _, text in made] == [None, None]


@pytest.fixture
async def own(stores: StoresOfTests, worker_id: str) -> AsyncIterator[str]:
    """A database in which no other test's keys are named."""
    name = f"rotation_{worker_id}"
    await stores.create_database(name)
    await upgrade(stores.owner_url_for(name), datetime.now(UTC))
    yield stores.app_url_for(name)
    await stores.drop_database(name)


class Rotation:
    """An installation whose secret is being changed: what it does under the old one, and what the command then says."""

    def __init__(self, gatehouse: Shell, db: Database, url: str) -> None:
        self.gatehouse, self.db, self.url = gatehouse, db, url
        self.old, self.new = KeyRing([OLD.encode()]), KeyRing([NEW.encode()])

    async def ask_for_a_code(self) -> None:
        """A challenge that is open under the old secret."""
        tenant = await add_tenant(self.db, now())
        async with self.db.tenant(tenant.id) as connection:
            await connection.execute(_CHALLENGE, tenant.id, self.old.current.id, now())

    async def rotate(self, secrets: str, *args: str) -> tuple[int, Any, str]:
        """The exit code, the keys by id with what needs them, and what was said."""
        environment = {"SECRET_KEYS": secrets, "DATABASE_URL": self.url}
        done = await asyncio.to_thread(self.gatehouse, "keys", "rotate", "--json", *args, **environment)
        keys = json.loads(done.stdout)["keys"] if done.stdout else None
        return done.returncode, {key["id"]: (key["state"], key["needed_by"]) for key in keys or ()}, done.stderr


@pytest.fixture
async def rotation(gatehouse: Shell, own: str) -> AsyncIterator[Rotation]:
    db = Database(own)
    await db.open()
    yield Rotation(gatehouse, db, own)
    await db.close()


async def test_an_old_secret_goes_once_nothing_needs_it(rotation: Rotation) -> None:
    """Codes that are out keep it; when they have ended, and nothing else names it, it may go."""
    old, new = rotation.old.current.id, rotation.new.current.id
    await rotation.ask_for_a_code()
    both = f"{NEW},{OLD}"
    status, keys, _ = await rotation.rotate(both)
    assert (status, keys) == (0, {new: ("first", {}), old: ("verifies", {"open codes": 1})})

    status, _, said = await rotation.rotate(both, "--drop", old)
    assert status == 1
    assert f"{old} can't go yet: it is needed by 1 open codes" in said
    assert "it is the first one" in (await rotation.rotate(both, "--drop", new))[2]

    async with rotation.db.every_tenant() as connection:
        await connection.execute("DELETE FROM challenges")
    status, _, said = await rotation.rotate(both, "--drop", old)
    assert status == 0
    assert "take its secret out" in said
    assert (await rotation.rotate(both, "--drop", "abc"))[0] == 2


async def test_a_secret_that_was_dropped_too_early_is_missed(rotation: Rotation) -> None:
    """The command names the key, and says what to do."""
    await rotation.ask_for_a_code()
    status, keys, said = await rotation.rotate(NEW)
    assert status == 1
    assert keys[rotation.old.current.id] == ("missing", {"open codes": 1})
    assert "add its secret back" in said


async def test_what_is_encrypted_moves_to_the_new_secret(rotation: Rotation) -> None:
    """An answer kept under the old secret is still given when only the new one is left."""
    caller = uuid4()
    before = Idempotency(rotation.db, rotation.old, now)
    await before.done(await before.begin(caller, "k", b"body"), b"the answer")
    assert (await rotation.rotate(f"{NEW},{OLD}"))[0] == 0
    after = Idempotency(rotation.db, rotation.new, now)
    assert (await after.begin(caller, "k", b"body")).answer == b"the answer"


async def test_seals_and_tokens_of_its_time_keep_a_secret(rotation: Rotation) -> None:
    """The chain says when a key was the first one; sessions and devices that began then need it still."""
    tenant = await add_tenant(rotation.db, now())
    async with rotation.db.tenant(tenant.id) as connection:
        for table, columns in (
            ("sessions", "kind, subject_kind, subject_id, methods, authenticated_at, created_at, seen_at, expires_at"),
            ("devices", "subject_kind, subject_id, created_at, seen_at, expires_at"),
        ):
            values = {"kind": "'api'", "subject_kind": "'tenant'", "subject_id": "$1", "methods": "'{}'"}
            values["expires_at"] = "$2::timestamptz + interval '7 days'"
            given = ", ".join(values.get(column, "$2") for column in columns.split(", "))
            await connection.execute(
                f"INSERT INTO {table} (tenant_id, id, {columns}) VALUES ($1, gen_random_uuid(), {given})",
                tenant.id,
                now(),
            )
    async with rotation.db.tenant(tenant.id) as connection:
        await record(connection, now(), tenant.id, "tenant.changed", Actor("operator"), Client("cli"))
    await seal_once(rotation.db, rotation.old, now())
    _, keys, _ = await rotation.rotate(f"{NEW},{OLD}")
    assert keys[rotation.old.current.id] == (
        "verifies",
        {"audit seals": 1, "audit checkpoints": 1, "sessions": 1, "known devices": 1},
    )
