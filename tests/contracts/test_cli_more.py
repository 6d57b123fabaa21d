"""Many tenants at once, letting people in, and changing the secret: the rest of the `gatehouse` command."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from app.auth.links import Links
from app.auth.rotation import key_uses, reencrypt
from app.auth.sessions import Sessions
from app.audit.log import Client
from app.errors import CodeExpired
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from tests.conftest import Clock
from tests.contracts.test_cli import Shell, environment, gatehouse, refused, slug
from tests.people import add_tenant, count

__all__ = ["environment", "gatehouse", "slug"]

OLD, NEW = "o" * 43, "n" * 43


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


async def test_a_link_lets_an_admin_in_once(
    gatehouse: Shell, slug: str, db: Database, settings: Settings
) -> None:
    """Break-glass: printed once, audited, used once; for nobody else than an active admin."""
    email = f"{slug}@company.example"
    added = gatehouse.json("admin", "add", email)
    secret = {"SECRET_KEY": OLD}
    made = gatehouse("admin", "login-link", email.upper(), **secret)
    assert made.returncode == 0, made.stderr
    address, _, token = made.stdout.strip().rpartition("/")
    assert address == "http://localhost:8000/admin/link"
    events = "SELECT count(*) FROM audit_events WHERE action = 'sign_in_link.created' AND actor_kind = 'operator' AND subject_id = $1"
    assert await count(db, events, added["id"]) == 1

    from datetime import UTC, datetime

    def now() -> datetime:
        return datetime.now(UTC)

    links = Links(db, Sessions(db, KeyRing([OLD.encode()]), settings, now), now)
    entered = await links.use(token, Client("page"))
    assert (entered.tenant_id, entered.subject.kind, str(entered.subject.id)) == (SYSTEM_TENANT, "admin", added["id"])
    with pytest.raises(CodeExpired):
        await links.use(token, Client("page"))
    assert "No active admin" in refused(gatehouse("admin", "login-link", "nobody@company.example"), 2)
