"""What the tenants service promises, on the real database."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.audit.log import Actor, Client, record
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.auth.signing_in import SignIn
from app.errors import (
    AlreadyExists,
    ChannelUnavailable,
    CodeExpired,
    ContactMissing,
    EditConflict,
    InvalidRequest,
    InvalidToken,
    TenantNotFound,
    Unavailable,
)
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database, Row
from app.tenants.model import Tenant
from app.tenants.search import Filters
from app.tenants.service import Tenants
from tests.conftest import Clock
from tests.people import count, current_code, whole

BY_HAND = Actor("operator")
SHELL = Client("cli")

_SESSION = """
INSERT INTO sessions (tenant_id, id, kind, subject_kind, subject_id, methods, authenticated_at, created_at, seen_at,
                      expires_at)
VALUES ($1, $2, 'api', 'tenant', $1, '{otp:email}', $3, $3, $3, $4)
"""


@pytest.fixture
def woken() -> list[str]:
    """Gets an entry each time the worker is woken."""
    return []


@pytest.fixture
def tenants(db: Database, settings: Settings, clock: Clock, woken: list[str]) -> Tenants:
    both = replace(settings, sms_enabled=True)
    return Tenants(db, both, clock, lambda: woken.append("woken"))


@pytest.fixture
def unique() -> str:
    """A word that no other tenant in this run has."""
    return f"u{uuid4().hex[:10]}"


_CALLED_BAD = """
INSERT INTO contact_health (tenant_id, subject_id, channel, since, error_class)
SELECT id, coalesce($2, id), 'email', now(), 'recipient' FROM tenants WHERE slug = $1
"""


async def add(tenants: Tenants, slug: str, **fields: object) -> Tenant:
    values = {"slug": slug, "name": "Acme", "email": f"owner@{slug}.example", **fields}
    return await tenants.create(values, actor=BY_HAND, client=SHELL)


async def change(tenants: Tenants, slug: str, expected_version: int | None = None, /, **changes: object) -> Tenant:
    return await tenants.update(slug, changes, expected_version=expected_version, actor=BY_HAND, client=SHELL)


async def sign_in(challenges: Challenges, db: Database, ring: KeyRing, slug: str) -> SignIn:
    issued = await challenges.request(Realm.of(slug), Client("api"))
    code = await current_code(db, ring, issued.challenge_id)
    return whole(await challenges.verify(Realm.of(slug), issued.challenge_id, code, Client("api")))


async def rows(db: Database, sql: str, *args: Any) -> Sequence[Row]:
    async with db.every_tenant() as connection:
        found: Sequence[Row] = await connection.fetch(sql, *args)
        return found


async def everything_about(db: Database, tenant: Tenant) -> list[Sequence[Row]]:
    """All that a change of this tenant could have written."""
    return [
        await rows(db, "SELECT * FROM tenants WHERE id = $1", tenant.id),
        await rows(db, "SELECT * FROM audit_events WHERE tenant_id = $1 ORDER BY at, id", tenant.id),
        await rows(db, "SELECT * FROM outbox WHERE tenant_id = $1 ORDER BY id", tenant.id),
        await rows(db, "SELECT * FROM challenges WHERE tenant_id = $1 ORDER BY id", tenant.id),
    ]


async def test_a_new_tenant_is_normalised_and_found_again(tenants: Tenants, clock: Clock, unique: str) -> None:
    """What is stored is the normal form, with the defaults of the contract, and JSON has exactly its members."""
    made = await add(
        tenants, unique, email=f"Owner@{unique}.Example", phone_number="+44 7700 900123", policy={"max_attempts": 3}
    )
    assert await tenants.get(unique) == made
    assert made.as_json() == {
        "slug": unique,
        "name": "Acme",
        "status": "active",
        "email": f"owner@{unique}.example",
        "phone_number": "+447700900123",
        "otp_delivery_method": "email",
        "fallback_methods": (),
        "locale": "en",
        "timezone": "UTC",
        "policy": {"max_attempts": 3},
        "version": 1,
        "created_at": clock.now,
        "updated_at": clock.now,
    }


async def test_a_slug_is_taken_once(tenants: Tenants, unique: str) -> None:
    """A second tenant under the same slug is refused, and the first stays as it was."""
    first = await add(tenants, unique)
    with pytest.raises(AlreadyExists, match=unique):
        await add(tenants, unique, name="Other")
    assert await tenants.get(unique) == first


@pytest.mark.parametrize("slug", ["_system", "Acme", "a b", "../etc", "x" * 20_000, "", "acme\r\nX: y"])
async def test_no_call_reaches_past_the_slug_pattern(tenants: Tenants, slug: str) -> None:
    """The reserved system tenant and everything that is no slug are refused by every call that takes one."""
    with pytest.raises(InvalidRequest):
        await tenants.get(slug)
    with pytest.raises(InvalidRequest):
        await change(tenants, slug, name="Mine")
    with pytest.raises(InvalidRequest):
        await tenants.suspend(slug, "why", actor=BY_HAND, client=SHELL)
    with pytest.raises(InvalidRequest):
        await tenants.history(slug, sees_contacts=True)
    with pytest.raises(InvalidRequest):
        await tenants.send_test(slug, actor=BY_HAND, client=SHELL)
    with pytest.raises(InvalidRequest):
        await add(tenants, slug)


async def test_an_unknown_tenant_is_told_by_its_slug(tenants: Tenants, unique: str) -> None:
    """Each call on a slug nobody has says which one."""
    with pytest.raises(TenantNotFound, match=unique):
        await tenants.get(unique)
    with pytest.raises(TenantNotFound, match=unique):
        await change(tenants, unique, name="Mine")
    with pytest.raises(TenantNotFound, match=unique):
        await tenants.resume(unique, actor=BY_HAND, client=SHELL)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"email": "a@x.example, b@y.example"}, "/email"),
        ({"name": "Acme\r\nBcc: eve@example.com"}, "/name"),
        ({"phone_number": 7700900123}, "/phone_number"),
        ({"slug": "another"}, "/slug"),
        ({"surprise": 1}, "/surprise"),
        ({"policy": {"max_attempts": "3"}}, "/policy/max_attempts"),
        ({"version": 7}, "/version"),
        ({"status": "deleted"}, "/status"),
    ],
)
async def test_bad_input_points_at_its_field_and_stores_nothing(
    tenants: Tenants, db: Database, unique: str, changes: dict[str, object], pointer: str
) -> None:
    """A malformed change is refused at its field; tenant, audit log and outbox stay as they were."""
    tenant = await add(tenants, unique)
    before = await everything_about(db, tenant)
    with pytest.raises(InvalidRequest) as refused:
        await change(tenants, unique, **{"locale": "de", **changes})
    assert [fault.pointer for fault in refused.value.errors] == [pointer]
    assert await everything_about(db, tenant) == before


async def test_a_change_that_changes_nothing_is_none(tenants: Tenants, db: Database, clock: Clock, unique: str) -> None:
    """Saving a form untouched leaves version, time and history alone."""
    tenant = await add(tenants, unique, policy={"max_attempts": 3})
    before = await everything_about(db, tenant)
    clock.forward(minutes=5)
    again = await change(
        tenants, unique, name=" Acme ", email=tenant.email.upper() if tenant.email else None, policy={}, slug=unique
    )
    assert again == tenant
    assert await everything_about(db, tenant) == before


async def test_who_read_an_old_version_is_told_the_current_one(tenants: Tenants, unique: str) -> None:
    """The second of two editors gets a conflict with the version to read, and the first one's change stands."""
    await add(tenants, unique)
    saved = await change(tenants, unique, 1, name="First")
    with pytest.raises(EditConflict) as conflict:
        await change(tenants, unique, 1, name="Second")
    assert conflict.value.current_version == saved.version == 2
    assert (await tenants.get(unique)).name == "First"


