"""S4, many people at once: hundreds of tenants ask at the same moment, and nobody gets another's code or session."""

import asyncio
from typing import Any

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import SomeTenant, add_tenant, count, current_code

TENANTS = 300


async def test_everybody_gets_their_own(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """300 requests in flight together, then 300 sign-ins: each challenge, code and session is its tenant's own."""
    tenants = [await add_tenant(db, clock(), name=f"Tenant {n}") for n in range(TENANTS)]
    async with serve(settings, clock) as http:
        asked = await asyncio.gather(*(http.otp(tenant.slug, "request") for tenant in tenants))
        assert {answer.status_code for answer in asked} == {202}
        challenges = [answer.json()["challenge_id"] for answer in asked]
        assert len(set(challenges)) == TENANTS
        codes = [await current_code(db, ring, challenge) for challenge in challenges]

        # At the neighbour's door a right code opens nothing, and costs its owner no attempt.
        shifted = [*tenants[1:], tenants[0]]
        strayed = await asyncio.gather(
            *(verify(http, tenant, *pair) for tenant, *pair in zip(shifted, challenges, codes, strict=True))
        )
        assert {status for status, _ in strayed} == {410}

        signed_in = await asyncio.gather(
            *(verify(http, tenant, *pair) for tenant, *pair in zip(tenants, challenges, codes, strict=True))
        )
        assert {status for status, _ in signed_in} == {200}
        whose = await asyncio.gather(*(http.auth("GET", "me", body["access_token"]) for _, body in signed_in))
        assert [answer.json()["tenant"]["slug"] for answer in whose] == [tenant.slug for tenant in tenants]
        assert [body["subject"]["id"] for _, body in signed_in] == [str(tenant.id) for tenant in tenants]

    ids = [tenant.id for tenant in tenants]
    trail = "SELECT count(*) FROM audit_events WHERE tenant_id = ANY($1) AND action = $2"
    assert await count(db, "SELECT count(*) FROM sessions WHERE tenant_id = ANY($1)", ids) == TENANTS
    assert await count(db, trail, ids, "code.requested") == TENANTS
    assert await count(db, trail, ids, "session.started") == TENANTS
    assert await count(db, "SELECT sum(attempts) FROM challenges WHERE tenant_id = ANY($1)", ids) == TENANTS


async def verify(http: Http, tenant: SomeTenant, challenge: str, code: str) -> tuple[int, dict[str, Any]]:
    """Status and body of one attempt."""
    answer = await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})
    return answer.status_code, answer.json()
