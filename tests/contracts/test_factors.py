"""Second factors in the core: set up, confirmed, changed, removed, reset, and what each brings about."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from app.audit.log import Actor, Client
from app.auth.admin_sessions import STEP_UP
from app.auth.admins import Admins
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.encryption import Tampered
from app.auth.factors.rekeying import reencrypt_apps, reencrypt_backup_codes
from app.auth.factors.second_steps import GUESSES_A_DAY
from app.auth.factors.service import RECENT, Holder
from app.auth.sessions import Sessions
from app.auth.signing_in import HalfSignIn, SignIn
from app.errors import (
    CodeExpired,
    Forbidden,
    InvalidCode,
    InvalidRequest,
    InvalidToken,
    NotFound,
    RateLimited,
    TooManyAttempts,
)
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database, Row
from app.tenants.service import Tenants
from app.web import csrf
from tests.adminapi import admin_api
from tests.admins import add_admin
from tests.conftest import Clock
from tests.contracts.test_cli import Shell, environment, gatehouse
from tests.factors import OWNER, App, Door, Person
from tests.http import BASE_URL, serve
from tests.people import add_member, add_tenant, count, whole

__all__ = ["environment", "gatehouse"]

NOTICES = (
    "SELECT channel, destination, payload FROM outbox WHERE tenant_id = $1 AND kind = 'notice' ORDER BY created_at"
)
EVENTS = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = $2"


@pytest.fixture
def door(
    db: Database, ring: KeyRing, settings: Settings, clock: Clock, challenges: Challenges, sessions: Sessions
) -> Door:
    return Door(db, ring, settings, clock, challenges, sessions)


async def rows(db: Database, sql: str, *args: object) -> list[Row]:
    async with db.every_tenant() as connection:
        return list(await connection.fetch(sql, *args))


async def changes_told(door: Door, tenant_id: UUID) -> list[str]:
    """What the notices were about, oldest first."""
    return [row["payload"]["change"] for row in await rows(door.db, NOTICES, tenant_id)]


async def test_nothing_is_asked_of_who_has_none(door: Door) -> None:
    """One factor is enough where nobody set a second one up; beginning to set one up changes nothing."""
    tenant = await add_tenant(door.db, door.clock())
    realm = Realm.of(tenant.slug)
    session = await door.live(whole(await door.by_code(realm)))
    assert (session.totp, session.backup_codes, session.amr) == (False, 0, ["otp:email"])
    await door.factors.enrol(Holder.of(session))
    assert isinstance(await door.by_code(realm), SignIn)


async def test_an_app_is_asked_for_once_it_is_confirmed(door: Door) -> None:
    """The first code confirms it; from then on a code by email is half a sign-in, and the app's code the other half."""
    person = await door.enrolled()
    half = await door.half(person.realm)
    assert (half.next, half.expires_in, half.tenant_slug) == ("totp", 600, person.tenant.slug)
    signed_in = await door.finish(half, person.app.next())
    session = await door.live(signed_in)
    assert signed_in.subject.id == person.tenant.id
    assert list(session.amr) == ["otp:email", "totp", "mfa"]
    assert session.totp


async def test_a_code_of_the_app_may_have_blanks_but_must_be_right(door: Door) -> None:
    """`123 456` is read; what is malformed costs no attempt; what is wrong says how many are left."""
    person = await door.enrolled()
    half = await door.half(person.realm)
    for typed in ("12345", "abcdef", ""):
        with pytest.raises(InvalidRequest):
            await door.finish(half, typed)
    with pytest.raises(InvalidCode) as wrong:
        await door.finish(half, person.app.wrong())
    assert wrong.value.attempts_left == 4
    code = person.app.next()
    assert (await door.finish(half, f"{code[:3]} {code[3:]}")).tenant_id == person.tenant.id


