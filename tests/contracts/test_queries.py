"""Query parameters, over the route table: what a route doesn't declare is refused, and a typo never acts."""

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

import pytest
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from app.settings import Settings
from app.storage.db import Database
from app.web.queries import parameters_of
from tests.adminapi import PREFIX, admin_api
from tests.conftest import Clock
from tests.http import Http, serve
from tests.matrix import Operation, operations
from tests.people import add_tenant

# Placeholders of paths: nobody has to be there, since a call is refused before anybody looks.
_VALUES: Final = {"slug": "nobody-here", "code": "not-found", "provider": "twilio", "name": "/favicon.svg"}


@pytest.fixture
async def http(settings: Settings, clock: Clock) -> AsyncIterator[Http]:
    async with serve(settings, clock) as served:
        yield served


def path_of(operation: Operation) -> str:
    """Its path, filled in with what leads nowhere."""
    names = [part[1:].split(":")[0] for part in operation.template.split("/") if part.startswith("{")]
    return operation.path({name: _VALUES.get(name, str(UUID(int=1))) for name in names})


def is_strict(operation: Operation) -> bool:
    """As app/web/queries.py promises it: APIs, the admin portal, and whatever may change something."""
    if operation.template.startswith("/callbacks/"):
        return False
    return operation.template.startswith(("/api/", "/.well-known/", "/admin")) or not operation.safe


def handler_of(app: Litestar, operation: Operation) -> HTTPRouteHandler:
    """What answers it."""
    return next(
        handler
        for route in app.routes
        if isinstance(route, HTTPRoute) and route.path == operation.template
        for handler in route.route_handlers
        if operation.method in handler.http_methods
    )


def declared(app: Litestar) -> dict[Operation, set[str]]:
    """The parameters of each operation."""
    return {operation: set(parameters_of(handler_of(app, operation))) for operation in operations(app)}


def typos(name: str) -> set[str]:
    """What a hurried person types for it."""
    wrong = {
        name.replace("_", ""),
        name.replace("_", "-"),
        name.upper(),
        name[:-1],
        name + "s",
        f"{name}[]",
        f" {name}",
    }
    return wrong - {name, ""}


async def test_what_is_not_declared_is_refused(http: Http) -> None:
    """Every route that is strict: an unknown name, a typo of each of its own, each of its own twice."""
    wrong, tried = [], 0
    for operation, names in declared(http.app).items():
        if not is_strict(operation):
            continue
        unknown = {"surprise", "dryrun", "limt", "", "a/b~c", *(typo for name in names for typo in typos(name))} - names
        cases: list[tuple[dict[str, Any], str]] = [({name: "true"}, name) for name in sorted(unknown)]
        cases += [({name: ["x", "x"]}, name) for name in sorted(names - {"member"})]
        for params, name in cases:
            tried += 1
            answer = await http.client.request(operation.method, path_of(operation), params=params)
            said = answer.status_code == 400
            if said and not operation.is_page:
                pointer = name.replace("~", "~0").replace("/", "~1") or "without a name"
                said = answer.json()["errors"][0]["pointer"] == f"/{pointer}"
            if not said:
                wrong.append(f"{operation}?{params}: {answer.status_code}")
    assert wrong == []
    assert tried > 600


async def test_a_person_is_not_sent_away_for_a_decorated_link(http: Http) -> None:
    """Pages that are only looked at: what newsletters and mail scanners add changes nothing."""
    added = "utm_source=mail&utm_campaign=x&fbclid=1&mc_eid=2"
    for operation in operations(http.app):
        if not operation.is_page or not operation.safe or operation.template.startswith("/.well-known/"):
            continue
        path = path_of(operation)
        # What isn't known to anybody a scanner may add as well; in the admin portal it could be a typo.
        more = "" if is_strict(operation) else "&x-scanned-by=acme&url=https%3A%2F%2Felsewhere.example%ff"
        plain, decorated = [await http.client.get(path + query) for query in ("", f"?{added}{more}")]
        assert decorated.status_code == plain.status_code, operation
        assert decorated.status_code != 400, operation


