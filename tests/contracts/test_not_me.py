"""The link "it wasn't me" in a mail: what it does, what it doesn't, and what it tells."""

from datetime import timedelta
from uuid import uuid4

import pytest

from app.audit.log import Client
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.codes import read_challenge_id
from app.delivery.disowning import PATH, read_token, token_for
from app.errors import CodeExpired
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import serve
from tests.pages import Visitor, visitor
from tests.people import SomeTenant, add_tenant, challenge_row, count, current_code, whole

PHONE = Client("api", "203.0.113.7", "curl/8")
EVENTS = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'code.disowned'"


@pytest.fixture
async def tenant(db: Database, clock: Clock) -> SomeTenant:
    return await add_tenant(db, clock.now)


async def asked(challenges: Challenges, tenant: SomeTenant) -> str:
    """Somebody asks for a code."""
    return (await challenges.request(Realm.of(tenant.slug), PHONE)).challenge_id


def link(ring: KeyRing, tenant: SomeTenant, challenge_id: str) -> str:
    """The path that stands in the mail."""
    return f"{PATH}/{token_for(ring, tenant.id, read_challenge_id(challenge_id))}"


async def press(person: Visitor, path: str) -> None:
    """Follows the link and presses the button."""
    await person.open(path)
    await person.submit(path)


async def test_the_button_makes_the_code_useless(
    db: Database, ring: KeyRing, challenges: Challenges, tenant: SomeTenant, person: Visitor
) -> None:
    """The recipient presses it: the right code no longer signs in, and the admins see who pressed it, once."""
    challenge_id = await asked(challenges, tenant)
    code = await current_code(db, ring, challenge_id)
    path = link(ring, tenant, challenge_id)

    await person.open(path)
    assert "Make this code useless" in person.text
    assert (await challenge_row(db, challenge_id))["ended_at"] is None, "looking changes nothing"
    await person.submit(path)
    assert "work any more" in person.text
    await press(person, path)
    assert "no longer valid" in person.text

    with pytest.raises(CodeExpired):
        await challenges.verify(Realm.of(tenant.slug), challenge_id, code, PHONE)
    row = await challenge_row(db, challenge_id)
    assert (row["end_reason"], row["salt"], row["digest"]) == ("void", None, None)
    async with db.every_tenant() as connection:
        events = await connection.fetch(
            "SELECT * FROM audit_events WHERE tenant_id = $1 AND action = 'code.disowned'", tenant.id
        )
    assert len(events) == 1
    event = events[0]
    assert (event["challenge_id"], event["source"], bool(event["ip"])) == (row["id"], "page", True)
    assert event["data"] == {"stood": "open", "channel": "email"}


async def test_it_ends_nothing_else(
    db: Database, ring: KeyRing, challenges: Challenges, tenant: SomeTenant, person: Visitor, clock: Clock
) -> None:
    """Another open code of the same person still works, and sessions go on."""
    first, second = await asked(challenges, tenant), await asked(challenges, tenant)
    await press(person, link(ring, tenant, first))
    code = await current_code(db, ring, second)
    signed_in = whole(await challenges.verify(Realm.of(tenant.slug), second, code, PHONE))

    await press(person, link(ring, tenant, second))
    assert "somebody signed in with it" in person.text
    assert signed_in.subject.id == tenant.id
    assert await count(db, "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL", tenant.id) == 1
    assert await count(db, EVENTS, tenant.id) == 2


async def test_a_resent_code_is_covered_by_the_first_mail(
    db: Database, ring: KeyRing, challenges: Challenges, tenant: SomeTenant, person: Visitor, clock: Clock
) -> None:
    """The link is about the sign-in, whichever of its codes the mail had."""
    challenge_id = await asked(challenges, tenant)
    clock.forward(minutes=2)
    await challenges.resend(Realm.of(tenant.slug), challenge_id, PHONE)
    await press(person, link(ring, tenant, challenge_id))
    assert (await challenge_row(db, challenge_id))["end_reason"] == "void"