async def test_policies_merge_and_none_clears_one(tenants: Tenants, unique: str) -> None:
    """A policy that isn't named stays; None takes one out (RFC 7396)."""
    await add(tenants, unique, policy={"max_attempts": 3, "hourly_limit": 2})
    changed = await change(tenants, unique, policy={"hourly_limit": None, "code_length": 8})
    assert changed.policy == {"max_attempts": 3, "code_length": 8}


async def test_the_preferred_method_needs_its_contact_and_a_provider(tenants: Tenants, unique: str) -> None:
    """Neither on creation nor by any change does a tenant end up with a method that can't reach it."""
    with pytest.raises(ContactMissing):
        await add(tenants, unique, email=None, otp_delivery_method="email")
    await add(tenants, unique)
    with pytest.raises(ContactMissing):
        await change(tenants, unique, otp_delivery_method="sms")
    with pytest.raises(ChannelUnavailable):
        await change(tenants, unique, phone_number="+447700900123", otp_delivery_method="whatsapp")
    with pytest.raises(ContactMissing):
        await change(tenants, unique, email=None, phone_number="+447700900123")
    assert (await tenants.get(unique)).version == 1


async def test_a_tenant_may_be_without_any_contact(tenants: Tenants, unique: str) -> None:
    """No contact at all is a state that lists point out, not an error: somebody will add one."""
    tenant = await add(tenants, unique, email=None)
    assert tenant.contact_missing
    page = await tenants.list(Filters(contacts=True, search=unique, contact_missing=True))
    assert [found.slug for found in page.tenants] == [unique]
    with pytest.raises(ContactMissing):
        await tenants.send_test(unique, actor=BY_HAND, client=SHELL)
    mended = await change(tenants, unique, email=f"new@{unique}.example")
    assert not mended.contact_missing


