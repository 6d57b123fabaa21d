"""Tenants' branding in the store: read by the worker in batches, changed by admins, its logo served by us."""

from dataclasses import replace
from uuid import uuid4

import pytest

from app.audit.log import Actor, Client
from app.delivery.branding import PLAIN, Branding, Brandings, logo_address
from app.delivery.render import Renderer
from app.errors import EditConflict, InvalidRequest, TenantNotFound
from app.keys import KeyRing
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http
from tests.people import SomeTenant, add_tenant
from tests.unit.test_messages import CODE
from tests.unit.test_messages_branding import JPEG, png

OPERATOR, SHELL = Actor("operator"), Client("cli")


class Seconds:
    """A monotonic clock that only tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def brandings(db: Database, seconds: Seconds) -> Brandings:
    return Brandings(db, monotonic=seconds)


@pytest.fixture
async def tenant(db: Database, clock: Clock) -> SomeTenant:
    return await add_tenant(db, clock.now)


async def change(brandings: Brandings, tenant: SomeTenant, clock: Clock, **values: object) -> Branding:
    return await brandings.set(tenant.id, values, now=clock.now, actor=OPERATOR, client=SHELL)


async def test_a_change_is_stored_and_told(
    db: Database, brandings: Brandings, tenant: SomeTenant, clock: Clock
) -> None:
    """Field by field, one version a change; the audit log has what it was and is, addresses masked, no bytes."""
    assert await brandings.get(tenant.id) == PLAIN
    first = await change(brandings, tenant, clock, sender_name=" Acme ", reply_to="help@acme.example", colour="#ABC")
    assert (first.sender_name, first.colour, first.version) == ("Acme", "#aabbcc", 1)
    second = await change(brandings, tenant, clock, logo=png(), code_in_subject=False)
    assert second.logo
    assert (second.logo.media_type, second.logo.width, second.logo.height) == ("image/png", 120, 40)
    assert (second.sender_name, second.version) == ("Acme", 2)
    assert await brandings.get(tenant.id) == second

    async with db.every_tenant() as connection:
        rows = await connection.fetch(
            "SELECT data FROM audit_events WHERE tenant_id = $1 AND action = 'tenant.branded' ORDER BY id", tenant.id
        )
    assert [row["data"]["version"] for row in rows] == [1, 2]
    told = {c["field"]: (c["before"], c["after"]) for row in rows for c in row["data"]["changes"]}
    assert told["branding.reply_to"] == (None, "h***@acme.example")
    assert told["branding.code_in_subject"] == (True, False)
    assert told["branding.logo"][1].startswith("image/png, 120 x 40")


async def test_what_changes_nothing_is_no_change(
    db: Database, brandings: Brandings, tenant: SomeTenant, clock: Clock
) -> None:
    """Saved again as it is: the same version, the same logo address, no event."""
    before = await change(brandings, tenant, clock, sender_name="Acme", logo=png())
    assert await change(brandings, tenant, clock, sender_name="Acme", logo=png()) == before
    events = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'tenant.branded'"
    async with db.every_tenant() as connection:
        assert await connection.fetchval(events, tenant.id) == 1


async def test_two_admins_at_once(brandings: Brandings, tenant: SomeTenant, clock: Clock) -> None:
    """The second is told, and nothing of the first is lost."""
    await change(brandings, tenant, clock, colour="#123456")
    with pytest.raises(EditConflict) as conflict:
        await brandings.set(
            tenant.id, {"colour": "#654321"}, now=clock.now, expected_version=0, actor=OPERATOR, client=SHELL
        )
    assert conflict.value.current_version == 1
    assert (await brandings.get(tenant.id)).colour == "#123456"


async def test_refusals_change_nothing(brandings: Brandings, tenant: SomeTenant, clock: Clock) -> None:
    """Neither a fault in the input nor a tenant that isn't there leaves a trace."""
    with pytest.raises(InvalidRequest):
        await change(brandings, tenant, clock, sender_name="Acme", colour="red")
    assert await brandings.get(tenant.id) == PLAIN
    with pytest.raises(TenantNotFound):
        await brandings.set(uuid4(), {"sender_name": "Acme"}, now=clock.now, actor=OPERATOR, client=SHELL)


async def test_a_batch_is_one_look(
    db: Database, brandings: Brandings, seconds: Seconds, tenant: SomeTenant, clock: Clock
) -> None:
    """What was looked up serves for half a minute; a change elsewhere shows after that."""
    other = await add_tenant(db, clock.now)
    elsewhere = Brandings(db)
    await change(elsewhere, tenant, clock, sender_name="Acme")
    assert brandings.known(tenant.id) == PLAIN
    await brandings.prepare([tenant.id, other.id, uuid4(), tenant.id])
    assert brandings.known(tenant.id).sender_name == "Acme"
    assert brandings.known(other.id) == PLAIN

    await change(elsewhere, tenant, clock, sender_name="Zenith")
    seconds.now = 29
    await brandings.prepare([tenant.id])
    assert brandings.known(tenant.id).sender_name == "Acme"
    seconds.now = 30
    await brandings.prepare([tenant.id])
    assert brandings.known(tenant.id).sender_name == "Zenith"


