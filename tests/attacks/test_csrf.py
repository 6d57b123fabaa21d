"""Forms that other sites, other people and other programs send. Each is refused and leaves nothing behind."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from app.keys import KeyRing, base64url
from app.storage.db import Database
from app.web import csrf
from tests.conftest import Clock
from tests.http import BASE_URL, Http
from tests.pages import Visitor, session_name, sign_in, visitor
from tests.people import SomeTenant, add_tenant

OTHER_SITE: Final = "https://evil.example"


@dataclass(frozen=True, slots=True)
class Victim:
    """Somebody signed in, with a second session elsewhere and a sign-in under way in the same browser."""

    person: Visitor
    tenant: SomeTenant
    token_before: str


@pytest.fixture
async def victim(http: Http, db: Database, ring: KeyRing, clock: Clock) -> AsyncIterator[Victim]:
    tenant = await add_tenant(db, clock(), policy={"hourly_limit": 10})
    async with visitor(http) as elsewhere, visitor(http) as person:
        await sign_in(elsewhere, db, ring, tenant.slug)
        await person.open(f"/t/{tenant.slug}/login")
        before = person.token
        await sign_in(person, db, ring, tenant.slug)
        yield Victim(person, tenant, before)


def posts(app: Litestar, tenant: SomeTenant) -> list[str]:
    """Every address of the tenant portal's pages that takes a POST, from the application itself."""
    values = {"slug": tenant.slug, "token": "x" * 86, "name": "email"}
    values |= {name: str(uuid4()) for name in ("session_id", "device_id", "consent_id")}
    found = []
    for route in app.routes:
        if isinstance(route, HTTPRoute) and "POST" in route.methods and route.path.startswith(("/t/", "/login")):
            path = route.path_format
            for name, value in values.items():
                path = path.replace(f"{{{name}}}", value)
            found.append(path)
    return found


async def everything(db: Database) -> list[tuple[Any, ...]]:
    """What any form of a tenant could change."""
    async with db.every_tenant() as connection:
        return [
            tuple(row)
            for table in ("sessions", "challenges", "devices", "outbox", "quota", "sign_in_links", "audit_events")
            for row in await connection.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")
        ]


async def foreign_token(http: Http) -> str:
    """A good token of somebody else."""
    async with visitor(http) as attacker:
        await attacker.open("/login")
        return attacker.token


Forgery = Callable[[Http, Victim, KeyRing], Any]


async def _missing(_: Http, __: Victim, ___: KeyRing) -> tuple[dict[str, str], dict[str, str]]:
    return {"csrf_token": ""}, {}


async def _forged(_: Http, __: Victim, ___: KeyRing) -> tuple[dict[str, str], dict[str, str]]:
    return {"csrf_token": base64url(bytes(32))}, {}


async def _not_ascii(_: Http, __: Victim, ___: KeyRing) -> tuple[dict[str, str], dict[str, str]]:
    return {"csrf_token": "ü" * 43}, {}


async def _foreign(http: Http, _: Victim, __: KeyRing) -> tuple[dict[str, str], dict[str, str]]:
    return {"csrf_token": await foreign_token(http)}, {}


async def _from_before_sign_in(_: Http, victim: Victim, __: KeyRing) -> tuple[dict[str, str], dict[str, str]]:
    return {"csrf_token": victim.token_before}, {}


async def _of_the_other_portal(_: Http, victim: Victim, ring: KeyRing) -> tuple[dict[str, str], dict[str, str]]:
    return {"csrf_token": csrf.token(ring.current, "admin", str(victim.person.session))}, {}


def _headers(**headers: str | None) -> Forgery:
    async def forge(_: Http, __: Victim, ___: KeyRing) -> tuple[dict[str, str], dict[str, Any]]:
        return {}, {name.replace("_", "-"): value for name, value in headers.items()}

    return forge


