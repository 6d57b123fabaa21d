"""One address can't take the service to itself, by any route that anybody may call; an office never notices.

Generated from the route table: a new route is limited, or has the reason why not, or fails here.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from app.asgi import create_app
from app.auth import rooms
from app.auth.devices import device_token
from app.auth.rooms import CHECKS, KEYS, PAGES, REFRESH, ROOMS, STATUS, Room, Rooms
from app.errors import RateLimited
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from app.web import csrf, limits
from app.web.limits import ASKING, RULES, SESSION, Rule, rule_for
from tests.adminapi import admin_api
from tests.attacks.test_addresses import some_address
from tests.conftest import Clock
from tests.http import BASE_URL, Http, serve
from tests.matrix import Operation, _admin_page, _open, operations
from tests.matrix import rule_for as who_may
from tests.people import add_tenant

_CALLS = 4
_PRE_SESSION = "A" * 43


def plain(template: str) -> str:
    """A path as Litestar names it when it answers."""
    return re.sub(r":[a-z]+\}", "}", template)


def rule_of(operation: Operation) -> Rule | None:
    return rule_for(operation.method, plain(operation.template))


def anybodys(settings: Settings) -> list[Operation]:
    """Every call for which nobody has to be signed in, as the role matrix has it; and introspection, by key."""
    return [
        operation
        for operation in operations(create_app(settings))
        if who_may(operation) is _open
        or (who_may(operation) is _admin_page and operation.least_role == "anyone")
        or operation.template.endswith("/introspect")
    ]


def limited(settings: Settings) -> list[tuple[Operation, Room]]:
    """Those that are in a room."""
    found = [(operation, rule_of(operation)) for operation in anybodys(settings)]
    return [(operation, rule) for operation, rule in found if isinstance(rule, Room)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rooms for a few calls a minute."""
    small = {name: replace(room, calls=_CALLS) for name, room in ROOMS.items()}
    for module in (rooms, limits):
        monkeypatch.setattr(module, "ROOMS", small)


@pytest.fixture
async def http(settings: Settings, clock: Clock, few: None) -> AsyncIterator[Http]:
    async with serve(
        settings, clock, client_address=some_address(), otp_ip_hourly_limit=2, otp_disclose_errors=False
    ) as served:
        # Patient: on a busy machine the usual 50 ms would make this a test of the fallback.
        served.app.state.services.accelerator._timeout = 10
        yield served


async def call(http: Http, ring: KeyRing, operation: Operation, slug: str, **headers: str) -> int:
    """One call by a stranger; the status."""
    values = {"slug": slug, "token": "x" * 64, "provider": "twilio", "code": "rate-limited", "path": "x", "name": "x"}
    face = "admin" if operation.template.startswith("/admin") else "tenant"
    own = {
        "Cookie": f"gh_pre={_PRE_SESSION}",
        "Origin": BASE_URL,
        csrf.HEADER: csrf.token(ring.current, face, _PRE_SESSION),
        **({"Content-Type": "application/x-www-form-urlencoded"} if operation.is_page else {}),
    }
    body: dict[str, Any] = {} if operation.safe or operation.is_page else {"json": {}}
    answer = await http.client.request(operation.method, operation.path(values), headers=own | headers, **body)
    if answer.status_code == 429:
        rule = rule_of(operation)
        assert isinstance(rule, Room)
        assert answer.headers["ratelimit"].startswith(f'"{rule.name}";r=0;t=')
        assert answer.headers["ratelimit-policy"] == f'"{rule.name}";q={_CALLS};w=60'
        assert 1 <= int(answer.headers["retry-after"]) <= 61
    return answer.status_code


def test_every_route_that_anybody_may_call_has_a_rule(settings: Settings) -> None:
    """A room, or the reason why it needs none; "needs a session" is no reason for one that needs none."""
    for operation in anybodys(settings):
        rule = rule_of(operation)
        assert rule is not None, f"{operation}: add it to RULES in app/web/limits.py, with a room or a reason"
        assert rule != SESSION, f"{operation}: whoever isn't signed in may call it; RULES says that it needs a session"


