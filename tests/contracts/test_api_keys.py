"""API keys and admins, on the real database."""

from uuid import UUID, uuid4

import pytest

from app.audit.log import Actor, Client
from app.auth.admins import Admins
from app.auth.api_keys import ApiKeys
from app.errors import AlreadyExists, InvalidRequest, NotFound
from app.storage.db import Database
from tests.conftest import Clock

BY_HAND = Actor("operator")
SHELL = Client("cli")


@pytest.fixture
def keys(db: Database, clock: Clock) -> ApiKeys:
    return ApiKeys(db, clock)


@pytest.fixture
def admins(db: Database, clock: Clock) -> Admins:
    return Admins(db, clock)


async def test_a_key_opens_with_its_whole_text_only(keys: ApiKeys) -> None:
    """The text names its key; with anything changed, cut or added it names none."""
    key, text = await keys.create("front end", "viewer", actor=BY_HAND, client=SHELL)
    assert await keys.authenticate(text) == key
    other, other_text = await keys.create("other", "owner", actor=BY_HAND, client=SHELL)
    swapped = text.replace(key.id.hex, other.id.hex)
    last = "A" if text[-1] != "A" else "B"
    for forged in (
        "", "ghk_", f"ghk_{key.id.hex}", f"ghk_{key.id.hex}_", text[:-1], text[:-1] + last, text + "A", f" {text}",
        text.upper(), swapped, f"ghk_{uuid4().hex}_{text.rpartition('_')[2]}", "é" * 80, f"ghk_{key.id}_x",
        "ghk_" + "x" * 100_000, f"ghk_{key.id.hex}_\0",
    ):  # fmt: skip
        assert await keys.authenticate(forged) is None, forged[:80]
    found = await keys.authenticate(other_text)
    assert found is not None
    assert found.role == "owner"


async def test_only_a_hash_of_the_secret_is_stored(keys: ApiKeys, db: Database) -> None:
    """Nothing in the row or the audit log gives the key away, and its repr doesn't either."""
    key, text = await keys.create("secretive", "viewer", actor=BY_HAND, client=SHELL)
    async with db.every_tenant() as connection:
        stored = await connection.fetchrow("SELECT * FROM api_keys WHERE id = $1", key.id)
        event = await connection.fetchrow("SELECT * FROM audit_events WHERE subject_id = $1", key.id)
    secret = text.removeprefix(f"ghk_{key.id.hex}_")
    assert len(secret) == 43  # 256 bits in base64url
    assert secret not in str(stored) + str(event) + repr(key)
    assert len(stored["secret_hash"]) == 32
    assert (event["action"], event["data"]) == (
        "api-key.created",
        {"name": "secretive", "role": "viewer", "scopes": ["sign-in", "introspect", "admin"]},
    )


async def test_a_revoked_key_is_refused_at_once(keys: ApiKeys, db: Database) -> None:
    """From the next call on; a second revocation and one of nobody's key are told apart from success."""
    key, text = await keys.create("short-lived", "viewer", actor=BY_HAND, client=SHELL)
    await keys.revoke(key.id, actor=BY_HAND, client=SHELL)
    assert await keys.authenticate(text) is None
    for gone in (key.id, UUID(int=5)):
        with pytest.raises(NotFound):
            await keys.revoke(gone, actor=BY_HAND, client=SHELL)
    assert next(listed for listed in await keys.list() if listed.id == key.id).revoked_at is not None
    async with db.every_tenant() as connection:
        actions = await connection.fetch("SELECT action FROM audit_events WHERE subject_id = $1 ORDER BY id", key.id)
    assert [row["action"] for row in actions] == ["api-key.created", "api-key.revoked"]


async def test_use_is_written_down_once_a_minute(keys: ApiKeys, clock: Clock) -> None:
    """`last_used_at` follows within a minute, and many calls cost no write each."""

    async def last_used() -> object:
        return next(listed for listed in await keys.list() if listed.id == key.id).last_used_at

    key, text = await keys.create("busy", "viewer", actor=BY_HAND, client=SHELL)
    assert await last_used() is None
    await keys.authenticate(text)
    first = clock.now
    assert await last_used() == first
    clock.forward(seconds=59)
    await keys.authenticate(text)
    assert await last_used() == first
    clock.forward(seconds=1)
    await keys.authenticate(text)
    assert await last_used() == clock.now


@pytest.mark.parametrize(
    ("name", "role"), [("", "viewer"), ("a\r\nb", "viewer"), ("x" * 121, "viewer"), ("ok", "king")]
)
async def test_a_key_needs_a_name_and_a_role(keys: ApiKeys, name: str, role: str) -> None:
    """Anything else is bad input."""
    with pytest.raises(InvalidRequest):
        await keys.create(name, role, actor=BY_HAND, client=SHELL)


async def test_an_admin_is_one_address_however_it_is_written(admins: Admins, db: Database) -> None:
    """Found in any case, added once, the audit event masked."""
    address = f"ada-{uuid4().hex[:8]}@company.example"
    added = await admins.add(address.upper(), "manager", "Ada", actor=BY_HAND, client=SHELL)
    assert (added.email, added.role, added.name) == (address, "manager", "Ada")
    assert await admins.find(address.title()) == added
    assert added in await admins.list()
    assert await admins.find("nobody@company.example") is None
    with pytest.raises(AlreadyExists):
        await admins.add(address, "viewer", actor=BY_HAND, client=SHELL)
    async with db.every_tenant() as connection:
        data = await connection.fetchval("SELECT data FROM audit_events WHERE subject_id = $1", added.id)
    assert data == {"email": "a***@company.example", "role": "manager"}


@pytest.mark.parametrize(
    ("email", "role", "name"),
    [("no address", "viewer", None), ("a@x.example, b@x.example", "viewer", None), ("a@x.example", "king", None),
     ("a@x.example", "viewer", "A\nB")],
)  # fmt: skip
async def test_an_admin_needs_an_address_and_a_role(admins: Admins, email: str, role: str, name: str | None) -> None:
    """Anything else is bad input and adds nobody."""
    before = await admins.list()
    with pytest.raises(InvalidRequest):
        await admins.add(email, role, name, actor=BY_HAND, client=SHELL)
    assert await admins.list() == before