async def test_a_new_email_shuts_out_whoever_held_the_old_one(
    tenants: Tenants, challenges: Challenges, sessions: Sessions, db: Database, ring: KeyRing, clock: Clock, unique: str
) -> None:
    """Open codes are void and erased, sessions end, and the right code of before is of no use."""
    tenant = await add(tenants, unique)
    bystander = await add(tenants, f"{unique}-by")
    signed_in = await sign_in(challenges, db, ring, unique)
    other = await sign_in(challenges, db, ring, bystander.slug)
    issued = await challenges.request(Realm.of(unique), Client("api"))
    code = await current_code(db, ring, issued.challenge_id)
    clock.forward(seconds=5)  # past what a process may remember of a session

    await change(tenants, unique, email=f"new@{unique}.example")

    with pytest.raises(CodeExpired):
        await challenges.verify(Realm.of(unique), issued.challenge_id, code, Client("api"))
    assert signed_in.access_token
    with pytest.raises(InvalidToken):
        await sessions.authenticate(signed_in.access_token)
    assert other.access_token
    assert (await sessions.authenticate(other.access_token)).tenant_slug == bystander.slug
    left = await rows(db, "SELECT salt, digest FROM challenges WHERE tenant_id = $1", tenant.id)
    assert left
    assert all(row["salt"] is None and row["digest"] is None for row in left)
    told = "SELECT data FROM audit_events WHERE tenant_id = $1 AND action = 'tenant.changed'"
    event = (await rows(db, told, tenant.id))[0]["data"]
    assert (event["codes_voided"], event["sessions_ended"]) == (1, 1)


async def test_a_code_asked_for_during_the_change_goes_nowhere_old(
    tenants: Tenants,
    challenges: Challenges,
    db: Database,
    ring: KeyRing,
    monkeypatch: pytest.MonkeyPatch,
    unique: str,
) -> None:
    """A request that reads the old contact and commits before the change does: its code, perhaps sent, is void."""
    await add(tenants, unique)
    asked: list[tuple[str, str]] = []

    async def ask_meanwhile(*args: Any, **kwargs: Any) -> None:
        issued = await challenges.request(Realm.of(unique), Client("api"))
        asked.append((issued.challenge_id, await current_code(db, ring, issued.challenge_id)))
        await record(*args, **kwargs)

    monkeypatch.setattr("app.tenants.changes.record", ask_meanwhile)
    await change(tenants, unique, email=f"new@{unique}.example")
    [(challenge_id, code)] = asked
    with pytest.raises(CodeExpired):
        await challenges.verify(Realm.of(unique), challenge_id, code, Client("api"))