async def test_the_document_tells_what_is_taken(http: Http) -> None:
    """Each call in the document has the parameters that it takes, and may refuse with 400 where it takes any."""
    document = http.app.openapi_schema.to_schema()
    for operation, names in declared(http.app).items():
        path = operation.template.replace(":str}", "}").replace(":uuid}", "}")
        told = document["paths"].get(path, {}).get(operation.method.lower())
        if told is not None:
            assert {p["name"] for p in told.get("parameters", ()) if p["in"] == "query"} == names, operation


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=5.0", "/limit"),
        ("limit=1e1", "/limit"),
        ("limit=%D9%A5", "/limit"),
        ("limit=+5", "/limit"),
        ("limit=", "/limit"),
        ("limit", "/limit"),
        ("contact_missing=1", "/contact_missing"),
        ("contact_missing=yes", "/contact_missing"),
        ("contact_missing=", "/contact_missing"),
        ("search=a%00b", "/search"),
        ("search=%ff", ""),
        ("status=Active", "/status"),
        ("sort=name;limit=1", "/sort"),
    ],
)
async def test_values_are_never_coerced(http: Http, db: Database, clock: Clock, query: str, pointer: str) -> None:
    """A number is digits, a switch is true or false, a text is UTF-8."""
    api = await admin_api(http, db, clock, "viewer")
    answer = await api("GET", f"/tenants?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "value", ["1700000000", "2026-03-14T09:26:53", "0001-01-01T00:00:00+23:59", "yesterday", "2026-"]
)
async def test_times_are_never_guessed(http: Http, db: Database, clock: Clock, value: str) -> None:
    """Seconds since 1970, a time without a zone, one beyond the calendar: refused at the parameter."""
    api = await admin_api(http, db, clock, "viewer")
    for path in ("/events", "/deliveries"):
        answer = await api("GET", path, params={"from": value})
        assert answer.status_code == 400
        assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/from"]


@pytest.mark.parametrize(
    "query", ["dryrun=true", "dry-run=true", "DRY_RUN=true", "dry_run=1", "dry_run=true&dry_run=true"]
)
async def test_a_mistyped_dry_run_imports_nothing(http: Http, db: Database, clock: Clock, query: str) -> None:
    """The typo that the rule is for: tenants and members alike stay as they are, and a right one still works."""
    tenant = await add_tenant(db, clock())
    api = await admin_api(http, db, clock)
    csv = {"Content-Type": "text/csv"}
    calls = {
        "/tenants/import": f"slug,name\n{tenant.slug},Renamed\n".encode(),
        f"/tenants/{tenant.slug}/members/import": b"name,email\nAna,ana@home.example\n",
    }
    for path, content in calls.items():
        refused = await api("POST", f"{path}?{query}", content=content, headers=csv)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid-request")
        assert (await api("POST", f"{path}?dry_run=true", content=content, headers=csv)).json()["applied"] is False
    assert (await api("GET", f"/tenants/{tenant.slug}")).json()["name"] == "Acme"
    assert (await api("GET", f"/tenants/{tenant.slug}/members")).json()["members"] == []


async def test_the_refusal_says_what_is_known(http: Http, db: Database, clock: Clock) -> None:
    """Whoever mistyped it reads the right word; on a page of the admin portal as well."""
    api = await admin_api(http, db, clock)
    answer = await api("POST", "/tenants/import?dryrun=true", content=b"", headers={"Content-Type": "text/csv"})
    assert answer.json()["detail"] == "There is no query parameter dryrun here. Known are as_is, dry_run."
    page = await http.get("/admin/tenants?stauts=suspended", headers={"Accept": "text/html"})
    assert page.status_code == 400
    assert "no query parameter stauts" in page.text
    assert (await http.client.delete(f"{PREFIX}/tenants/x?force=true")).json()["errors"][0]["pointer"] == "/force"