def test_each_rule_is_some_routes(settings: Settings) -> None:
    """No rule is left over from a route that is gone."""
    found = [(operation.method, plain(operation.template)) for operation in operations(create_app(settings))]
    for of, beginning, _ in RULES:
        hits = [t for m, t in found if of in {"", m} and (t == beginning or t.startswith(beginning + "/"))]
        assert hits, (of, beginning)


def test_what_the_issue_names_is_limited(settings: Settings) -> None:
    """`verify`, `status`, `mfa`, `refresh`, not-me, logo: by API and by page, in rooms that fit an office."""
    named = {
        ("POST", "/api/v1/tenants/{slug}/otp/verify"): CHECKS,
        ("POST", "/t/{slug}/verify"): CHECKS,
        ("POST", "/api/v1/tenants/{slug}/otp/status"): STATUS,
        ("GET", "/t/{slug}/verify/status"): STATUS,
        ("POST", "/api/v1/auth/mfa"): CHECKS,
        ("POST", "/t/{slug}/second-factor"): CHECKS,
        ("POST", "/t/{slug}/second-factor/enrol"): CHECKS,
        ("POST", "/admin/sign-in/code"): CHECKS,
        ("POST", "/api/v1/auth/refresh"): REFRESH,
        ("POST", "/not-me/{token}"): CHECKS,
        ("GET", "/not-me/{token}"): PAGES,
        ("GET", "/t/{slug}/logo"): rooms.LOGOS,
        ("POST", "/callbacks/{provider}"): rooms.CALLBACKS,
        ("POST", "/api/v1/tenants/{slug}/members"): ASKING,
        ("POST", "/login"): ASKING,
    }
    assert {key: rule_for(*key) for key in named} == named


async def test_each_is_refused_when_its_room_is_full(
    http: Http, db: Database, ring: KeyRing, settings: Settings, clock: Clock
) -> None:
    """So many calls of an address and no more in a minute, alike for a slug that somebody has and one that nobody has;
    the next minute it opens again.
    """
    known = (await add_tenant(db, clock())).slug
    found = limited(settings)
    assert len(found) >= 30
    for operation, _ in found:
        stories = {}
        for slug in (known, f"nobody-{uuid4().hex[:8]}"):
            clock.forward(minutes=3)
            stories[slug] = [await call(http, ring, operation, slug) for _ in range(_CALLS + 2)]
            if "{slug" not in operation.template:
                break
        first, *others = stories.values()
        assert 429 not in first[:_CALLS], operation
        assert first[_CALLS:] == [429, 429], operation
        assert others in ([], [first]), operation
        clock.forward(seconds=62)
        assert await call(http, ring, operation, known) != 429