async def test_a_sign_in_that_is_just_being_completed_is_ended_too(
    tenants: Tenants, challenges: Challenges, db: Database, clock: Clock, unique: str
) -> None:
    """Its transaction holds the challenge; the change waits for it and then ends the session it made."""
    tenant = await add(tenants, unique)
    await challenges.request(Realm.of(unique), Client("api"))
    async with db.tenant(tenant.id) as signing_in:
        await signing_in.execute(
            "UPDATE challenges SET ended_at = $2, end_reason = 'used', salt = NULL, digest = NULL WHERE tenant_id = $1",
            tenant.id,
            clock.now,
        )
        await signing_in.execute(_SESSION, tenant.id, uuid4(), clock.now, clock.now + timedelta(days=7))
        changing = asyncio.create_task(change(tenants, unique, email=f"new@{unique}.example"))
        pid = await signing_in.fetchval("SELECT pg_backend_pid()")
        while not await count(db, "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", pid):
            assert not changing.done(), "it did not wait"
    await changing
    alive = "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL"
    assert await count(db, alive, tenant.id) == 0


async def test_links_and_devices_of_the_old_contact_are_of_no_use(
    tenants: Tenants, challenges: Challenges, sessions: Sessions, db: Database, ring: KeyRing, clock: Clock, unique: str
) -> None:
    """A sign-in link that was handed out before is refused, and no device is known any more."""
    tenant = await add(tenants, unique)
    await sign_in(challenges, db, ring, unique)
    links = Links(db, sessions, clock)
    link = await links.create(tenant.id, ("tenant", tenant.id), BY_HAND, SHELL)
    known = "SELECT count(*) FROM devices WHERE tenant_id = $1 AND revoked_at IS NULL"
    assert (await rows(db, known, tenant.id))[0]["count"] == 1

    await change(tenants, unique, email=f"new@{unique}.example")

    with pytest.raises(CodeExpired):
        await links.use(link, SHELL)
    assert (await rows(db, known, tenant.id))[0]["count"] == 0


async def test_policy_may_keep_sessions_over_a_contact_change(
    tenants: Tenants, challenges: Challenges, sessions: Sessions, db: Database, ring: KeyRing, clock: Clock, unique: str
) -> None:
    """`end_sessions_on_contact_change` off: the session lives on; the open code is void all the same."""
    tenant = await add(tenants, unique, policy={"end_sessions_on_contact_change": False})
    signed_in = await sign_in(challenges, db, ring, unique)
    await challenges.request(Realm.of(unique), Client("api"))
    clock.forward(seconds=5)
    await change(tenants, unique, email=f"new@{unique}.example")
    assert signed_in.access_token
    await sessions.authenticate(signed_in.access_token)
    open_codes = "SELECT count(*) FROM challenges WHERE tenant_id = $1 AND ended_at IS NULL"
    assert (await rows(db, open_codes, tenant.id))[0]["count"] == 0


async def test_the_old_and_the_new_address_are_told(
    tenants: Tenants, db: Database, clock: Clock, woken: list[str], unique: str
) -> None:
    """A changed email and a changed number give one notice each to the old and the new one, masked in the payload."""
    tenant = await add(tenants, unique, phone_number="+447700900123")
    woken.clear()
    await change(tenants, unique, email=f"new@{unique}.example", phone_number="+447700900456")
    notices = await rows(db, "SELECT * FROM outbox WHERE tenant_id = $1", tenant.id)
    assert {(row["kind"], row["state"], row["channel"], row["destination"]) for row in notices} == {
        ("notice", "queued", "email", f"owner@{unique}.example"),
        ("notice", "queued", "email", f"new@{unique}.example"),
        ("notice", "queued", "sms", "+447700900123"),
        ("notice", "queued", "sms", "+447700900456"),
    }
    assert {row["expires_at"] for row in notices} == {clock.now + timedelta(hours=24)}
    assert [row["payload"] for row in notices if row["channel"] == "email"] == 2 * [
        {
            "template": "contact_changed",
            "contact": "email",
            "before": f"o***@{unique}.example",
            "after": f"n***@{unique}.example",
        }
    ]
    assert woken == ["woken"]