async def test_enrolling_ends_what_was_begun_without_it(door: Door) -> None:
    """Other sessions and known devices are over; the session that did it goes on, and counts as begun with the app."""
    tenant = await add_tenant(door.db, door.clock(), phone_number="+447700900123")
    realm = Realm.of(tenant.slug)
    other = whole(await door.by_code(realm))
    session = await door.live(whole(await door.by_code(realm)))
    assert len(await door.sessions.devices(session)) == 2
    app = App.scan(await door.factors.enrol(Holder.of(session)), door.clock)
    await door.factors.confirm(session, app.code(), OWNER)

    door.clock.forward(seconds=4)
    assert other.access_token
    with pytest.raises(InvalidToken):
        await door.sessions.authenticate(other.access_token)
    (kept,) = await door.sessions.list(session)
    assert kept["id"] == session.session_id
    assert await door.sessions.devices(session) == []
    methods = "SELECT methods FROM sessions WHERE id = $1"
    assert [row["methods"] for row in await rows(door.db, methods, session.session_id)] == [["otp:email", "totp"]]
    assert await count(door.db, EVENTS, tenant.id, "factor.enrolled") == 1
    (notice,) = await rows(door.db, NOTICES, tenant.id)
    assert (notice["channel"], notice["destination"]) == ("email", tenant.email)
    about = str(session.subject.id)
    assert notice["payload"] == {"template": "factor_changed", "change": "enrolled", "about": about}
    assert door.woken


async def test_changing_factors_takes_a_recent_sign_in_with_the_factor(door: Door) -> None:
    """Ten minutes after the sign-in none of the verbs works any more, and a fresh one brings them back."""
    person = await door.enrolled()
    door.clock.forward(seconds=RECENT.total_seconds())
    with pytest.raises(Forbidden, match="Sign in again"):
        await door.factors.enrol(Holder.of(person.session))
    with pytest.raises(Forbidden):
        await door.factors.remove(person.session, OWNER)
    with pytest.raises(Forbidden):
        await door.factors.new_backup_codes(person.session, OWNER)
    assert not (await door.factors.of(person.session)).may_change
    fresh = await door.live(await door.finish(await door.half(person.realm), person.app.code()))
    assert (await door.factors.of(fresh)).may_change
    await door.factors.remove(fresh, OWNER)


async def test_a_session_without_the_factor_changes_nothing(door: Door) -> None:
    """However it came about: a recent session that the app had no part in can't replace or remove it."""
    person = await door.enrolled()
    async with door.db.every_tenant() as connection:
        await connection.execute("UPDATE sessions SET methods = '{otp:email}' WHERE id = $1", person.session.session_id)
    for verb in (
        door.factors.enrol(Holder.of(person.session)),
        door.factors.remove(person.session, OWNER),
        door.factors.new_backup_codes(person.session, OWNER),
    ):
        with pytest.raises(Forbidden):
            await verb


async def test_a_new_phone_takes_the_old_ones_place(door: Door) -> None:
    """Until the new app is confirmed the old one counts, afterwards only the new one; backup codes stay."""
    person = await door.enrolled()
    codes = await door.factors.new_backup_codes(person.session, OWNER)
    new = App.scan(await door.factors.enrol(Holder.of(person.session)), door.clock)
    await door.finish(await door.half(person.realm), person.app.next())
    await door.unlock(person.tenant.id)
    await door.factors.confirm(person.session, new.code(), OWNER)
    half = await door.half(person.realm)
    with pytest.raises(InvalidCode):
        await door.finish(half, person.app.next())
    await door.finish(half, new.code())
    await door.finish(await door.half(person.realm), codes[0], "backup_code")


async def test_only_who_began_confirms(door: Door) -> None:
    """Another session of the same person neither sees the secret nor confirms it; a second beginning replaces it."""
    tenant = await add_tenant(door.db, door.clock())
    realm = Realm.of(tenant.slug)
    mine, theirs = [await door.live(whole(await door.by_code(realm))) for _ in range(2)]
    first = await door.factors.enrol(Holder.of(mine))
    assert await door.factors.pending(Holder.of(theirs)) is None
    with pytest.raises(Forbidden, match="Begin again"):
        await door.factors.confirm(theirs, App.scan(first, door.clock).code(), OWNER)
    assert await door.factors.pending(Holder.of(mine)) == first
    second = await door.factors.enrol(Holder.of(theirs))
    assert second.secret != first.secret
    assert await door.factors.pending(Holder.of(mine)) is None
    with pytest.raises(InvalidRequest):
        await door.factors.confirm(theirs, App.scan(first, door.clock).code(), OWNER)
    await door.factors.confirm(theirs, App.scan(second, door.clock).code(), OWNER)


