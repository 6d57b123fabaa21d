"""API keys and admins, on the real database."""

import asyncio
from uuid import UUID, uuid4

import pytest

from app.audit.log import Actor, Client
from app.auth.admins import Admin, Admins
from app.auth.api_keys import ApiKey, ApiKeys
from app.errors import AlreadyExists, Forbidden, InvalidRequest, NotFound
from app.storage.db import Database
from tests.adminapi import admin_api
from tests.admins import add_admin
from tests.conftest import Clock
from tests.http import Http
from tests.people import count

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


async def made(keys: ApiKeys, actor: Actor, role: str = "owner") -> tuple[ApiKey, str]:
    """A key that this one made."""
    return await keys.create(f"a key of {role}", role, actor=actor, client=SHELL)


async def told(db: Database, key: ApiKey) -> list[tuple[str, object]]:
    """What the log says of a key since it was made, and why."""
    async with db.every_tenant() as connection:
        rows = await connection.fetch(
            "SELECT action, data FROM audit_events WHERE subject_id = $1 AND action <> 'api-key.created' ORDER BY id",
            key.id,
        )
    return [(row["action"], {k: v for k, v in row["data"].items() if k != "name"}) for row in rows]


async def test_keys_end_with_whoever_made_them(keys: ApiKeys, admins: Admins, db: Database, clock: Clock) -> None:
    """Those of the admin, and those that were made with them, at the next call in every process; others go on."""
    await add_admin(db, clock)
    admin, other = await add_admin(db, clock), await add_admin(db, clock)
    own, own_text = await made(keys, Actor("admin", admin.id))
    child, child_text = await made(keys, Actor("api-key", own.id), "viewer")
    grandchild, grandchild_text = await made(keys, Actor("api-key", child.id), "viewer")
    _, theirs = await made(keys, Actor("admin", other.id))
    _, nobodys = await made(keys, BY_HAND)
    texts = [own_text, child_text, grandchild_text]
    elsewhere = ApiKeys(db, clock)
    for text in [*texts, theirs, nobodys]:
        assert await elsewhere.authenticate(text) is not None
    await admins.change(admin.id, status="suspended", actor=BY_HAND, client=SHELL)
    assert [await elsewhere.authenticate(text) for text in texts] == [None] * 3
    assert [await elsewhere.authenticate(text) is not None for text in (theirs, nobodys)] == [True, True]
    for key in (own, child, grandchild):
        assert await told(db, key) == [("api-key.revoked", {"reason": "admin-suspended"})]
    await admins.change(admin.id, status="active", actor=BY_HAND, client=SHELL)
    assert [await elsewhere.authenticate(text) for text in texts] == [None] * 3


async def test_an_owner_takes_keys_over(keys: ApiKeys, admins: Admins, db: Database, clock: Clock) -> None:
    """They go on, and end with the one who has them by then. Nobody but another owner takes them."""
    leaving, heir = await add_admin(db, clock), await add_admin(db, clock)
    manager = await add_admin(db, clock, "manager")
    key, text = await made(keys, Actor("admin", leaving.id))
    for nobody in (manager.id, leaving.id, uuid4()):
        with pytest.raises(InvalidRequest, match="another owner"):
            await admins.change(leaving.id, status="suspended", keys_to=nobody, actor=BY_HAND, client=SHELL)
    with pytest.raises(InvalidRequest, match="when their owner is suspended"):
        await admins.change(leaving.id, role="viewer", keys_to=heir.id, actor=BY_HAND, client=SHELL)
    assert (await admins.get(leaving.id)).status == "active"
    await admins.change(leaving.id, status="suspended", keys_to=heir.id, actor=BY_HAND, client=SHELL)
    found = await keys.authenticate(text)
    assert found is not None
    assert next(listed.admin_id for listed in await keys.list() if listed.id == key.id) == heir.id
    assert await told(db, key) == [("api-key.handed-over", {"from": str(leaving.id), "to": str(heir.id)})]
    await add_admin(db, clock)
    await admins.change(heir.id, status="suspended", actor=BY_HAND, client=SHELL)
    assert await keys.authenticate(text) is None