async def test_a_removed_number_is_told_once(tenants: Tenants, db: Database, unique: str) -> None:
    """Only the old number hears of its removal: there is no new one."""
    tenant = await add(tenants, unique, phone_number="+447700900123")
    await change(tenants, unique, phone_number="")
    notices = await rows(db, "SELECT destination, payload FROM outbox WHERE tenant_id = $1", tenant.id)
    assert [(row["destination"], row["payload"]["after"]) for row in notices] == [("+447700900123", None)]


async def test_history_tells_who_changed_what_masked(tenants: Tenants, clock: Clock, unique: str) -> None:
    """Newest first, each field before and after, no full contact anywhere."""
    await add(tenants, unique)
    clock.forward(minutes=1)
    await change(tenants, unique, email=f"new@{unique}.example", name="Acme Ltd", policy={"hourly_limit": 2})
    clock.forward(minutes=1)
    await tenants.suspend(unique, "unpaid", actor=BY_HAND, client=Client("page", "203.0.113.9"))
    page = await tenants.history(unique, sees_contacts=True)
    assert [(entry.action, entry.actor_kind, entry.source, entry.ip) for entry in page.entries] == [
        ("tenant.suspended", "operator", "page", "203.0.113.9"),
        ("tenant.changed", "operator", "cli", None),
        ("tenant.created", "operator", "cli", None),
    ]
    assert page.entries[0].reason == "unpaid"
    assert page.entries[1].changes == [
        {"field": "name", "before": "Acme", "after": "Acme Ltd"},
        {"field": "email", "before": f"o***@{unique}.example", "after": f"n***@{unique}.example"},
        {"field": "policy.hourly_limit", "before": None, "after": 2},
    ]
    assert f"owner@{unique}" not in str(page)
    assert page.next is None


async def test_history_comes_in_pages(tenants: Tenants, clock: Clock, unique: str) -> None:
    """Following the cursor shows every entry once; a foreign cursor is refused."""
    await add(tenants, unique)
    for n in range(6):
        await change(tenants, unique, name=f"Acme {n}")  # one instant: the order must not hang on time alone
    seen, cursor = [], None
    while True:
        page = await tenants.history(unique, sees_contacts=True, cursor=cursor, limit=3)
        seen += [entry.id for entry in page.entries]
        if (cursor := page.next) is None:
            break
    assert len(seen) == len(set(seen)) == 7
    assert seen == sorted(seen, reverse=True)
    for forged in ("x", "W10", "WyIyMDI2LTAxLTAxIiwxXQ"):
        with pytest.raises(InvalidRequest):
            await tenants.history(unique, sees_contacts=True, cursor=forged)


async def test_suspension_is_at_once_and_resume_lifts_it(
    tenants: Tenants, challenges: Challenges, sessions: Sessions, db: Database, ring: KeyRing, clock: Clock, unique: str
) -> None:
    """Codes are void, sessions over, the reason is kept; after resume a new code works, the old session doesn't."""
    await add(tenants, unique)
    signed_in = await sign_in(challenges, db, ring, unique)
    clock.forward(seconds=5)
    issued = await challenges.request(Realm.of(unique), Client("api"))
    code = await current_code(db, ring, issued.challenge_id)
    suspended = await tenants.suspend(unique, " unpaid \n since May ", actor=BY_HAND, client=SHELL)
    assert (suspended.status, suspended.status_reason, suspended.version) == ("suspended", "unpaid since May", 2)
    assert signed_in.access_token
    with pytest.raises(InvalidToken):
        await sessions.authenticate(signed_in.access_token)
    assert await tenants.suspend(unique, "unpaid since May", actor=BY_HAND, client=SHELL) == suspended

    resumed = await tenants.resume(unique, actor=BY_HAND, client=SHELL)
    assert (resumed.status, resumed.status_reason) == ("active", None)
    with pytest.raises(CodeExpired):
        await challenges.verify(Realm.of(unique), issued.challenge_id, code, Client("api"))
    with pytest.raises(InvalidToken):
        await sessions.authenticate(signed_in.access_token)
    assert (await sign_in(challenges, db, ring, unique)).tenant_slug == unique


