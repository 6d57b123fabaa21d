"""Who sees contacts masked can't spell them out: by no list, search, filter, order, cursor, file, story or log.

Generated over the route table: whatever a viewer can read, by API key and by session, with every parameter it takes.
"""

import re
import string
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from app.audit.log import Actor, Client
from app.delivery.branding import Brandings
from app.keys import KeyRing
from app.members.search import Filters as MemberFilters
from app.settings import Settings
from app.storage.db import Database
from app.tenants.search import SORTS
from app.tenants.search import Filters as TenantFilters
from app.web import csrf
from app.web.queries import parameters_of
from tests.conftest import Clock
from tests.contracts.test_queries import handler_of
from tests.http import serve
from tests.matrix import STAFF, Caller, Operation
from tests.town import Town

VIEWERS: Final = [caller for caller in STAFF if caller.role == "viewer"]
OTHERS: Final = [caller for caller in STAFF if caller.role != "viewer"]
# Of the tenant, its member, a colleague, and of whoever gets the answers; each with its earlier one.
EMAILS: Final = {who: f"kestrel{who}@lair.example" for who in ("owner", "member", "colleague", "reply", "before", "ex")}
PHONES: Final = {"owner": "+447700917225", "member": "+447700938446"}
SECRETS: Final = [*EMAILS.values(), *PHONES.values(), *(email[1:] for email in EMAILS.values()), "77009172", "77009384"]
# Whole, in pieces, as they are shown, and as LIKE would have it.
NEEDLES: Final = [
    *EMAILS.values(),
    "kestrelo",
    "estrelm",
    "lair.example",
    "k***@lair.example",
    "+44*****7225",
    *PHONES.values(),
    "07700 917225",
    "7009384",
    "7225",
    "%",
    "kestrel_____@lair.example",
]
# As long and of the same kinds of characters, and nobody's.
_ELSEWHERE: Final = str.maketrans(
    string.ascii_lowercase + string.digits,
    string.ascii_lowercase[13:] + string.ascii_lowercase[:13] + string.digits[5:] + string.digits[:5],
)
_CURSOR: Final = re.compile(r'(?:"(?:next|previous)":"|cursor=)([A-Za-z0-9_-]{8,})')
_PAGE_NOISE: Final = re.compile(r'name="csrf_token" value="[^"]+"|value="[^"]*"')


