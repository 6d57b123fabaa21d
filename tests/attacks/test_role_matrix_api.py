"""Role x route x tenant over the admin API, from the application's route table: a new route takes part by itself."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID, uuid4

import httpx
import pytest
from litestar import Litestar, get
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from admin_portal.api.guards import VIEWER, guarded
from app.asgi import create_app
from app.audit.log import Actor, Client
from app.auth.api_keys import ApiKeys
from app.auth.links import Links
from app.auth.sessions import Sessions, SignIn
from app.errors import ConfigurationError
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.web import csrf
from tests.adminapi import PREFIX, ROLES, admin_api
from tests.admins import add_admin
from tests.conftest import Clock
from tests.http import BASE_URL, Http, bearer, serve
from tests.people import SomeTenant, add_tenant, current_code

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Route:
    """One operation, with what its path is filled in with so that no caller changes anything."""

    method: str
    template: str
    least_role: str

    def path(self, slug: str) -> str:
        """Slugs are the tenant's, ids are nobody's."""
        return re.sub(r"\{([^}:]+)[^}]*\}", lambda m: slug if m[1] == "slug" else str(uuid4()), self.template)


def routes_of(app: Litestar) -> Sequence[Route]:
    """Every operation of the admin API."""
    found = []
    for route in app.routes:
        if not isinstance(route, HTTPRoute) or not route.path.startswith(PREFIX):
            continue
        for handler in route.route_handlers:
            found += [
                Route(method, route.path, handler.opt["least_role"])
                for method in handler.http_methods
                if method in _METHODS
            ]
    return found


@dataclass(frozen=True, slots=True)
class Matrix:
    """The routes, and everybody who might call them: the headers that they send."""

    http: Http
    routes: Sequence[Route]
    ours: SomeTenant
    theirs: SomeTenant
    callers: dict[str, dict[str, str]]

    async def call(self, caller: str, route: Route, slug: str) -> httpx.Response:
        """One call. Neither its body nor its If-Match is ever right, so that nothing is lost by it."""
        headers = {"Content-Type": "application/json", "If-Match": '"0"'} | self.callers[caller]
        content = b"{" if route.method != "GET" else None
        return await self.http.client.request(route.method, route.path(slug), headers=headers, content=content)


async def browser_cookie(links: Links, tenant_id: UUID, subject: tuple[Literal["tenant", "admin"], UUID]) -> str:
    """A browser session."""
    entered = await links.use(await links.create(tenant_id, subject, Actor("operator"), Client("cli")), Client("page"))
    assert isinstance(entered, SignIn)
    assert entered.cookie
    return entered.cookie


@pytest.fixture
async def matrix(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Matrix]:
    ours, theirs = await add_tenant(db, clock()), await add_tenant(db, clock())
    sessions = Sessions(db, ring, settings, clock)
    links = Links(db, sessions, clock)
    async with serve(settings, clock) as http:
        callers: dict[str, dict[str, str]] = {"nobody": {}}
        for role in ROLES:
            callers[f"{role} key"] = bearer((await admin_api(http, db, clock, role)).key)
            admin = await add_admin(db, clock, role)
            cookie = await browser_cookie(links, SYSTEM_TENANT, ("admin", admin.id))
            callers[f"{role} session"] = {
                "Cookie": f"gh_admin={cookie}",
                "Origin": BASE_URL,
                csrf.HEADER: csrf.token(ring.current, "admin", cookie),
            }
        keys = ApiKeys(db, clock)
        key, text = await keys.create("gone", "owner", actor=Actor("operator"), client=Client("cli"))
        await keys.revoke(key.id, actor=Actor("operator"), client=Client("cli"))
        callers["revoked key"] = bearer(text)
        callers["forged key"] = bearer(f"{callers['owner key']['Authorization'][len('Bearer ') : -4]}AAAA")
        for name, tenant in (("our tenant", ours), ("their tenant", theirs)):
            asked = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
            body = {"challenge_id": asked, "code": await current_code(db, ring, asked)}
            callers[name] = bearer((await http.otp(tenant.slug, "verify", body)).json()["access_token"])
            cookie = await browser_cookie(links, tenant.id, ("tenant", tenant.id))
            callers[f"{name} in a browser"] = {"Cookie": f"gh_session={cookie}; gh_admin={cookie}"}
        yield Matrix(http, routes_of(http.app), ours, theirs, callers)


async def test_every_route_admits_its_role_and_no_lower_one(matrix: Matrix) -> None:
    """By key and by session: from the least role on the guard lets through, below it 403."""
    assert len(matrix.routes) >= 20
    wrong = []
    for route in matrix.routes:
        for role in ROLES:
            for way in ("key", "session"):
                answer = await matrix.call(f"{role} {way}", route, matrix.ours.slug)
                admitted = answer.status_code not in {401, 403}
                if admitted != (ROLES.index(role) >= ROLES.index(route.least_role)):
                    wrong.append((route.method, route.template, role, way, answer.status_code))
    assert wrong == []


async def test_tenants_and_strangers_get_nowhere(matrix: Matrix) -> None:
    """Signed in to a tenant, with a revoked or forged key, or not at all: 401 everywhere, not a byte of anybody's."""
    strangers = [name for name in matrix.callers if name.split()[0] not in ROLES]
    assert len(strangers) >= 7
    for route in matrix.routes:
        for stranger in strangers:
            for tenant in (matrix.ours, matrix.theirs):
                answer = await matrix.call(stranger, route, tenant.slug)
                assert answer.status_code == 401, (stranger, route, answer.status_code)
                assert answer.json()["code"] == "invalid-token"
                for told in (tenant.slug, str(tenant.id), f"@{tenant.slug}.example", "Acme"):
                    assert told not in answer.text, (stranger, route)


async def test_a_session_without_its_token_changes_nothing(matrix: Matrix) -> None:
    """Every unsafe route refuses an owner's cookie that comes without the CSRF token, or from elsewhere."""
    headers = matrix.callers["owner session"]
    for route in matrix.routes:
        if route.method == "GET":
            continue
        for attack in (
            {name: value for name, value in headers.items() if name != csrf.HEADER},
            headers | {"Origin": "https://evil.example"},
            headers | {"Sec-Fetch-Site": "cross-site"},
        ):
            answer = await matrix.http.client.request(route.method, route.path(matrix.ours.slug), headers=attack)
            assert answer.status_code == 403, (route, answer.status_code)


async def test_what_isnt_changed_is_only_read(matrix: Matrix) -> None:
    """No GET asks for more than a viewer, and nothing but a GET is a viewer's.

    One person's data is the exception: it is whole and unmasked, for that person.
    """
    assert {route.template for route in matrix.routes if (route.method == "GET") != (route.least_role == "viewer")} == {
        "/api/v1/admin/tenants/{slug:str}/members/{member_id:uuid}/export"
    }


def test_a_route_without_a_role_does_not_start(settings: Settings, clock: Clock) -> None:
    """Forgetting to say who may call is no door left open, but a start that fails."""

    @get("/open", sync_to_thread=False)
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
    assert routes_of(create_app(settings, clock=clock))