async def test_a_known_device_goes_on_behind_a_full_address(
    http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Of the tenant it is known at; its signature says so. It has a small limit of its own, so none is lifted by it."""
    tenant = await add_tenant(db, clock())
    verify = Operation("POST", "/api/v1/tenants/{slug}/otp/verify", None)
    for _ in range(_CALLS):
        assert await call(http, ring, verify, tenant.slug) == 400
    assert await call(http, ring, verify, tenant.slug) == 429
    token = device_token(ring.current, tenant.slug, tenant.id, uuid4())
    known = {"X-Device-Token": token}
    assert await call(http, ring, verify, "another-slug", **known) == 429
    answers = [await call(http, ring, verify, tenant.slug, **known) for _ in range(rooms._DEVICE + 1)]
    assert answers == [400] * rooms._DEVICE + [429]


async def test_a_key_pays_by_itself_and_for_whom_it_speaks(
    http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """A server with an API key isn't one person: its end users have their addresses, and without one nobody pays but
    the key. However it is used, a key has a limit.
    """
    api = await admin_api(http, db, clock)
    status = Operation("POST", "/api/v1/tenants/{slug}/otp/status", None)
    keyed = {"Authorization": f"Bearer {api.key}"}
    user, other = keyed | {"X-Client-IP": some_address()}, keyed | {"X-Client-IP": some_address()}
    for _ in range(_CALLS + 1):
        await call(http, ring, status, "anybody")
    # The server's own address is full, which is nothing to its users.
    assert await call(http, ring, status, "anybody", **user) == 400
    clock.forward(minutes=3)
    http.app.state.services.rooms._alone[KEYS.name] = 10_000
    assert [await call(http, ring, status, "anybody", **user) for _ in range(_CALLS + 1)] == [400] * _CALLS + [429]
    assert await call(http, ring, status, "anybody", **other) == 400
    assert [await call(http, ring, status, "anybody", **keyed) for _ in range(3 * _CALLS)] == [400] * 3 * _CALLS
    http.app.state.services.rooms._alone[KEYS.name] = 1
    refused = [
        await http.otp("anybody", "status", headers=keyed | {"X-Client-IP": some_address()}) for _ in range(_CALLS + 1)
    ][-1]
    assert refused.status_code == 429
    assert refused.headers["ratelimit"].startswith(f'"{KEYS.name}"')


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/auth/introspect"),
        ("POST", "/api/v1/tenants/anybody/otp/request"),
        ("POST", "/api/v1/tenants/anybody/otp/verify"),
        ("GET", "/api/v1/admin/tenants"),
        ("DELETE", "/api/v1/admin/tenants/anybody"),
    ],
)
async def test_keys_that_are_none_are_refused_ever_faster(
    http: Http, db: Database, clock: Clock, method: str, path: str
) -> None:
    """401 a few times, then 429, wherever they are tried; a good key from the same address goes on."""
    bad = {"Authorization": f"Bearer ghk_{uuid4().hex}_{'x' * 43}"}
    statuses = [
        (await http.client.request(method, path, headers=bad, json={"token": "x"})).status_code
        for _ in range(_CALLS + 1)
    ]
    assert statuses == [401] * _CALLS + [429]
    api = await admin_api(http, db, clock)
    assert (await api("GET", "/stats")).status_code == 200


async def test_an_offices_day_is_let_in(settings: Settings, clock: Clock) -> None:
    """300 people behind one address in a quarter of an hour: each opens pages, types a wrong code and the right one,
    waits for the code with its state shown, refreshes three apps; a mail gateway follows every link.
    """
    assert settings.redis_url
    accelerator = Accelerator(settings.redis_url, timeout=10)
    office, address = Rooms(accelerator, least=300, processes=4), some_address()
    a_person = {PAGES: 8, CHECKS: 3, STATUS: 40, REFRESH: 3, rooms.LOGOS: 2}
    for _ in range(300):
        for room, calls in a_person.items():
            for _ in range(calls):
                await office.enter(room, clock(), address)
        clock.forward(seconds=3)
    await accelerator.close()


@pytest.mark.parametrize("valkey", [True, False])
async def test_all_processes_together_keep_the_limit(settings: Settings, clock: Clock, *, valkey: bool) -> None:
    """Four processes, a flood at each within a minute: what they let in by themselves and together is the limit, with
    Valkey exactly; without it at most a quarter more.
    """
    url = settings.redis_url if valkey else "redis://127.0.0.1:1"
    assert url
    accelerator = Accelerator(url, timeout=10)
    address, passed = some_address(), 0
    clock.now = clock.now.replace(second=1)
    processes = [Rooms(accelerator, least=1, processes=4) for _ in range(4)]
    for process in processes:
        for _ in range(CHECKS.calls):
            try:
                await process.enter(CHECKS, clock(), address)
                passed += 1
            except RateLimited:
                break
    await accelerator.close()
    assert passed == CHECKS.calls
