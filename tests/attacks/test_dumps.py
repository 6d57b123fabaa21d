"""Somebody has a copy of the database, and our source, but not the key: it opens nothing."""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from app.audit.log import Client
from app.auth import codes
from app.auth.asking import Issued, Realm
from app.auth.challenges import Challenges
from app.auth.sessions import Sessions
from app.auth.tokens import RefreshToken
from app.errors import GatehouseError, InvalidToken
from app.keys import KeyRing, base64url, keyed_hash
from app.storage.db import Database, Row
from tests.conftest import Clock
from tests.people import add_tenant, current_code, whole

CLIENT: Final = Client("api", "203.0.113.9", "test", "r")
_OPEN: Final = 50

# What codes would be checked by if there were no key: each takes salt and code to a digest.
KEYLESS: Final[dict[str, Callable[[bytes, bytes], bytes]]] = {
    "SHA-256(salt, code)": lambda salt, code: hashlib.sha256(salt + code).digest(),
    "HMAC(salt, code)": lambda salt, code: hmac.digest(salt, code, "sha256"),
}


async def dumped_challenges(db: Database, challenges: Challenges, clock: Clock) -> list[tuple[Row, Realm, Issued]]:
    """Open challenges as the table has them."""
    dump = []
    for _ in range(_OPEN):
        realm = Realm.of((await add_tenant(db, clock())).slug)
        issued = await challenges.request(realm, CLIENT)
        async with db.every_tenant() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM challenges WHERE id = $1", codes.read_challenge_id(issued.challenge_id)
            )
        dump.append((row, realm, issued))
    return dump


def recovered(dump: Sequence[tuple[Row, Realm, Issued]], ring: KeyRing) -> int:
    """How many codes follow from the rows with these keys, proven by the stored digest."""
    found = 0
    for row, *_ in dump:
        identity, generation, salt = row["id"], row["generation"], row["salt"]
        guess = codes.derive(ring.current, identity, generation, salt, row["code_length"])
        found += codes.matches(ring.current, identity, generation, salt, guess, row["digest"])
    return found


async def test_without_the_key_no_code_is_recovered(
    db: Database, challenges: Challenges, ring: KeyRing, clock: Clock
) -> None:
    """With the key each code follows from its row; with any other, none. All six digits tried without one: none."""
    dump = await dumped_challenges(db, challenges, clock)
    assert recovered(dump, ring) == _OPEN
    likely = [b"", b"\0" * 32, b"secret", b"changeme", b"gatehouse/v1", dump[0][0]["key_id"].encode()]
    for secret in (*likely, *(secrets.token_bytes(32) for _ in range(50))):
        assert recovered(dump, KeyRing([secret])) == 0

    row = dump[0][0]
    for name, digest in KEYLESS.items():
        assert all(digest(row["salt"], b"%06d" % code) != row["digest"] for code in range(10**6)), name


async def test_a_code_leaves_nothing_behind(db: Database, challenges: Challenges, ring: KeyRing, clock: Clock) -> None:
    """Of a used challenge not even salt and digest are left: with the key stolen later its code stays unknown."""
    ((_, realm, issued), *_) = await dumped_challenges(db, challenges, clock)
    code = await current_code(db, ring, issued.challenge_id)
    await challenges.verify(realm, issued.challenge_id, code, CLIENT)
    async with db.every_tenant() as connection:
        row = await connection.fetchrow(
            "SELECT salt, digest FROM challenges WHERE id = $1", codes.read_challenge_id(issued.challenge_id)
        )
    assert tuple(row) == (None, None)


async def test_a_dumped_session_cannot_be_taken_over(
    db: Database, challenges: Challenges, sessions: Sessions, ring: KeyRing, clock: Clock
) -> None:
    """What is stored of refresh tokens and cookies is a hash; whatever is made of it is refused, and ends nothing."""
    realm = Realm.of((await add_tenant(db, clock())).slug)
    api, browser = await challenges.request(realm, CLIENT), await challenges.request(realm, CLIENT)
    signed_in = whole(
        await challenges.verify(realm, api.challenge_id, await current_code(db, ring, api.challenge_id), CLIENT)
    )
    code = await current_code(db, ring, browser.challenge_id)
    paged = whole(await challenges.verify(realm, browser.challenge_id, code, CLIENT, kind="browser"))
    assert signed_in.refresh_token
    assert paged.cookie
    second = await sessions.refresh(signed_in.refresh_token, CLIENT)
    assert second.refresh_token
    async with db.every_tenant() as connection:
        row = await connection.fetchrow("SELECT * FROM sessions WHERE id = $1", signed_in.session_id)
        cookie_row = await connection.fetchrow("SELECT * FROM sessions WHERE id = $1", paged.session_id)

    tenant, session, key_id = row["tenant_id"], row["id"], ring.current.id
    stolen = KeyRing([secrets.token_bytes(32)]).current
    first = RefreshToken(tenant, session, key_id, row["refresh_n"], row["refresh_hash"])
    made = [
        first,
        RefreshToken(tenant, session, key_id, row["refresh_n"] - 1, row["refresh_prior_hash"]),
        RefreshToken(tenant, session, key_id, row["refresh_n"] - 1, row["refresh_prior_hash"]).successor(stolen),
        RefreshToken(tenant, session, stolen.id, row["refresh_n"], row["refresh_hash"]),
        RefreshToken(tenant, session, key_id, row["refresh_n"], keyed_hash(b"", "refresh", row["refresh_prior_hash"])),
    ]
    for token in made:
        with pytest.raises(InvalidToken):
            await sessions.refresh(token.text(), CLIENT)
    hashed = base64url(cookie_row["tenant_id"].bytes + cookie_row["id"].bytes + cookie_row["secret_hash"])
    assert await sessions.authenticate_cookie(hashed) is None
    assert await sessions.authenticate_cookie(paged.cookie) is not None
    assert (await sessions.refresh(second.refresh_token, CLIENT)).refresh_token


async def test_a_dumped_device_opens_no_lane(db: Database, challenges: Challenges, ring: KeyRing, clock: Clock) -> None:
    """The id of a known device without our signature is a stranger's."""
    realm = Realm.of((await add_tenant(db, clock())).slug)
    issued = await challenges.request(realm, CLIENT)
    signed_in = whole(
        await challenges.verify(realm, issued.challenge_id, await current_code(db, ring, issued.challenge_id), CLIENT)
    )
    async with db.every_tenant() as connection:
        row = await connection.fetchrow("SELECT * FROM devices WHERE tenant_id = $1", signed_in.tenant_id)
    for _ in range(2):
        await challenges.request(realm, CLIENT)
    forged = row["tenant_id"].bytes + row["id"].bytes + bytes.fromhex(ring.current.id) + bytes(32)
    with pytest.raises(GatehouseError, match="Too many"):
        await challenges.request(realm, CLIENT, device_token=f"ghd_{base64url(forged)}")
    await challenges.request(realm, CLIENT, device_token=signed_in.device_token)
