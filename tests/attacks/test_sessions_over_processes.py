"""Sessions where several web processes answer: none honours for long what another has ended."""

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.http import bearer
from tests.people import add_tenant, current_code, wrong
from tests.processes import web_process

# architecture.md, "Tokens and keys": logout works within 5 seconds on every web process, without Valkey.
_EFFECTIVE_WITHIN: Final = 5.0

Json = dict[str, Any]


class Front:
    """One web process, from outside."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def otp(self, slug: str, verb: str, body: Json | None = None) -> httpx.Response:
        return await self.client.post(f"/api/v1/tenants/{slug}/otp/{verb}", json=body or {})

    async def me(self, tokens: Json) -> int:
        answer = await self.client.get("/api/v1/auth/me", headers=bearer(tokens["access_token"]))
        return answer.status_code

    async def refresh(self, tokens: Json) -> httpx.Response:
        return await self.client.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})

    async def logout(self, tokens: Json) -> int:
        answer = await self.client.post("/api/v1/auth/logout", headers=bearer(tokens["access_token"]))
        return answer.status_code


async def start(stack: AsyncExitStack, settings: Settings, log: Path, **changes: str) -> Front:
    url = await stack.enter_async_context(web_process(settings, log, **changes))
    return Front(await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30)))


async def sign_in(front: Front, db: Database, ring: KeyRing) -> Json:
    slug = (await add_tenant(db, datetime.now(UTC))).slug
    challenge = (await front.otp(slug, "request")).json()["challenge_id"]
    typed = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
    tokens: Json = (await front.otp(slug, "verify", typed)).json()
    return tokens


async def test_two_processes_and_a_restart(settings: Settings, db: Database, ring: KeyRing, tmp_path: Path) -> None:
    """A sign-out works on the other process within 5 seconds, without Valkey too; a used token stays used forever."""
    async with AsyncExitStack() as stack:
        one, other = await asyncio.gather(
            start(stack, settings, tmp_path / "one.log"),
            # This one can't be told anything: its Valkey is away.
            start(stack, settings, tmp_path / "other.log", REDIS_URL="redis://127.0.0.1:1/0"),
        )
        leaving, staying = await sign_in(one, db, ring), await sign_in(one, db, ring)
        assert [await other.me(tokens) for tokens in (leaving, staying)] == [200, 200]

        assert await one.logout(leaving) == 204
        signed_out = time.monotonic()
        assert await one.me(leaving) == 401
        while await other.me(leaving) == 200:
            assert time.monotonic() - signed_out < _EFFECTIVE_WITHIN, "still signed in elsewhere"
            # The other process forgets by the clock; there is no event to wait for, which is the point.
            await asyncio.sleep(0.1)
        assert (await other.refresh(leaving)).status_code == 401
        assert await other.me(staying) == 200

        second = (await one.refresh(staying)).json()
        third = (await other.refresh(second)).json()
        assert third["refresh_token"] not in {second["refresh_token"], staying["refresh_token"]}

    # Both processes are gone, and with them whatever they had in memory.
    async with AsyncExitStack() as stack:
        anew = await start(stack, settings, tmp_path / "anew.log")
        assert await anew.me(third) == 200
        replayed = await anew.refresh(staying)
        assert (replayed.status_code, replayed.json()["code"]) == (401, "invalid-token")
        assert (await anew.refresh(third)).status_code == 401, "reuse ends the family"
        assert await anew.me(third) == 401


async def test_caps_hold_over_processes(settings: Settings, db: Database, ring: KeyRing, tmp_path: Path) -> None:
    """200 wrong codes, 50 right ones and 100 requests, spread over two processes: 5 compared, 1 session, 3 sent."""
    async with AsyncExitStack() as stack:
        fronts = await asyncio.gather(
            *(start(stack, settings, tmp_path / f"{number}.log", LOG_LEVEL="WARNING") for number in range(2))
        )

        async def everywhere(times: int, slug: str, verb: str, body: Json | None = None) -> list[httpx.Response]:
            return await asyncio.gather(*(fronts[n % 2].otp(slug, verb, body) for n in range(times)))

        guessed, entered, asked = [(await add_tenant(db, datetime.now(UTC))).slug for _ in range(3)]
        challenge = (await fronts[0].otp(guessed, "request")).json()["challenge_id"]
        code = await current_code(db, ring, challenge)
        answers = await everywhere(200, guessed, "verify", {"challenge_id": challenge, "code": wrong(code)})
        left = sorted(answer.json()["attempts_left"] for answer in answers if answer.status_code == 401)
        assert left == [1, 2, 3, 4]
        assert sum(answer.status_code == 429 for answer in answers) == 196
        (late,) = await everywhere(1, guessed, "verify", {"challenge_id": challenge, "code": code})
        assert (late.status_code, late.json()["code"]) == (429, "too-many-attempts")

        challenge = (await fronts[0].otp(entered, "request")).json()["challenge_id"]
        typed = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
        answers = await everywhere(50, entered, "verify", typed)
        assert sum(answer.status_code == 200 for answer in answers) == 1
        assert {answer.status_code for answer in answers} <= {200, 410, 429}

        answers = await everywhere(100, asked, "request")
        assert sum(answer.status_code == 202 for answer in answers) == 3
        assert {answer.status_code for answer in answers} == {202, 429}