async def test_late_and_later(
    db: Database, ring: KeyRing, challenges: Challenges, tenant: SomeTenant, person: Visitor, clock: Clock
) -> None:
    """After its time the page says that the code was over; when nothing is known of it any more, that too."""
    challenge_id = await asked(challenges, tenant)
    clock.forward(minutes=11)
    path = link(ring, tenant, challenge_id)
    await press(person, path)
    assert "no longer valid, and nobody signed in" in person.text
    assert await count(db, EVENTS, tenant.id) == 1

    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM challenges WHERE id = $1", read_challenge_id(challenge_id))
    await press(person, path)
    assert "useless for a while" in person.text
    assert await count(db, EVENTS, tenant.id) == 1


async def test_only_links_of_ours_open(ring: KeyRing, tenant: SomeTenant, person: Visitor) -> None:
    """Forged, cut or foreign tokens are refused alike, to look at and to press."""
    good = token_for(ring, tenant.id, uuid4())
    foreign = token_for(KeyRing([b"another secret of thirty-two bytes"]), tenant.id, uuid4())
    forged = good[:20] + ("A" if good[20] != "A" else "B") + good[21:]
    await person.open("/login")
    for token in (forged, good[:-4], foreign, "x", "=", "é", "A" * 64, good + good):
        assert (await person.open(f"{PATH}/{token}")).status_code == 410, token
    await person.open(f"{PATH}/{good}")
    assert (await person.send(f"{PATH}/{forged}")).status_code == 410


async def test_the_button_is_a_form_of_ours(ring: KeyRing, tenant: SomeTenant, person: Visitor) -> None:
    """Another site can't press it for person."""
    path = f"{PATH}/{token_for(ring, tenant.id, uuid4())}"
    await person.open(path)
    refused = await person.send(path, headers={"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"})
    assert refused.status_code == 403
    assert (await person.send(path, {"csrf_token": "wrong"})).status_code == 403


async def test_concealed_installations_work_the_same(
    settings: Settings, clock: Clock, ring: KeyRing, challenges: Challenges, tenant: SomeTenant, db: Database
) -> None:
    """Who has the mail may know; whoever asked is told what an expired code tells."""
    challenge_id = await asked(challenges, tenant)
    path = link(ring, tenant, challenge_id)
    async with serve(settings, clock, otp_disclose_errors=False) as http, visitor(http) as person:
        await press(person, path)
        assert "work any more" in person.text
        answer = await http.otp(tenant.slug, "status", {"challenge_id": challenge_id})
        assert answer.json()["state"] == "expired"
        answer = await http.otp(tenant.slug, "verify", {"challenge_id": challenge_id, "code": "123456"})
        assert (answer.status_code, answer.json()["code"]) == (410, "code-expired")


def test_the_address_tells_nothing_and_stays_the_same(ring: KeyRing) -> None:
    """No id stands in it; every copy of a mail has the same; a secret that only verifies still opens it."""
    tenant_id, challenge_id = uuid4(), uuid4()
    token = token_for(ring, tenant_id, challenge_id)
    assert token == token_for(ring, tenant_id, challenge_id)
    assert len(token) == 64
    assert read_token(ring, token) == (tenant_id, challenge_id)
    other = token_for(ring, tenant_id, uuid4())
    assert not any(token[at : at + 8] in other for at in range(len(token) - 8)), "not even the tenant shows"
    old, new = b"old secret of at least 32 bytes...", b"new secret of at least 32 bytes..."
    written = token_for(KeyRing([old]), tenant_id, challenge_id)
    assert read_token(KeyRing([new, old]), written) == (tenant_id, challenge_id)
    assert read_token(KeyRing([new]), written) is None


async def test_a_link_outlives_no_code(clock: Clock, db: Database, ring: KeyRing, challenges: Challenges) -> None:
    """An event is never older than what it is about, whatever the clocks say."""
    tenant = await add_tenant(db, clock.now)
    challenge_id = await asked(challenges, tenant)
    before = clock.now - timedelta(minutes=1)
    row = await db.row(
        "SELECT fn.disown_challenge($1, $2, $3, $4) AS stood",
        before,
        tenant.id,
        read_challenge_id(challenge_id),
        PHONE.as_json(),
    )
    assert row
    assert row["stood"] == "open"
    late = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'code.disowned' AND at < $2"
    assert await count(db, late, tenant.id, clock.now) == 0
