"""Role x route x tenant over every route of the application, from its own route table.

One tenant's rows, and everybody else: strangers, another tenant's people, who only half signed in, whose session is
over, keys. None of them is let in where `tests/matrix.py` doesn't say so, sees a byte of that tenant, or changes a row.
"""

from collections.abc import AsyncIterator, Sequence
from urllib.parse import unquote_to_bytes
from uuid import UUID

import httpx
import pytest
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from admin_portal.api.guards import VIEWER, guarded
from app.errors import ConfigurationError
from app.keys import KeyRing
from app.masking import mask_phone
from app.settings import Settings
from app.storage.db import Database
from app.web import csrf
from tests.conftest import Clock
from tests.http import serve
from tests.matrix import STAFF, Caller, Operation, let_in, operations, rule_for
from tests.rows import changes, dump_of, texts
from tests.town import Town


@pytest.fixture(scope="module")
async def town(settings: Settings, db: Database, ring: KeyRing) -> AsyncIterator[Town]:
    clock = Clock()
    async with serve(settings, clock) as http:
        town = Town(http, db, ring, settings, clock)
        await town.furnish()
        yield town


async def secrets_of(town: Town) -> frozenset[bytes]:
    """By what our tenant would be known again: whatever stands in its rows, and not in another tenant's as well."""
    ours = texts(await dump_of(town.db, town.ours.tenant.id))
    theirs = texts(await dump_of(town.db, town.theirs.tenant.id))
    return frozenset({*(ours - theirs), mask_phone(town.ours.tenant.phone_number or "").encode()})


def shown(answer: httpx.Response, secrets: frozenset[bytes]) -> list[bytes]:
    """What of them stands in an answer, and was not in the question."""
    asked = answer.request.url.raw_path + unquote_to_bytes(answer.request.content)
    told = b"\n".join([*(name + b": " + value for name, value in answer.headers.raw), answer.content])
    return [text for text in secrets if text in told and text not in asked]


async def faults_of(
    town: Town, callers: Sequence[Caller], found: Sequence[Operation], secrets: frozenset[bytes]
) -> list[str]:
    """What these outsiders could do that they shouldn't: one sentence each."""
    faults = []
    for operation in found:
        rule = rule_for(operation)
        # At our tenant's address with their challenge, and at their own address with our ids and challenge.
        slugs = {"ours": town.ours.tenant.slug, "theirs": town.theirs.tenant.slug}
        for whose, slug in slugs.items() if "{slug" in operation.template else [("no", "")]:
            for caller in callers:
                answer = await town.call(caller, operation, slug)
                case = f"{operation} at {whose} address as {caller.name}"
                if answer.status_code >= 500:
                    faults.append(f"{case}: stumbled, {answer.status_code}")
                if rule(caller, operation, slug) not in {None, let_in(answer, operation, slug)}:
                    faults.append(f"{case}: not as declared, {answer.status_code}")
                faults += [f"{case}: shows {text!r}" for text in shown(answer, secrets)]
    return faults


async def test_no_outsider_gets_or_changes_a_byte(town: Town) -> None:
    """Whoever isn't the tenant's or the staff's: let in where declared, shown nothing of it, and its rows stay."""
    secrets = await secrets_of(town)
    for text in ("works", "resident", "guarded", "laptop", "browser", "brand", "terms"):
        assert f"quetzal {text}".encode() in secrets
    assert {str(town.ours.member).encode(), town.ours.tenant.slug.encode()} <= secrets
    before = await dump_of(town.db, town.ours.tenant.id)
    assert len(town.operations) >= 110
    assert await faults_of(town, town.outsiders, town.operations, secrets) == []
    assert changes(before, await dump_of(town.db, town.ours.tenant.id)) == []


async def test_everybody_else_is_let_in_where_declared(town: Town) -> None:
    """The tenant's own people and the staff, by role: each route opens to exactly those whom the rules name."""
    wrong = []
    for operation in town.operations:
        rule = rule_for(operation)
        for caller in (*town.insiders, *STAFF):
            # The staff may suspend what they work on: a tenant of its own.
            slug = town.spare.slug if caller in STAFF else town.ours.tenant.slug
            answer = await town.call(caller, operation, slug)
            if rule(caller, operation, slug) not in {None, let_in(answer, operation, slug)}:
                wrong.append((str(operation), caller.name, answer.status_code))
    assert wrong == []