@pytest.mark.parametrize(
    ("role", "left"), [("manager", ["manager", "manager", "viewer"]), ("viewer", ["viewer", "viewer", "viewer"])]
)
async def test_a_lower_role_lowers_the_keys(
    keys: ApiKeys, admins: Admins, db: Database, clock: Clock, role: str, left: list[str]
) -> None:
    """No key may more than its owner; a higher role later raises none."""
    await add_admin(db, clock)
    admin = await add_admin(db, clock)
    texts = [(await made(keys, Actor("admin", admin.id), of))[1] for of in ("owner", "manager", "viewer")]

    async def roles() -> list[str]:
        found = [await keys.authenticate(text) for text in texts]
        return [key.role for key in found if key]

    for change in (role, "owner"):
        await admins.change(admin.id, role=change, actor=BY_HAND, client=SHELL)
        assert await roles() == left


async def test_nobody_makes_a_key_who_is_being_shut_out(
    keys: ApiKeys, admins: Admins, db: Database, clock: Clock
) -> None:
    """At the very moment: either the key isn't made, or it ends with the rest."""
    await add_admin(db, clock)
    for _ in range(8):
        admin = await add_admin(db, clock)
        own, _ = await made(keys, Actor("admin", admin.id))
        actors = [Actor("admin", admin.id), Actor("api-key", own.id), Actor("admin", admin.id)]
        outcomes = await asyncio.gather(
            *(made(keys, actor) for actor in actors[:2]),
            admins.change(admin.id, status="suspended", actor=BY_HAND, client=SHELL),
            made(keys, actors[2]),
            return_exceptions=True,
        )
        assert all(isinstance(o, Forbidden | tuple | Admin) for o in outcomes), outcomes
        alive = "SELECT count(*) FROM api_keys WHERE admin_id = $1 AND revoked_at IS NULL"
        assert await count(db, alive, admin.id) == 0
        with pytest.raises(Forbidden):
            await made(keys, actors[0], "viewer")
        with pytest.raises(Forbidden):
            await made(keys, actors[1], "viewer")


async def test_nobody_makes_a_key_that_may_more(keys: ApiKeys, db: Database, clock: Clock) -> None:
    """Whatever the faces let through."""
    manager = await add_admin(db, clock, "manager")
    small, _ = await made(keys, BY_HAND, "manager")
    for actor in (Actor("admin", manager.id), Actor("api-key", small.id)):
        with pytest.raises(Forbidden):
            await made(keys, actor, "owner")
        await made(keys, actor, "manager")


async def test_the_admin_api_names_an_heir(http: Http, keys: ApiKeys, db: Database, clock: Clock) -> None:
    """By PATCH and by DELETE; the list says whose a key is."""
    owner = await admin_api(http, db, clock)
    heir = await add_admin(db, clock)

    async def leaver() -> tuple[Admin, str]:
        admin = await add_admin(db, clock)
        return admin, (await made(keys, Actor("admin", admin.id)))[1]

    by_patch, patched = await leaver()
    body = {"status": "suspended", "keys_to": str(heir.id)}
    assert (await owner("PATCH", f"/admins/{by_patch.id}", json=body)).status_code == 200
    by_delete, deleted = await leaver()
    assert (await owner("DELETE", f"/admins/{by_delete.id}", params={"keys_to": str(heir.id)})).status_code == 204
    dropped_admin, dropped = await leaver()
    assert (await owner("DELETE", f"/admins/{dropped_admin.id}")).status_code == 204
    assert [await keys.authenticate(text) is not None for text in (patched, deleted, dropped)] == [True, True, False]
    listed = (await owner("GET", "/api-keys")).json()["api_keys"]
    assert [key["admin_id"] for key in listed].count(str(heir.id)) == 2
    refused = await owner("DELETE", f"/admins/{heir.id}", params={"keys_to": str(uuid4())})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/keys_to")