FORGERIES: Final[dict[str, Forgery]] = {
    "no token": _missing,
    "a made-up token": _forged,
    "a token that isn't ASCII": _not_ascii,
    "somebody else's token": _foreign,
    "the token from before sign-in": _from_before_sign_in,
    "a token of the other portal": _of_the_other_portal,
    "another site, by both headers": _headers(Origin=OTHER_SITE, Sec_Fetch_Site="cross-site"),
    "another site, by Origin alone": _headers(Origin=OTHER_SITE, Sec_Fetch_Site=None),
    "another site that lies in one header": _headers(Origin=OTHER_SITE, Sec_Fetch_Site="same-origin"),
    "a neighbour of the domain": _headers(Origin="http://evil.localhost:8000", Sec_Fetch_Site="same-site"),
    "another port": _headers(Origin="http://localhost:8001", Sec_Fetch_Site=None),
    "the address bar": _headers(Origin=None, Sec_Fetch_Site="none"),
    "a sandboxed frame": _headers(Origin="null", Sec_Fetch_Site=None),
    "no browser": _headers(Origin=None, Sec_Fetch_Site=None),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
async def test_no_forged_form_changes_anything(
    http: Http, db: Database, ring: KeyRing, victim: Victim, forgery: Forgery
) -> None:
    """Every POST of every page, with a good cookie: 403 as a page that says what happened, and the database as it was.

    Our own form from before the sign-in leads where the sign-in led, which is inside.
    """
    fields, changed = await forgery(http, victim, ring)
    person = victim.person
    before = await everything(db)
    paths = posts(http.app, victim.tenant)
    assert len(paths) >= 9, paths
    for path in paths:
        data = {"csrf_token": person.token} | fields
        headers = {"Origin": BASE_URL, "Sec-Fetch-Site": "same-origin"} | changed
        present = {name: value for name, value in headers.items() if value is not None}
        answer = await person.client.post(path, data=data, headers=present)
        if forgery is _from_before_sign_in and path == "/login":
            assert answer.status_code == 400, "the page of no organisation is as good as before, and lacks its field"
            continue
        if answer.status_code == 303 and forgery is _from_before_sign_in:
            assert answer.headers["location"] == f"/t/{victim.tenant.slug}/", path
            assert "set-cookie" not in answer.headers
            continue
        assert answer.status_code == 403, path
        assert "You can\u2019t do this" in answer.text or "This page can\u2019t be sent any more" in answer.text
    assert await everything(db) == before
    await person.open(f"/t/{victim.tenant.slug}/")
    assert person.page.url.path == f"/t/{victim.tenant.slug}/"


async def test_the_same_forms_are_taken_when_they_are_ours(http: Http, victim: Victim) -> None:
    """The positive control: with the token of the page and a browser's own headers none is a 403."""
    for path in posts(http.app, victim.tenant):
        await victim.person.open(path if path == "/login" else f"/t/{victim.tenant.slug}/")
        if not victim.person.token:
            await victim.person.open("/login")
        answer = await victim.person.send(path)
        assert answer.status_code != 403, path


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": BASE_URL},
        {"Origin": "http://127.0.0.1:8000", "Host": "127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
    ids=["plain http from PUBLIC_URL", "a developer on 127.0.0.1", "a browser that sends no Origin"],
)
async def test_honest_browsers_come_through(http: Http, db: Database, clock: Clock, headers: dict[str, str]) -> None:
    """What real browsers send from our own page, in each of their ways."""
    tenant = await add_tenant(db, clock())
    async with visitor(http) as person:
        await person.open("/login")
        data = {"csrf_token": person.token, "slug": tenant.slug}
        assert (await person.client.post("/login", data=data, headers=headers)).status_code == 303


async def test_htmx_may_send_the_token_as_a_header(http: Http, db: Database, clock: Clock) -> None:
    """And it counts for no less: a wrong one there is refused although the field is right."""
    tenant = await add_tenant(db, clock())
    async with visitor(http) as person:
        await person.open("/login")
        for token, status in ((person.token, 303), ("x", 403)):
            headers = {"Origin": BASE_URL, "X-CSRF-Token": token, "HX-Request": "true"}
            answer = await person.client.post("/login", data={"slug": tenant.slug}, headers=headers)
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"csrf_token={token}&slug=a&admin=true", None, 400),
        (b"csrf_token={token}&slug=a&slug=b", None, 400),
        (b"csrf_token={token}&csrf_token={token}&slug=a", None, 400),
        (b"csrf_token={token}&slug=a%00b", None, 400),
        (b"csrf_token={token}&slug=%ff", None, 400),
        (b"csrf_token={token}&slug", None, 400),
        (b"csrf_token={token}&slug=" + b"a" * 16_384, None, 413),
        (b'{"csrf_token":"{token}","slug":"a"}', "application/json", 415),
        (b"csrf_token={token}&slug=a", "text/plain", 415),
        (b"csrf_token={token}&slug=a", "multipart/form-data; boundary=x", 415),
    ],
    ids=["unknown field", "field twice", "token twice", "NUL", "not UTF-8", "not a form", "too large", "JSON", "text",
         "multipart"],
)  # fmt: skip
async def test_only_forms_as_they_were_drawn_are_read(
    http: Http, db: Database, content: bytes, kind: str | None, status: int
) -> None:
    """Anything but the fields of the page, each once, in the one encoding, is refused and changes nothing."""
    async with visitor(http) as person:
        await person.open("/login")
        before = await everything(db)
        headers = {
            "Origin": BASE_URL,
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": kind or "application/x-www-form-urlencoded",
        }
        body = content.replace(b"{token}", person.token.encode())
        answer: httpx.Response = await person.client.post("/login", content=body, headers=headers)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        assert await everything(db) == before