async def test_removing_it_makes_one_factor_enough_again(door: Door) -> None:
    """App and backup codes go, other sessions end, the contacts are told; there is nothing to remove twice."""
    person = await door.enrolled()
    await door.factors.new_backup_codes(person.session, OWNER)
    other = await door.finish(await door.half(person.realm), person.app.next())
    await door.factors.remove(person.session, OWNER)
    door.clock.forward(seconds=4)
    assert other.access_token
    with pytest.raises(InvalidToken):
        await door.sessions.authenticate(other.access_token)
    assert isinstance(await door.by_code(person.realm), SignIn)
    with pytest.raises(NotFound):
        await door.factors.remove(person.session, OWNER)
    with pytest.raises(NotFound):
        await door.factors.new_backup_codes(person.session, OWNER)
    assert await changes_told(door, person.tenant.id) == ["enrolled", "backup_codes", "removed"]
    for table in ("factors", "backup_codes"):
        assert await count(door.db, f"SELECT count(*) FROM {table} WHERE tenant_id = $1", person.tenant.id) == 0


async def test_a_backup_code_works_once(door: Door) -> None:
    """Each of the ten signs in, none twice, and new ones make the old ones void; using one is told."""
    person = await door.enrolled()
    old = await door.factors.new_backup_codes(person.session, OWNER)
    await door.finish(await door.half(person.realm), old[0].upper().replace("-", " "), "backup_code")
    half = await door.half(person.realm)
    with pytest.raises(InvalidCode):
        await door.finish(half, old[0], "backup_code")
    session = await door.live(await door.finish(half, old[1], "backup_code"))
    assert list(session.amr) == ["otp:email", "backup_code", "mfa"]
    assert session.backup_codes == 8
    new = await door.factors.new_backup_codes(session, OWNER)
    await door.unlock(person.tenant.id)
    half = await door.half(person.realm)
    with pytest.raises(InvalidCode):
        await door.finish(half, old[2], "backup_code")
    await door.finish(half, new[9], "backup_code")
    told = await changes_told(door, person.tenant.id)
    assert told == ["enrolled", "backup_codes", "backup_code_used", "backup_code_used", "backup_codes", *told[5:]]
    assert told[5:] == ["backup_code_used"]


async def test_a_required_factor_is_set_up_before_anything_else(door: Door) -> None:
    """`second_factor: required`: the code leads to setting an app up, and its first code to the session."""
    tenant = await add_tenant(door.db, door.clock(), policy={"second_factor": "required"})
    realm = Realm.of(tenant.slug)
    half = await door.half(realm)
    assert half.next == "enrol"
    with pytest.raises(CodeExpired):
        await door.finish(half, "123456")
    holder = await door.factors.holder(half.mfa_token)
    app = App.scan(await door.factors.enrol(holder), door.clock)
    with pytest.raises(InvalidCode) as wrong:
        await door.enrol_and_finish(half, app.wrong())
    assert wrong.value.attempts_left == 4
    signed_in = await door.enrol_and_finish(half, app.code())
    session = await door.live(signed_in)
    assert list(session.amr) == ["otp:email", "totp", "mfa"]
    with pytest.raises(Forbidden, match="required"):
        await door.factors.remove(session, OWNER)
    assert (await door.half(realm)).next == "totp"


async def test_a_policy_may_switch_them_off(door: Door) -> None:
    """`second_factor: off`: none can be set up. One that is there is demanded all the same, and can be removed."""
    tenant = await add_tenant(door.db, door.clock(), policy={"second_factor": "off"})
    session = await door.live(whole(await door.by_code(Realm.of(tenant.slug))))
    with pytest.raises(Forbidden, match="switched"):
        await door.factors.enrol(Holder.of(session))
    person = await door.enrolled()
    async with door.db.every_tenant() as connection:
        policy = {"second_factor": "off"}
        await connection.execute("UPDATE tenants SET policy = $2 WHERE id = $1", person.tenant.id, policy)
    assert (await door.half(person.realm)).next == "totp"
    await door.factors.remove(person.session, OWNER)


async def test_a_reset_is_for_who_lost_theirs(door: Door) -> None:
    """An admin takes everything away: sessions end, half sign-ins too; the log names the admin. Once."""
    person = await door.enrolled()
    half = await door.half(person.realm)
    subject = (person.tenant.id, "tenant", person.tenant.id)
    assert await door.factors.reset(*subject, actor=Actor("operator"), client=Client("cli"))
    assert not await door.factors.reset(*subject, actor=Actor("operator"), client=Client("cli"))
    with pytest.raises(CodeExpired):
        await door.finish(half, person.app.next())
    assert await door.sessions.list(person.session) == []
    assert isinstance(await door.by_code(person.realm), SignIn)
    sql = f"{EVENTS} AND actor_kind = 'operator' AND source = 'cli'"
    assert await count(door.db, sql, person.tenant.id, "factor.reset") == 1
    assert (await changes_told(door, person.tenant.id))[-1] == "reset"


