"""What an admin whose sign-in is old may still do: what helps or stops an attack, nothing that decides who gets in.

ASVS 5.0, 7.5.3. A stolen session is worth less the older it is.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.web import csrf
from tests.conftest import Clock
from tests.http import BASE_URL, serve
from tests.matrix import STAFF, Operation
from tests.town import Town

_OWNER: Final = next(caller for caller in STAFF if caller.name == "admin: owner")
_AGE: Final = """
UPDATE sessions SET authenticated_at = authenticated_at - interval '61 minutes' WHERE subject_kind = 'admin'
"""
_API, _PAGE = "/api/v1/admin", "/admin"
_TENANT, _MEMBER = "/tenants/{slug:str}", "/tenants/{slug:str}/members/{member_id:uuid}"

# Every call of an admin that changes something stands here; a new one is to be decided about.
YOUNG: Final = {
    f"POST {_API}/tenants",
    f"DELETE {_API}{_TENANT}",
    f"DELETE {_API}{_TENANT}/factors",
    f"POST {_API}{_TENANT}/sign-in-link",
    f"POST {_API}{_TENANT}/members",
    f"POST {_API}{_TENANT}/members/codes",
    f"PATCH {_API}{_MEMBER}",
    f"DELETE {_API}{_MEMBER}",
    f"DELETE {_API}{_MEMBER}/factors",
    f"POST {_API}/admins",
    f"PATCH {_API}/admins/{{admin_id:uuid}}",
    f"DELETE {_API}/admins/{{admin_id:uuid}}",
    f"POST {_API}/api-keys",
    f"DELETE {_API}/api-keys/{{key_id:uuid}}",
    f"POST {_PAGE}/tenants/new",
    f"POST {_PAGE}{_TENANT}/contact",
    f"POST {_PAGE}{_TENANT}/resume",
    f"POST {_PAGE}{_TENANT}/sign-in-link",
    f"POST {_PAGE}{_TENANT}/reset-factors",
    f"POST {_PAGE}{_TENANT}/members/new",
    f"POST {_PAGE}{_TENANT}/members/codes",
    f"POST {_PAGE}{_TENANT}/members/import",
    f"POST {_PAGE}{_MEMBER}/contact",
    f"POST {_PAGE}{_MEMBER}/details",
    f"POST {_PAGE}{_MEMBER}/access",
    f"POST {_PAGE}{_MEMBER}/suspend",
    f"POST {_PAGE}{_MEMBER}/resume",
    f"POST {_PAGE}{_MEMBER}/sign-in-link",
    f"POST {_PAGE}{_MEMBER}/reset-factors",
    f"POST {_PAGE}{_MEMBER}/export",
    f"POST {_PAGE}{_MEMBER}/erase",
}
# It depends on what is sent: see `PARTS`.
PARTLY: Final = {
    f"PATCH {_API}{_TENANT}",
    f"PUT {_API}{_TENANT}/branding",
    f"POST {_API}/tenants/import",
    f"POST {_API}{_TENANT}/members/import",
    f"POST {_PAGE}{_TENANT}/branding",
}
# Quick, because it stops or helps, or lets nobody in.
ANY: Final = {
    f"POST {_API}{_TENANT}/unlock",
    f"POST {_API}{_TENANT}/clear-failing",
    f"POST {_API}{_TENANT}/test-message",
    f"POST {_API}{_MEMBER}/clear-failing",
    f"POST {_API}{_MEMBER}/invite",
    f"POST {_API}{_MEMBER}/unlock",
    f"POST {_PAGE}{_TENANT}/suspend",
    f"POST {_PAGE}{_TENANT}/unlock",
    f"POST {_PAGE}{_TENANT}/clear-failing",
    f"POST {_PAGE}{_TENANT}/test-message",
    f"POST {_PAGE}{_TENANT}/delivery",
    f"POST {_PAGE}{_TENANT}/details",
    f"POST {_PAGE}{_TENANT}/sessions/{{session_id:uuid}}/end",
    f"POST {_PAGE}{_TENANT}/sessions/end-all",
    f"POST {_PAGE}{_MEMBER}/unlock",
    f"POST {_PAGE}{_MEMBER}/clear-failing",
    f"POST {_PAGE}{_MEMBER}/invite",
    f"POST {_PAGE}{_MEMBER}/sessions/{{session_id:uuid}}/end",
    f"POST {_PAGE}{_MEMBER}/sessions/end-all",
}
# What leaves as a file. Contacts take a young sign-in with them; the logs have none in them.
FILES_YOUNG: Final = {
    f"GET {_API}/tenants/export",
    f"GET {_API}{_TENANT}/members/export",
    f"GET {_API}{_MEMBER}/export",
}
FILES_ANY: Final = {f"GET {_API}/deliveries", f"GET {_API}/events"}
# One's own second factor has a rule of its own: a sign-in of the last ten minutes.
OWN: Final = f"POST {_PAGE}/second-factor"


@pytest.fixture
async def town(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Town]:
    async with serve(settings, clock) as http:
        town = Town(http, db, ring, settings, clock)
        await town.furnish()
        yield town


async def asks(town: Town, operation: Operation, **sent: Any) -> bool:
    """Whether an owner with an old sign-in is asked to sign in again; `sent` takes the place of the usual body."""
    ticket = await town.sign_in(_OWNER)
    async with town.db.every_tenant() as connection:
        await connection.execute(_AGE)
    if sent:
        token = csrf.token(town.ring.current, "admin", ticket.session["admin"])
        own = {"Cookie": f"gh_admin={ticket.cookies['gh_admin']}", "Origin": BASE_URL, csrf.HEADER: token}
        path = operation.path(town.values(town.ours.tenant.slug))
        town.http.client.cookies.clear()
        answer = await town.http.client.request(
            operation.method, path, **{**sent, "headers": own | sent.get("headers", {})}
        )
    else:
        town.held[_OWNER.name] = ticket
        answer = await town.call(_OWNER, operation, town.ours.tenant.slug)
    assert answer.status_code < 500, operation
    if operation.is_page:
        to = answer.headers.get("location", "")
        return answer.status_code == 303 and to.startswith("/admin/sign-in?") and to.endswith("why=again")
    return answer.status_code == 403 and answer.json()["detail"].endswith("Sign in again for this.")


async def test_every_change_says_how_young_a_sign_in_it_needs(town: Town) -> None:
    """From the route table: each is asked for one, or for none, as it is listed here; a new one fails until it is."""
    changes = {
        str(operation): operation
        for operation in town.operations
        if operation.template.startswith((_PAGE, _API))
        and not operation.safe
        and operation.least_role != "anyone"
        and not str(operation).startswith(OWN)
    }
    assert set(changes) == YOUNG | PARTLY | ANY
    found = {name: await asks(town, changes[name]) for name in sorted(YOUNG | ANY)}
    assert {name for name, asked in found.items() if asked} == YOUNG


CSV: Final = {"Content-Type": "text/csv"}
PARTS: Final[list[tuple[str, dict[str, Any], bool]]] = [
    (f"PATCH {_API}{_TENANT}", {"json": {"email": "new@elsewhere.example"}}, True),
    (f"PATCH {_API}{_TENANT}", {"json": {"policy": {"registration": "open"}}}, True),
    (f"PATCH {_API}{_TENANT}", {"json": {"status": "active"}}, True),
    (f"PATCH {_API}{_TENANT}", {"json": {"status": "suspended"}}, False),
    (f"PATCH {_API}{_TENANT}", {"json": {"name": "Another name"}}, False),
    (f"PUT {_API}{_TENANT}/branding", {"json": {"reply_to": "eve@elsewhere.example"}}, True),
    (f"PUT {_API}{_TENANT}/branding", {"json": {"colour": "#123456"}}, False),
    (f"POST {_API}/tenants/import", {"content": b"slug,name\n", "headers": CSV}, True),
    (f"POST {_API}/tenants/import", {"content": b"slug,name\n", "headers": CSV, "params": {"dry_run": "true"}}, False),
    (f"POST {_API}{_TENANT}/members/import", {"content": b"name,email\n", "headers": CSV}, True),
    (
        f"POST {_API}{_TENANT}/members/import",
        {"content": b"name,email\n", "headers": CSV, "params": {"dry_run": "true"}},
        False,
    ),
    (f"POST {_PAGE}{_TENANT}/branding", {"data": {"version": "1", "reply_to": "eve@elsewhere.example"}}, True),
    (f"POST {_PAGE}{_TENANT}/branding", {"data": {"version": "1", "code_in_subject": "yes"}}, False),
]


async def test_what_is_sent_decides_it(town: Town) -> None:
    """Contacts, policies and the end of a suspension need a young one; a suspension, a name and a look don't."""
    known = {str(operation): operation for operation in town.operations}
    assert {name for name, _, _ in PARTS} == PARTLY
    found = [(name, sent, await asks(town, known[name], **sent)) for name, sent, _ in PARTS]
    assert found == PARTS


