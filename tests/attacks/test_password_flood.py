"""Passwords are compared few at a time: a flood of them gets a quick 503, and keeps nobody from a code."""

import asyncio
import resource
from collections import Counter

import pytest

from app.auth.passwords import Passwords
from app.errors import Unavailable
from app.settings import Settings
from app.storage.db import Database
from tests.attacks.test_members import EMAIL, SHOP, same, with_password
from tests.conftest import Clock
from tests.http import serve
from tests.people import add_member, add_tenant

_FLOOD = 200
_LINE = 20
_MIB = 1024


async def test_a_full_line_takes_nobody_on(settings: Settings, clock: Clock, db: Database) -> None:
    """Whoever finds it full is refused without a wait, and a place that was left is free again, however it was left."""
    passwords = Passwords()
    waiting = [asyncio.create_task(passwords.hash(f"password {n}")) for n in range(_LINE)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable), passwords.place():
        pytest.fail("there was a place")
    for task in waiting[_LINE // 2 :]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for _ in range(2):
        assert all(await asyncio.gather(*(passwords.hash("password") for _ in range(_LINE // 2))))


async def test_a_flood_of_passwords(settings: Settings, clock: Clock, db: Database) -> None:
    """Some are compared, the rest refused with 503 and when to come again, alike for members and nobody, without a try
    spent; codes go on, and memory stays what a few hashes take.
    """
    tenant = await add_tenant(db, clock(), policy=SHOP)
    plain = await add_tenant(db, clock())
    member = await add_member(db, clock(), tenant, email=EMAIL)
    async with serve(settings, clock) as http:
        await with_password(http, db, member)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        flood = [
            asyncio.create_task(http.otp(tenant.slug, "request", {"identifier": who, "password": "guess guess"}))
            for n in range(_FLOOD // 2)
            for who in (EMAIL, f"nobody-{n}@home.example")
        ]
        codes = [await http.otp(plain.slug, "request") for _ in range(3)]
        answers = await asyncio.gather(*flood)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        told = Counter(answer.status_code for answer in answers)
        assert [answer.status_code for answer in codes] == [202] * 3
        assert set(told) <= {401, 429, 503}
        assert told[503] > told[401] > 0
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.json()["code"] for answer in refused} == {"unavailable"}
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
        of_member = next(a for a, n in zip(answers, range(_FLOOD), strict=True) if a.status_code == 503 and n % 2 == 0)
        of_nobody = next(a for a, n in zip(answers, range(_FLOOD), strict=True) if a.status_code == 503 and n % 2 == 1)
        same(of_member, of_nobody)
        assert grown < 400 * _MIB
    async with db.tenant(tenant.id) as connection:
        wrong = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'password.wrong'"
        assert await connection.fetchval(wrong, tenant.id) <= told[401]