async def test_an_operator_resets_an_admins(door: Door, gatehouse: Shell) -> None:
    """`gatehouse admin reset-factors EMAIL`: once, and for an admin who is there."""
    admin = await add_admin(door.db, door.clock, "owner")
    session = await door.live(whole(await door.by_code(Realm.admins(), identifier=admin.email)))
    app = App.scan(await door.factors.enrol(Holder.of(session)), door.clock)
    await door.factors.confirm(session, app.code(), OWNER)
    for said in ("has no second factor any more", "had no second factor"):
        done = await asyncio.to_thread(gatehouse, "admin", "reset-factors", admin.email)
        assert (done.returncode, said in done.stdout) == (0, True), done.stderr
    missing = await asyncio.to_thread(gatehouse, "admin", "reset-factors", "nobody@staff.example")
    assert (missing.returncode, "No admin has the address" in missing.stderr) == (2, True)
    assert await count(door.db, f"{EVENTS} AND subject_id = $3", SYSTEM_TENANT, "factor.reset", admin.id) == 1
    assert isinstance(await door.by_code(Realm.admins(), identifier=admin.email), SignIn)


@pytest.mark.parametrize("kind", ["tenant", "member"])
async def test_an_operator_resets_a_tenants_and_a_members(door: Door, gatehouse: Shell, kind: str) -> None:
    """`gatehouse tenant|member reset-factors`: once, named in the log, and told to the contact."""
    tenant = await add_tenant(door.db, door.clock())
    email = f"ana@{tenant.slug}.example"
    member_id = await add_member(door.db, door.clock(), tenant, email=email)
    identifier, subject_id = (email, member_id) if kind == "member" else (None, tenant.id)
    realm = Realm.of(tenant.slug)
    session = await door.live(whole(await door.by_code(realm, identifier=identifier)))
    app = App.scan(await door.factors.enrol(Holder.of(session)), door.clock)
    await door.factors.confirm(session, app.code(), OWNER)
    who = [identifier] if identifier else []
    for said in ("has no second factor any more", "had no second factor"):
        done = await asyncio.to_thread(gatehouse, kind, "reset-factors", tenant.slug, *who)
        assert (done.returncode, said in done.stdout) == (0, True), done.stderr
    missing = await asyncio.to_thread(gatehouse, kind, "reset-factors", "nobody-at-all", *who)
    assert (missing.returncode, missing.stdout) == (2, "")
    sql = f"{EVENTS} AND subject_id = $3 AND subject_kind = $4 AND actor_kind = 'operator'"
    assert await count(door.db, sql, tenant.id, "factor.reset", subject_id, kind) == 1
    told = (await rows(door.db, NOTICES, tenant.id))[-1]
    assert (told["payload"]["change"], told["destination"]) == ("reset", identifier or tenant.email)
    assert isinstance(await door.by_code(realm, identifier=identifier), SignIn)


async def test_the_admin_api_resets_them(door: Door, settings: Settings) -> None:
    """204 by a manager, 404 where there is nothing or the member is another tenant's, 403 for a viewer."""
    person, other = await door.enrolled(), await door.enrolled()
    member_id = await add_member(door.db, door.clock(), person.tenant, email=f"ana@{person.tenant.slug}.example")
    realm, identifier = person.realm, f"ana@{person.tenant.slug}.example"
    session = await door.live(whole(await door.by_code(realm, identifier=identifier)))
    app = App.scan(await door.factors.enrol(Holder.of(session)), door.clock)
    await door.factors.confirm(session, app.code(), OWNER)
    own, foreign = f"/tenants/{person.tenant.slug}", f"/tenants/{other.tenant.slug}"
    async with serve(settings, door.clock) as http:
        viewer, manager = [await admin_api(http, door.db, door.clock, role) for role in ("viewer", "manager")]
        for path in (f"{own}/factors", f"{own}/members/{member_id}/factors"):
            assert (await viewer("DELETE", path)).status_code == 403
        refused = await manager("DELETE", f"{foreign}/members/{member_id}/factors")
        assert (refused.status_code, refused.json()["code"]) == (404, "not-found")
        assert isinstance(await door.by_code(realm, identifier=identifier), HalfSignIn)
        for path in (f"{own}/factors", f"{own}/members/{member_id}/factors"):
            assert (await manager("DELETE", path)).status_code == 204
            assert (await manager("DELETE", path)).status_code == 404
    assert await door.sessions.list(session) == []
    assert isinstance(await door.by_code(realm, identifier=identifier), SignIn)
    assert isinstance(await door.by_code(realm), SignIn)
    assert isinstance(await door.by_code(other.realm), HalfSignIn)
    by_key = f"{EVENTS} AND actor_kind = 'api-key'"
    assert await count(door.db, by_key, person.tenant.id, "factor.reset") == 2