async def test_status_may_be_set_by_an_update(tenants: Tenants, unique: str) -> None:
    """PATCH with a status is the same suspension."""
    await add(tenants, unique)
    await change(tenants, unique, status="suspended")
    assert [entry.action for entry in (await tenants.history(unique, sees_contacts=True)).entries] == [
        "tenant.suspended",
        "tenant.created",
    ]


async def test_a_change_is_whole_or_not_at_all(
    tenants: Tenants, db: Database, monkeypatch: pytest.MonkeyPatch, unique: str
) -> None:
    """When the audit event can't be written, nothing else of the change is there either."""
    tenant = await add(tenants, unique)
    before = await everything_about(db, tenant)

    async def refuse(*_: object, **__: object) -> None:
        raise asyncpg.InsufficientPrivilegeError

    monkeypatch.setattr("app.tenants.changes.record", refuse)
    with pytest.raises(Unavailable):
        await change(tenants, unique, email=f"new@{unique}.example")
    assert await everything_about(db, tenant) == before


@pytest.mark.parametrize(
    "search",
    [
        "Grün & Söhne",
        "grün",
        "SÖHNE",
        "{unique}",
        "kontakt@{unique}",
        "+49 30 901820",
        "030 901820",
        "(0)30-90.18",
        "820",
    ],
)
async def test_a_tenant_is_found_by_any_part_of_what_is_known(tenants: Tenants, unique: str, search: str) -> None:
    """Name in any case, slug, email, and the digits of a phone number however they are written."""
    await add(tenants, unique, name="Grün & Söhne", email=f"kontakt@{unique}.example", phone_number="+4930901820")
    await add(tenants, f"{unique}x", name="Somebody else", email="s@other.example", phone_number="+447700900123")
    page = await tenants.list(Filters(contacts=True, search=search.format(unique=unique)))
    slugs = [tenant.slug for tenant in page.tenants]
    assert unique in slugs
    if "{" not in search:
        assert f"{unique}x" not in slugs


@pytest.mark.parametrize("search", ["%", "_", "100%_\\"])
async def test_wildcards_mean_themselves(tenants: Tenants, unique: str, search: str) -> None:
    """LIKE's own characters are looked for, not obeyed."""
    await add(tenants, unique, name=f"{unique} plain")
    await add(tenants, f"{unique}-w", name=f"{unique} 100%_\\")
    page = await tenants.list(Filters(contacts=True, search=search), limit=200)
    assert unique not in [tenant.slug for tenant in page.tenants]
    assert f"{unique}-w" in [tenant.slug for tenant in page.tenants]


async def test_filters_narrow_a_list_and_its_count(tenants: Tenants, db: Database, unique: str) -> None:
    """Status, method, missing contact, and one that providers call bad, which a member's is not; the count agrees and
    stops where it is told to.
    """
    await add(tenants, f"{unique}-a")
    await add(tenants, f"{unique}-b", phone_number="+447700900123", otp_delivery_method="sms")
    await add(tenants, f"{unique}-c", email=None)
    await tenants.suspend(f"{unique}-a", actor=BY_HAND, client=SHELL)
    async with db.every_tenant() as connection:
        await connection.execute(_CALLED_BAD, f"{unique}-a", None)
        await connection.execute(_CALLED_BAD, f"{unique}-b", uuid4())

    async def found(**filters: Any) -> str:
        wanted = Filters(contacts=True, search=unique, **filters)
        page = await tenants.list(wanted, sort="slug")
        assert await tenants.count(wanted) == len(page.tenants)
        return "".join(tenant.slug[-1] for tenant in page.tenants)

    assert await found() == "abc"
    assert await found(status="suspended") == "a"
    assert await found(method="sms") == "b"
    assert await found(contact_missing=True) == "c"
    assert await found(contact_missing=False, status="active") == "b"
    assert await found(failing=True) == "a"
    assert await found(failing=False) == "bc"
    page = await tenants.list(Filters(contacts=True, search=unique))
    assert page.failing == {tenant.id for tenant in page.tenants if tenant.slug.endswith("-a")}
    await change(tenants, f"{unique}-a", email=f"new@{unique}.example")
    assert await found(failing=True) == "", "a new contact starts without a past"
    assert await tenants.count(Filters(contacts=True, search=unique), at_most=2) == 2
    for wrong in (Filters(contacts=True, status="gone"), Filters(contacts=True, method="pigeon")):
        with pytest.raises(InvalidRequest):
            await tenants.list(wrong)