async def test_a_message_wears_its_tenants_look(
    brandings: Brandings, tenant: SomeTenant, clock: Clock, ring: KeyRing
) -> None:
    """Looked up for a claimed batch, then used for each of its messages; a decoy's tenant is not even looked up."""
    decoyed = uuid4()
    await change(brandings, tenant, clock, sender_name="Acme Help", code_in_subject=False)
    renderer = Renderer("https://login.example", ring=ring, brandings=brandings)
    claimed = replace(CODE, tenant_id=tenant.id)
    await renderer.prepare([claimed, replace(CODE, tenant_id=decoyed, state="void")])
    message = renderer.render(claimed, "012345", clock.now)
    assert (message.sender_name, message.subject) == ("Acme Help", "Your Acme sign-in code")
    assert "https://login.example/not-me/" in message.text
    assert decoyed not in brandings._known


async def test_messages_do_not_wait_for_the_database(
    db: Database, tenant: SomeTenant, clock: Clock, seconds: Seconds
) -> None:
    """While it is away the last known look serves, and a plain one for whoever wasn't known."""
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    await away.open()
    brandings = Brandings(away, monotonic=seconds)
    brandings._known[tenant.id] = (Branding(sender_name="Acme"), 0.0)
    seconds.now = 60
    await brandings.prepare([tenant.id, uuid4()])
    assert brandings.known(tenant.id).sender_name == "Acme"
    assert brandings.known(uuid4()) == PLAIN
    await away.close()


async def test_memory_is_bounded(brandings: Brandings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet of millions doesn't grow the worker: whoever was looked up longest ago is forgotten."""
    monkeypatch.setattr("app.delivery.branding._MOST_KNOWN", 3)
    first, *later = [uuid4() for _ in range(4)]
    await brandings.prepare([first])
    await brandings.prepare(later)
    assert set(brandings._known) == set(later)


async def test_the_logo_is_served_as_what_it_is(
    http: Http, brandings: Brandings, tenant: SomeTenant, clock: Clock, ring: KeyRing
) -> None:
    """For ever under its own address, as an image and nothing else, to webmail on any site."""
    branding = await change(brandings, tenant, clock, logo=JPEG)
    assert branding.logo
    answer = await http.get(logo_address(ring, tenant.slug, branding.logo.version))
    assert (answer.status_code, answer.content) == (200, JPEG)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "immutable" in answer.headers["cache-control"]

    newer = await change(brandings, tenant, clock, logo=png())
    assert newer.logo
    assert newer.logo.version != branding.logo.version
    assert (await http.get(logo_address(ring, tenant.slug, branding.logo.version))).status_code == 404
    assert (await http.get(logo_address(ring, tenant.slug, newer.logo.version))).content == png()
    assert (await change(brandings, tenant, clock, logo=None)).logo is None
    assert (await http.get(logo_address(ring, tenant.slug, newer.logo.version))).status_code == 404


async def test_a_logo_tells_nobody_that_a_tenant_exists(
    http: Http,
    brandings: Brandings,
    db: Database,
    tenant: SomeTenant,
    clock: Clock,
    ring: KeyRing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without its whole address a tenant with a logo, one without, a suspended one and an unknown slug answer alike,
    before anything is looked up. Another tenant's proof, or one of another version, is none.
    """
    bare, closed = await add_tenant(db, clock.now), await add_tenant(db, clock.now, status="suspended")
    version = (await change(brandings, tenant, clock, logo=png())).logo
    assert version
    foreign = logo_address(ring, bare.slug, version.version).partition("?")[2]
    older = logo_address(ring, tenant.slug, "older").rpartition(".")[2]
    queries = ("", "?v=", "?v=guess", "?v=é", "?v=.", f"?v={version.version}", f"?v={version.version}.{older}")

    async def looked_up(*_: object) -> None:
        pytest.fail("a stranger's question reached the database")

    monkeypatch.setattr(http.app.state.services.db, "row", looked_up)
    answers = []
    for slug in (tenant.slug, bare.slug, closed.slug, "nobody-has-this", "Not a slug", "_system"):
        for query in (*queries, *([f"?{foreign}"] if slug != bare.slug else [])):
            answer = await http.get(f"/t/{slug}/logo{query}", headers={"X-Request-Id": "x"})
            body = {name: value for name, value in answer.json().items() if name != "request_id"}
            headers = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date"}}
            answers.append((answer.status_code, body, headers))
    assert answers == [answers[0]] * len(answers)
    assert answers[0][0] == 404