async def test_exports_of_contacts_need_a_young_one(town: Town) -> None:
    """Whatever answers with a file is listed here; a viewer's, masked, as well."""
    document = town.http.app.openapi_schema.to_schema()["paths"]

    def is_file(operation: Operation) -> bool:
        path = operation.template.replace(":str}", "}").replace(":uuid}", "}")
        answers = document.get(path, {}).get("get", {}).get("responses", {})
        return "export" in path or "text/csv" in answers.get("200", {}).get("content", {})

    files = {
        str(operation): operation
        for operation in town.operations
        if operation.safe and operation.template.startswith((_PAGE, _API)) and is_file(operation)
    }
    assert files.keys() == FILES_YOUNG | FILES_ANY
    assert {name for name in FILES_YOUNG | FILES_ANY if await asks(town, files[name])} == FILES_YOUNG
    town.held.clear()
    for name in FILES_YOUNG:
        answer = await town.call(_OWNER, files[name], town.ours.tenant.slug)
        assert answer.status_code == 200, name


async def test_a_repetition_needs_what_the_first_call_needed(town: Town) -> None:
    """An Idempotency-Key opens nothing: an old session that sends it again is asked to sign in again, everywhere."""
    done = 0
    for name in sorted(YOUNG):
        operation = next(operation for operation in town.operations if str(operation) == name)
        if operation.method != "POST" or operation.is_page:
            continue
        key = {"Idempotency-Key": f"again {name}"}
        first = await town.call(_OWNER, operation, town.spare.slug, **key)
        done += first.status_code < 300
        town.held[_OWNER.name] = await town.sign_in(_OWNER)
        async with town.db.every_tenant() as connection:
            await connection.execute(_AGE)
        again = await town.call(_OWNER, operation, town.spare.slug, **key)
        assert again.status_code == 403, (name, first.text, again.text)
        assert again.json()["detail"].endswith("Sign in again for this.")
    assert done >= 3


async def test_the_form_of_a_new_tenant_asks_before_it_is_filled_in(town: Town) -> None:
    """So that nothing that was typed is lost; with a young sign-in it opens."""
    form = next(o for o in town.operations if str(o) == f"GET {_PAGE}/tenants/new")
    assert await asks(town, form)
    town.held.clear()
    assert (await town.call(_OWNER, form, "")).status_code == 200