async def test_a_cookie_alone_changes_nothing(town: Town) -> None:
    """Every form, and every change by the admin API, is refused without the token of its page, or from elsewhere."""
    callers = {caller.name: caller for caller in (*town.insiders, *STAFF)}
    for operation in town.operations:
        of_staff = operation.template.startswith(("/admin", "/api/v1/admin"))
        if operation.safe or not (operation.is_page or of_staff):
            continue
        caller = callers["admin: owner" if of_staff else "ours: member: browser"]
        for attack in (
            {csrf.HEADER: "x" * 43},
            {"Origin": "https://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            answer = await town.call(caller, operation, town.ours.tenant.slug, **attack)
            assert answer.status_code == 403, (str(operation), attack, answer.status_code)


def test_what_is_not_changed_is_only_read(town: Town) -> None:
    """In the admin API no GET asks for more than a viewer, and nothing but a GET is a viewer's.

    One person's data is the exception: it is whole and unmasked, for that person.
    """
    api = [o for o in town.operations if o.template.startswith("/api/v1/admin")]
    assert {o.template for o in api if o.safe != (o.least_role == "viewer")} == {
        "/api/v1/admin/tenants/{slug:str}/members/{member_id:uuid}/export"
    }


def test_a_call_without_a_role_does_not_start() -> None:
    """Forgetting to say who may call is no door left open, but a start that fails."""

    @get("/secrets", sync_to_thread=False)
    def forgotten() -> None:
        """A handler without a least role."""

    @get("/misspelt", opt={"least_role": "anybody"}, sync_to_thread=False)
    def misspelt() -> None:
        """A handler whose least role isn't one."""

    @get("/fine", opt=VIEWER, sync_to_thread=False)
    def fine() -> None:
        """A handler as it should be."""

    handlers: list[HTTPRouteHandler] = [forgotten, misspelt]
    for handler in handlers:
        with pytest.raises(ConfigurationError, match=r"declares no least role"):
            guarded([fine, handler], [])


async def test_the_matrix_notices(town: Town) -> None:
    """Routes as they must not be: one that shows, one that lets in, one that writes, one that nobody declared."""
    tenant, member = town.ours.tenant, town.ours.member

    @get("/t/{slug:str}/login/peek", sync_to_thread=False)
    def shows(slug: FromPath[str]) -> str:
        return tenant.email or ""

    @get("/t/{slug:str}/ajar", sync_to_thread=False)
    def lets_in(slug: FromPath[str]) -> str:
        return ""

    @post("/api/v1/tenants/{slug:str}/rename")
    async def writes(slug: FromPath[str]) -> None:
        async with town.db.every_tenant() as connection:
            await connection.execute("UPDATE members SET name = 'x' WHERE id = $1", member)

    @get("/elsewhere", sync_to_thread=False)
    def undeclared() -> str:
        return ""

    @get("/t/{slug:str}/gadgets/{gadget_id:uuid}", sync_to_thread=False)
    def unfillable(slug: FromPath[str], gadget_id: FromPath[UUID]) -> str:
        return ""

    for handler in (shows, lets_in, writes, undeclared, unfillable):
        town.http.app.register(handler)
    added = {o.template.split("/")[-1]: [o] for o in operations(town.http.app) if o not in town.operations}
    assert len(added) == 5
    secrets, strangers = await secrets_of(town), town.outsiders[:1]

    peek = "GET /t/{slug:str}/login/peek at theirs address as stranger"
    assert f"{peek}: shows {(tenant.email or '').encode()!r}" in await faults_of(
        town, strangers, added["peek"], secrets
    )
    assert await faults_of(town, strangers, added["ajar"], secrets) == [
        f"GET /t/{{slug:str}}/ajar at {whose} address as stranger: not as declared, 200" for whose in ("ours", "theirs")
    ]
    before = await dump_of(town.db, tenant.id)
    assert await faults_of(town, strangers, added["rename"], secrets) == []
    assert {fault.split(":")[0] for fault in changes(before, await dump_of(town.db, tenant.id))} == {"members"}
    with pytest.raises(AssertionError, match=r"GET /elsewhere: no rule says who may call it\. Add"):
        await faults_of(town, strangers, added["elsewhere"], secrets)
    with pytest.raises(AssertionError, match=r"nobody knows what to put for \{gadget_id\}"):
        await faults_of(town, strangers, added["{gadget_id:uuid}"], secrets)
