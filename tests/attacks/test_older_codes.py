"""A code that a resend voided: it signs nobody in, counts as a try, costs the same, and its owner is told why."""

import pytest

from app.audit.log import Client
from app.auth import codes
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.errors import InvalidCode, TooManyAttempts
from app.keys import KeyRing
from app.storage.db import Database
from tests.admins import AdminBrowser, add_admin
from tests.conftest import Clock
from tests.counting import counting
from tests.http import Http
from tests.pages import Visitor, challenge_of
from tests.people import add_tenant, challenge_row, current_code, whole, wrong

CLIENT = Client("api", "203.0.113.9", "test", "r")
NEWER = "A newer code was sent. Use that one."


async def sent(
    challenges: Challenges, db: Database, ring: KeyRing, clock: Clock, realm: Realm, times: int
) -> list[str]:
    """A challenge and its codes, the newest last; the id comes first."""
    issued = await challenges.request(realm, CLIENT)
    found = [issued.challenge_id, await current_code(db, ring, issued.challenge_id)]
    for _ in range(times - 1):
        clock.forward(seconds=61)
        await challenges.resend(realm, issued.challenge_id, CLIENT)
        found.append(await current_code(db, ring, issued.challenge_id))
    return found


@pytest.mark.parametrize("resends", [1, 2])
async def test_an_older_code_is_told_from_a_wrong_one(
    challenges: Challenges, db: Database, ring: KeyRing, clock: Clock, resends: int
) -> None:
    """Each earlier one is recognised, a made-up one isn't, each is a try; the newest still opens."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    challenge, *earlier, newest = await sent(challenges, db, ring, clock, realm, resends + 1)
    left = 5
    for code in [*earlier, wrong(newest)]:
        left -= 1
        with pytest.raises(InvalidCode) as refused:
            await challenges.verify(realm, challenge, code, CLIENT)
        said = (refused.value.attempts_left, refused.value.detail)
        assert said == (left, NEWER if code in earlier else "Wrong code")
    evidence = "SELECT data -> 'earlier' FROM audit_events WHERE tenant_id = $1 AND action = 'code.wrong' ORDER BY id"
    async with db.every_tenant() as connection:
        assert [row[0] for row in await connection.fetch(evidence, tenant.id)] == [*[True] * resends, None]
    assert whole(await challenges.verify(realm, challenge, newest, CLIENT)).access_token


async def test_older_codes_are_tries_like_any_other(
    challenges: Challenges, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """The fifth ends the challenge, and the guesses of the day count them."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    challenge, older, newest = await sent(challenges, db, ring, clock, realm, 2)
    for _ in range(4):
        with pytest.raises(InvalidCode):
            await challenges.verify(realm, challenge, older, CLIENT)
    with pytest.raises(TooManyAttempts):
        await challenges.verify(realm, challenge, older, CLIENT)
    with pytest.raises(TooManyAttempts):
        await challenges.verify(realm, challenge, newest, CLIENT)
    guesses = "SELECT cardinality(wrong) FROM quota WHERE tenant_id = $1"
    async with db.every_tenant() as connection:
        assert await connection.fetchval(guesses, tenant.id) == 5
    row = await challenge_row(db, challenge)
    assert (row["earlier_salts"], row["earlier_digests"], row["earlier_keys"]) == ([], [], [])


async def test_a_decoy_costs_the_same_comparisons(
    challenges: Challenges, db: Database, ring: KeyRing, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known or not, a try compares the present code and each earlier one, once; nobody's never says what is newer."""
    tenant = await add_tenant(db, clock())
    compared: list[object] = []
    digest = codes.digest
    told = {}
    for slug in (tenant.slug, f"nobody-{tenant.slug}"):
        realm = Realm.of(slug)
        challenge, older, _, newest = await sent(challenges, db, ring, clock, realm, 3)
        with monkeypatch.context() as patched:
            patched.setattr(codes, "digest", counting(digest, compared))
            for code in (older, wrong(newest)):
                with pytest.raises(InvalidCode) as refused:
                    await challenges.verify(realm, challenge, code, CLIENT)
                told[slug, code == older] = (refused.value.detail, len(compared))
                compared.clear()
    assert {count for _, count in told.values()} == {3}
    assert [detail for detail, _ in told.values()] == [NEWER, "Wrong code", "Wrong code", "Wrong code"]


async def test_what_they_are_recognised_by_goes_with_the_challenge(
    challenges: Challenges, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """At most three are kept; whatever ends the challenge erases them."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    issued = await challenges.request(realm, CLIENT)
    for _ in range(5):
        clock.forward(minutes=9)
        await db.run("SELECT fn.unlock_recipient($1, $1)", tenant.id)
        await challenges.resend(realm, issued.challenge_id, CLIENT)
    row = await challenge_row(db, issued.challenge_id)
    kept = [len(row[column]) for column in ("earlier_salts", "earlier_digests", "earlier_keys")]
    assert (row["generation"], kept) == (6, [3, 3, 3])
    for ending in ("used", "void", "expired", "attempts"):
        async with db.every_tenant() as connection:
            transaction = connection.transaction()
            await transaction.start()
            ended = await connection.fetchrow(
                "UPDATE challenges SET ended_at = $2, end_reason = $3, salt = NULL, digest = NULL WHERE id = $1 "
                "RETURNING *",
                row["id"],
                clock(),
                ending,
            )
            await transaction.rollback()
        assert (ended["earlier_salts"], ended["earlier_digests"], ended["earlier_keys"]) == ([], [], [])


async def test_the_api_says_so(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """401 `invalid-code` with what is left."""
    tenant = await add_tenant(db, clock())
    asked = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
    older = await current_code(db, ring, asked)
    clock.forward(seconds=61)
    assert (await http.otp(tenant.slug, "resend", {"challenge_id": asked})).status_code == 202
    refused = await http.otp(tenant.slug, "verify", {"challenge_id": asked, "code": older})
    said = refused.json()
    assert (refused.status_code, said["code"], said["attempts_left"], said["detail"]) == (401, "invalid-code", 4, NEWER)


async def test_the_pages_say_so(http: Http, db: Database, ring: KeyRing, clock: Clock, person: Visitor) -> None:
    """A person's page, and an admin's."""
    slug = (await add_tenant(db, clock())).slug
    await person.open(f"/t/{slug}/login")
    await person.submit(f"/t/{slug}/login", {})
    older = await current_code(db, ring, challenge_of(person))
    clock.forward(seconds=61)
    await person.submit(f"/t/{slug}/resend", {})
    await person.submit(f"/t/{slug}/verify", {"code": older})
    assert f"{NEWER} 4 attempts left." in person.text

    admin, browser = await add_admin(db, clock), AdminBrowser.of(http)
    await browser.press("/admin/sign-in", "/admin/sign-in", {"email": admin.email, "next": ""})
    challenge = browser.client.cookies["gh_admin_challenge"].split(".")[0]
    older = await current_code(db, ring, challenge)
    clock.forward(seconds=61)
    await browser.press("/admin/sign-in/resend", "/admin/sign-in/code", {"next": ""})
    await browser.press("/admin/sign-in/code", "/admin/sign-in/code", {"code": older, "next": ""})
    assert f"{NEWER} 4 attempts left." in browser.words