async def test_an_admin_resets_with_a_young_sign_in(door: Door, settings: Settings) -> None:
    """By a page of ours: an hour after signing in 403, and nothing is taken away."""
    person = await door.enrolled()
    admin = await add_admin(door.db, door.clock, "manager")
    link = await door.links.create(SYSTEM_TENANT, ("admin", admin.id), Actor("operator"), Client("cli"))
    cookie = whole(await door.links.use(link, Client("page"))).cookie or ""
    signed_in = {"Cookie": f"gh_admin={cookie}"}
    ours = signed_in | {"Origin": BASE_URL, "X-CSRF-Token": csrf.token(door.ring.current, "admin", cookie)}
    tenant = f"/api/v1/admin/tenants/{person.tenant.slug}"
    async with serve(settings, door.clock) as http:
        for _ in range(STEP_UP // timedelta(minutes=10)):
            door.clock.forward(minutes=10)
            assert (await http.client.get(tenant, headers=signed_in)).status_code == 200
        refused = await http.client.delete(f"{tenant}/factors", headers=ours)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "Sign in again" in refused.json()["detail"]
    assert isinstance(await door.by_code(person.realm), HalfSignIn)


async def test_wrong_codes_of_a_day_are_counted(door: Door) -> None:
    """After 30 only a backup code helps. Right ones are not counted and forgive nothing; a day later the app works."""
    person = await door.enrolled()
    (spare, *_) = await door.factors.new_backup_codes(person.session, OWNER)
    for _ in range(GUESSES_A_DAY // 5):
        await door.unlock(person.tenant.id)
        await door.finish(await door.half(person.realm), person.app.next())
        half = await door.half(person.realm)
        for _ in range(5):
            with pytest.raises((InvalidCode, TooManyAttempts)):
                await door.finish(half, person.app.wrong())
    await door.unlock(person.tenant.id)
    half = await door.half(person.realm)
    with pytest.raises(RateLimited) as refusal:
        await door.finish(half, person.app.next())
    assert refusal.value.policy == "factor"
    assert 0 < refusal.value.retry_after <= timedelta(days=1).total_seconds()
    await door.finish(half, spare, "backup_code")
    door.clock.forward(days=1)
    await door.unlock(person.tenant.id)
    await door.finish(await door.half(person.realm), person.app.code())


async def test_a_half_sign_in_lasts_ten_minutes(door: Door) -> None:
    """Then the code of the app is too late."""
    person = await door.enrolled()
    half = await door.half(person.realm)
    door.clock.forward(minutes=10)
    with pytest.raises(CodeExpired, match="Start again"):
        await door.finish(half, person.app.code())
    with pytest.raises(CodeExpired):
        await door.factors.holder(half.mfa_token)


async def test_a_suspended_tenant_finishes_nothing(door: Door) -> None:
    """Suspended between the two steps: the second one signs nobody in."""
    person = await door.enrolled()
    half = await door.half(person.realm)
    async with door.db.every_tenant() as connection:
        await connection.execute("UPDATE tenants SET status = 'suspended' WHERE id = $1", person.tenant.id)
    with pytest.raises(CodeExpired):
        await door.finish(half, person.app.next())


async def test_a_changed_contact_finishes_nothing(door: Door, settings: Settings) -> None:
    """Whoever read the old contact's mail can't set an app of their own up with a code that they entered before."""
    tenant = await add_tenant(door.db, door.clock(), policy={"second_factor": "required"})
    half = await door.half(Realm.of(tenant.slug))
    app = App.scan(await door.factors.enrol(await door.factors.holder(half.mfa_token)), door.clock)
    tenants = Tenants(door.db, settings, door.clock, lambda: None)
    await tenants.update(tenant.slug, {"email": "new@acme.example"}, actor=Actor("operator"), client=Client("cli"))
    with pytest.raises(CodeExpired):
        await door.enrol_and_finish(half, app.code())
    assert (await door.half(Realm.of(tenant.slug))).next == "enrol"


async def test_a_suspended_admin_finishes_nothing(door: Door) -> None:
    """Suspended between the two steps, or while the second one is on its way: neither a session nor a new app."""
    admins = Admins(door.db, door.clock)
    for at_once in (False, True):
        admin = await add_admin(door.db, door.clock, "viewer")
        session = whole(await door.by_code(Realm.admins(), identifier=admin.email))
        live = await door.live(session)
        app = App.scan(await door.factors.enrol(Holder.of(live)), door.clock)
        await door.factors.confirm(live, app.code(), OWNER)
        outcome = await door.by_code(Realm.admins(), identifier=admin.email)
        assert isinstance(outcome, HalfSignIn)
        if at_once:
            async with door.db.every_tenant() as connection:
                await connection.execute("UPDATE admins SET status = 'suspended' WHERE id = $1", admin.id)
        else:
            await admins.change(admin.id, status="suspended", actor=Actor("operator"), client=Client("cli"))
        with pytest.raises(CodeExpired):
            await door.second_steps.finish(
                outcome.mfa_token, app.next(), OWNER, using="totp", kind="api", subjects={"admin"}
            )


async def test_secrets_are_encrypted_for_their_row(door: Door) -> None:
    """The database holds no secret of an app; moved to another person's row it is worth nothing."""
    person, other = await door.enrolled(), await door.enrolled()
    await door.factors.new_backup_codes(person.session, OWNER)
    stored = await rows(door.db, "SELECT secret, key_id FROM factors WHERE tenant_id = $1", person.tenant.id)
    assert person.app.secret not in stored[0]["secret"]
    assert stored[0]["key_id"] == door.ring.current.id
    half = await door.half(other.realm)
    async with door.db.every_tenant() as connection:
        await connection.execute(
            "UPDATE factors SET secret = $2 WHERE tenant_id = $1", other.tenant.id, stored[0]["secret"]
        )
    with pytest.raises(Tampered):
        await door.finish(half, person.app.next())


async def test_a_new_key_takes_them_over(door: Door, settings: Settings, challenges: Challenges) -> None:
    """Encrypted anew under the first key of a ring, apps and backup codes work without the old one."""
    person = await door.enrolled()
    (spare, *_) = await door.factors.new_backup_codes(person.session, OWNER)
    half, second = await door.half(person.realm), await door.half(person.realm)
    old, new = settings.secret_keys[0], b"a new secret of at least thirty-two bytes, for tests"
    both, alone = KeyRing([new, old]), KeyRing([new])
    async with door.db.tenant(person.tenant.id) as connection:
        keys = [door.ring.current.id]
        assert await reencrypt_apps(connection, both, keys) == 1
        assert await reencrypt_backup_codes(connection, both, keys) == 10
        assert await reencrypt_apps(connection, both, keys) == 0
    moved = Door(door.db, alone, settings, door.clock, challenges, Sessions(door.db, alone, settings, door.clock))
    await moved.finish(half, person.app.next())
    await moved.finish(second, spare, "backup_code")


async def test_a_sign_in_link_asks_for_it_too(door: Door) -> None:
    """An admin's link replaces the code and nothing else."""
    person = await door.enrolled()
    link = await door.links.create(person.tenant.id, ("tenant", person.tenant.id), Actor("operator"), Client("cli"))
    half = await door.links.use(link, OWNER)
    assert isinstance(half, HalfSignIn)
    signed_in = await door.finish(half, person.app.next(), kind="browser")
    assert signed_in.cookie
    session = await door.sessions.authenticate_cookie(signed_in.cookie)
    assert session is not None
    assert list(session.amr) == ["link", "totp", "mfa"]


async def test_the_device_is_known_only_after_the_second_step(door: Door) -> None:
    """Half a sign-in makes no known device; a whole one does, and its token opens the lane."""
    person: Person = await door.enrolled()
    half = await door.half(person.realm)
    assert await door.sessions.devices(person.session) == []
    signed_in = await door.finish(half, person.app.next())
    (device,) = await door.sessions.devices(await door.live(signed_in))
    await door.unlock(person.tenant.id)
    for _ in range(3):
        await door.challenges.request(person.realm, OWNER)
    with pytest.raises(RateLimited):
        await door.challenges.request(person.realm, OWNER)
    await door.challenges.request(person.realm, OWNER, device_token=signed_in.device_token)
    assert device["name"] is None