@pytest.fixture
async def readers(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator["Readers"]:
    async with serve(settings, clock) as http:
        town = Town(http, db, ring, settings, clock)
        await town.furnish()
        readers = Readers(town, {caller.name: await headers_of(town, caller) for caller in STAFF})
        await hide(readers)
        yield readers


async def hide(readers: "Readers") -> None:
    """Gives our tenant, its member and a colleague contacts by which they would be known, and changes them."""
    town = readers.town
    tenant, member = town.ours.tenant, town.ours.member
    colleague = town.admins["manager"]
    async with town.db.every_tenant() as connection:
        await connection.execute(
            "UPDATE tenants SET email = $2, phone_number = $3 WHERE id = $1",
            tenant.id,
            EMAILS["before"],
            PHONES["owner"],
        )
        await connection.execute(
            "UPDATE members SET email = $2, phone_number = $3 WHERE id = $1", member, EMAILS["ex"], PHONES["member"]
        )
        await connection.execute("DELETE FROM admins WHERE email = $1", EMAILS["colleague"])
        await connection.execute(
            "UPDATE admins SET email = $2, name = $2 WHERE id = $1", colleague, EMAILS["colleague"]
        )
    by = next(caller for caller in STAFF if caller.name == "admin: manager")
    for path, body in (
        (f"/tenants/{tenant.slug}", {"email": EMAILS["owner"]}),
        (f"/tenants/{tenant.slug}/members/{member}", {"email": EMAILS["member"]}),
    ):
        changed = await readers.sent(by, "PATCH", f"/api/v1/admin{path}", json=body)
        assert changed.status_code == 200, changed.text
    await Brandings(town.db).set(
        tenant.id,
        {"reply_to": EMAILS["reply"]},
        now=town.clock(),
        actor=Actor("admin", colleague),
        client=Client("page", "203.0.113.9"),
    )


@dataclass(frozen=True, slots=True)
class Readers:
    """The town, and what each of the staff presents."""

    town: Town
    headers: dict[str, dict[str, str]]

    async def sent(self, caller: Caller, method: str, path: str, **options: Any) -> httpx.Response:
        """A call of somebody, with whatever query and body."""
        client = self.town.http.client
        client.cookies.clear()
        return await client.request(method, path, headers=self.headers[caller.name], **options)


async def headers_of(town: Town, caller: Caller) -> dict[str, str]:
    """As the town would send them."""
    answer = await town.call(caller, Operation("GET", "/admin", None), "")
    names = {"cookie", "authorization", "origin", csrf.HEADER.lower()}
    return {name: value for name, value in answer.request.headers.items() if name in names}


def who_reads(callers: list[Caller], operation: Operation) -> list[Caller]:
    """Of them, those who can: a key opens no page."""
    return [caller for caller in callers if not operation.is_page or caller.ticket == "admin session"]


def readable(town: Town) -> Mapping[Operation, set[str]]:
    """What a viewer may read, with the parameters it takes."""
    return {
        operation: set(parameters_of(handler_of(town.http.app, operation)))
        for operation in town.operations
        if operation.safe and operation.least_role == "viewer"
    }


def told(answer: httpx.Response) -> bytes:
    """All of an answer, with the cursors in it opened."""
    cursors = [urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in _CURSOR.findall(answer.text)]
    return b"\n".join([*(name + value for name, value in answer.headers.raw), answer.content, *cursors])


def found(answer: httpx.Response, needle: str) -> str:
    """What an answer tells, but for its repetition of what was asked."""
    text = _PAGE_NOISE.sub("", answer.text).replace(answer.headers["x-request-id"], "")
    for spelled in {needle, str(httpx.QueryParams({"q": needle}))[2:], httpx.URL(f"/{needle}").path[1:]}:
        text = text.replace(spelled, "")
    return f"{answer.status_code} {text}"


async def test_nothing_that_is_read_shows_a_contact(readers: Readers) -> None:
    """Every list, page, file, story and log, in every order and form, cursors opened; whoever may sees them."""
    town = readers.town
    seen: dict[str, set[str]] = {caller.name: set() for caller in STAFF}
    for operation, names in readable(town).items():
        path = operation.path(town.values(town.ours.tenant.slug))
        variants: list[dict[str, str]] = [{}]
        variants += [{"format": form} for form in ("csv", "jsonl") if "format" in names]
        variants += [{"sort": f"{sign}{key}"} for key in SORTS for sign in ("", "-") if "sort" in names]
        variants += [{"limit": "1"}] if "limit" in names else []
        for caller in who_reads([*STAFF], operation):
            for params in variants:
                answer = await readers.sent(caller, "GET", path, params=params)
                assert answer.status_code < 500, (operation, params)
                shown = {secret for secret in SECRETS if secret.encode() in told(answer)}
                seen[caller.name] |= shown
                if caller in VIEWERS:
                    assert shown == set(), f"{operation}?{params} as {caller.name}"
    for caller in OTHERS:
        assert {EMAILS["owner"], EMAILS["member"], EMAILS["reply"], *PHONES.values()} <= seen[caller.name]


async def test_nothing_is_found_by_what_is_masked(readers: Readers) -> None:
    """By whatever parameter, in whatever piece: the answer is that of a text which nobody has."""
    town = readers.town
    tried, differing = 0, []
    for operation, names in readable(town).items():
        path = operation.path(town.values(town.ours.tenant.slug))
        for name in sorted(names):
            for needle in NEEDLES if name in {"search", "q"} else NEEDLES[:1]:
                nobodys = needle.translate(_ELSEWHERE) if needle != "%" else "\\"
                for caller in who_reads(VIEWERS, operation):
                    tried += 1
                    answers = [
                        await readers.sent(caller, "GET", path, params={name: text}) for text in (needle, nobodys)
                    ]
                    if found(answers[0], needle) != found(answers[1], nobodys):
                        differing.append(f"{operation}?{name}={needle} as {caller.name}")
    assert differing == []
    assert tried > 150


async def test_whoever_may_see_them_finds_by_them(readers: Readers) -> None:
    """The same searches, by a manager: found, or the test above would prove nothing."""
    town = readers.town
    slug, base = town.ours.tenant.slug, "/api/v1/admin/tenants"
    for caller in (c for c in STAFF if c.role == "manager"):
        for needle in ("kestrelo", "7009172", EMAILS["owner"]):
            for path in (base, f"{base}/export", *(["/admin/tenants"] if caller.ticket == "admin session" else [])):
                params = {"q" if path.startswith("/admin") else "search": needle}
                assert slug in (await readers.sent(caller, "GET", path, params=params)).text, (path, needle)
        for path in (f"{base}/{slug}/members", f"{base}/{slug}/members/export", f"/admin/tenants/{slug}/members"):
            if path.startswith("/admin") and caller.ticket != "admin session":
                continue
            params = {"q" if path.startswith("/admin") else "search": "estrelm"}
            assert "quetzal resident" in (await readers.sent(caller, "GET", path, params=params)).text, path


def test_nobody_forgets_to_say_it() -> None:
    """Whether contacts may be seen has no default, so a new list doesn't compile to one that shows them."""
    for filters in (TenantFilters, MemberFilters):
        with pytest.raises(TypeError, match="contacts"):
            filters()  # type: ignore[call-arg] # that is the point