@pytest.mark.parametrize("sort", ["name", "-name", "slug", "-slug", "updated_at", "-updated_at", "-created_at"])
async def test_pages_lead_to_the_end_and_back(tenants: Tenants, clock: Clock, unique: str, sort: str) -> None:
    """Forward by `next` every tenant is seen once, in order; back by `previous` the same pages come again."""
    names = ["apple", "Zebra", "apple", "mango", "Banana", "apple", "kiwi"]
    for n, name in enumerate(names):
        clock.forward(seconds=n % 2)  # equal times too
        await add(tenants, f"{unique}-{n}", name=name)
    wanted = Filters(contacts=True, search=unique)
    pages, cursor = [], None
    while True:
        page = await tenants.list(wanted, sort=sort, cursor=cursor, limit=3)
        pages.append(page)
        if (cursor := page.next) is None:
            break
    assert [len(page.tenants) for page in pages] == [3, 3, 1]
    seen = [tenant for page in pages for tenant in page.tenants]
    assert len({tenant.slug for tenant in seen}) == len(names)
    key = sort.removeprefix("-")
    values = [str(getattr(tenant, key)).lower() for tenant in seen]
    assert values == sorted(values, reverse=sort.startswith("-"))

    assert pages[0].previous is None
    back = await tenants.list(wanted, sort=sort, cursor=pages[2].previous, limit=3)
    assert back.tenants == pages[1].tenants
    first = await tenants.list(wanted, sort=sort, cursor=back.previous, limit=3)
    assert first.tenants == pages[0].tenants
    assert first.previous is None
    assert first.next == pages[0].next


async def test_a_foreign_cursor_or_sort_is_refused(tenants: Tenants, unique: str) -> None:
    """Garbage, a cursor of another order, and what no list is sorted by are bad input, not errors of ours."""
    for n in range(2):
        await add(tenants, f"{unique}-{n}")
    cursor = (await tenants.list(Filters(contacts=True, search=unique), limit=1)).next
    assert cursor
    for forged, sort in ((cursor, "slug"), ("%%%", "name"), ("bm9uZQ", "name"), (cursor, "email"), ("é", "name")):
        with pytest.raises(InvalidRequest):
            await tenants.list(Filters(contacts=True), sort=sort, cursor=forged)
    for limit in (0, 201):
        with pytest.raises(InvalidRequest):
            await tenants.list(Filters(contacts=True), limit=limit)


async def test_the_system_tenant_is_in_no_list(tenants: Tenants) -> None:
    """Whatever is searched for, the tenant under which admins sign in stays out of sight."""
    page = await tenants.list(Filters(contacts=True, search="gatehouse"), limit=200)
    assert all(not tenant.slug.startswith("_") for tenant in page.tenants)
    assert await tenants.count(Filters(contacts=True, search="_system")) == 0


async def test_a_test_message_is_queued_and_watched(
    tenants: Tenants, db: Database, woken: list[str], unique: str
) -> None:
    """It goes by the method asked for, the worker is woken, and its state can be asked for."""
    tenant = await add(tenants, unique, phone_number="+447700900123")
    message = await tenants.send_test(unique, channel="sms", actor=BY_HAND, client=SHELL)
    assert woken == ["woken"]
    outcome = await tenants.test_outcome(message)
    assert (outcome.state, outcome.channel, outcome.settled) == ("queued", "sms", False)
    queued = await rows(db, "SELECT kind, challenge_id FROM outbox WHERE tenant_id = $1", tenant.id)
    assert [tuple(row.values()) for row in queued] == [("test", None)]
    with pytest.raises(ChannelUnavailable):
        await tenants.send_test(unique, channel="push", actor=BY_HAND, client=SHELL)
    with pytest.raises(InvalidRequest):
        await tenants.send_test(unique, channel="pigeon", actor=BY_HAND, client=SHELL)