async def test_a_chosen_session_is_refused_and_replaced(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Session fixation: what an attacker planted opens nothing, is taken away, and signing in gives a new one."""
    tenant = await add_tenant(db, clock())
    chosen = base64url(bytes(64))
    async with visitor(http) as person:
        person.client.cookies.set(session_name(tenant.slug), chosen, domain="localhost.local")
        person.client.cookies.set("gh_pre", "chosen", domain="localhost.local")
        await person.open(f"/t/{tenant.slug}/")
        assert person.page.url.path == f"/t/{tenant.slug}/login"
        assert person.session is None
        assert person.cookies["gh_pre"] != "chosen"
        pre = person.cookies["gh_pre"]
        await sign_in(person, db, ring, tenant.slug)
        assert person.session not in {None, chosen}
        assert "gh_pre" not in person.cookies, pre


async def test_nobody_ends_a_session_of_another_tenant(
    http: Http, db: Database, ring: KeyRing, clock: Clock, victim: Victim
) -> None:
    """A good form and a good session, but somebody else's ids: 404, or the other tenant's sign-in page."""
    mallory = await add_tenant(db, clock())
    async with db.every_tenant() as connection:
        theirs = await connection.fetchval(
            "SELECT id FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL LIMIT 1", victim.tenant.id
        )
        device = await connection.fetchval("SELECT id FROM devices WHERE tenant_id = $1 LIMIT 1", victim.tenant.id)
    async with visitor(http) as attacker:
        await sign_in(attacker, db, ring, mallory.slug)
        before = await everything(db)
        for what in (f"sessions/{theirs}/end", f"devices/{device}/forget"):
            assert (await attacker.send(f"/t/{mallory.slug}/{what}")).status_code == 404
            answer = await attacker.send(f"/t/{victim.tenant.slug}/{what}")
            assert answer.headers["location"] == f"/t/{victim.tenant.slug}/login"
        await attacker.send(f"/t/{victim.tenant.slug}/sessions/end-others")
        await attacker.send(f"/t/{victim.tenant.slug}/logout")
        assert await everything(db) == before


async def test_a_cookie_of_one_portal_opens_nothing_in_the_other(http: Http, victim: Victim) -> None:
    """A tenant's session under the admins' cookie name is nobody's."""
    async with visitor(http) as person:
        person.client.cookies.set("gh_admin", str(victim.person.session), domain="localhost.local")
        await person.open("/admin")
        assert person.page.url.path == "/admin/sign-in"
