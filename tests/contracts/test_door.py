"""What is refused before anybody is known is told truly to whoever is refused, and found by staff."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.audit.refused import REASONS
from app.auth import door
from app.auth.door import DoorLog
from app.auth.limits import ADDRESS
from app.auth.passwords import FLOOD
from app.auth.rooms import ROOMS
from app.errors import Unavailable
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.web.texts import in_words
from tests.adminapi import AdminApi, admin_api
from tests.admins import Office, open_office
from tests.attacks.test_addresses import some_address
from tests.conftest import Clock
from tests.http import Http, serve
from tests.markup import faults
from tests.people import add_tenant, current_code
from tests.processes import environment

LIMIT = 3
NOBODY = UUID(int=0)


@pytest.fixture
def address() -> str:
    return some_address()


@pytest.fixture
async def http(settings: Settings, clock: Clock, db: Database, address: str) -> AsyncIterator[Http]:
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM door_refusals")
    async with serve(
        settings, clock, client_address=address, otp_ip_hourly_limit=LIMIT, otp_disclose_errors=False
    ) as served:
        served.app.state.services.accelerator._timeout = 10
        yield served


async def exhaust(http: Http) -> httpx.Response:
    """The first call that is refused."""
    for _ in range(LIMIT):
        assert (await http.otp(f"nobody-{uuid4().hex[:8]}", "request")).status_code == 202
    return await http.otp("somebody", "request")


async def found(api: AdminApi, **query: Any) -> list[dict[str, Any]]:
    """What staff find."""
    answer = await api("GET", "/refusals", params=query)
    assert answer.status_code == 200, answer.text
    refusals: list[dict[str, Any]] = answer.json()["refusals"]
    return refusals


async def test_the_wait_is_true_and_says_why(http: Http, clock: Clock) -> None:
    """The sentence and Retry-After are one wait, in minutes, with the likely reason; after it a code is sent."""
    refused = await exhaust(http)
    wait = int(refused.headers["Retry-After"])
    detail = refused.json()["detail"]
    assert wait > 3000
    assert detail == (
        "Your network has asked for too many codes in the last hour. Many people may share its address. "
        f"You can try again in {in_words(wait)}."
    )
    assert in_words(wait).endswith(" minutes")
    page = await http.client.get("/t/somebody/login", headers={"Accept": "text/html"})
    token = page.text.split('name="csrf_token" value="')[1].split('"')[0]
    shown = await http.client.post(
        "/t/somebody/login", data={"csrf_token": token}, headers={"Origin": "http://localhost:8000"}
    )
    assert shown.status_code == 429
    assert shown.headers["Retry-After"] == str(wait)
    assert "Many people may share its address." in shown.text
    assert f"You can ask again in {in_words(wait)}." in shown.text
    clock.forward(seconds=wait - 61)
    assert (await http.otp("somebody", "request")).status_code == 429
    clock.forward(seconds=61)
    assert (await http.otp("nobody-else", "request")).status_code == 202


async def test_it_is_found_by_tenant_address_and_hour(
    http: Http, db: Database, clock: Clock, address: str, settings: Settings
) -> None:
    """A tenant's refusals and a mistyped name's, from one network, in two hours: each is found by each."""
    tenant = await add_tenant(db, clock())
    api = await admin_api(http, db, clock, "manager")
    first = clock()
    for _ in range(LIMIT):
        assert (await http.otp(tenant.slug, "request")).status_code == 202
    for _ in range(5):
        clock.forward(seconds=2)
        assert (await http.otp(tenant.slug, "request")).status_code == 429
    typo = f"{tenant.slug}x"
    clock.forward(hours=1, minutes=2)
    assert (await http.otp(typo, "request")).status_code == 202

    network = f"{address.removesuffix('1').removesuffix('::')}::/64"
    rows = await found(api)
    assert [(row["tenant"], row["name"], row["reason"], row["count"]) for row in rows] == [
        (None, typo, "unknown-name", 1),
        (tenant.slug, None, "address", 5),
    ]
    assert {row["network"] for row in rows} == {network}
    counted = rows[1]
    assert (counted["first_at"], counted["last_at"]) == tuple(
        (first + timedelta(seconds=after)).isoformat().replace("+00:00", "Z") for after in (2, 10)
    )
    assert counted["hour"] == first.replace(minute=0, second=0).isoformat().replace("+00:00", "Z")
    assert await found(api, tenant=tenant.slug) == [counted]
    assert await found(api, tenant=typo) == rows[:1]
    assert await found(api, address=address) == rows
    assert await found(api, address=network) == rows
    assert await found(api, address="198.51.100.0/24") == []
    assert await found(api, reason="address") == [counted]
    for start, end, hits in ((0, 60, [counted]), (60, 120, rows[:1]), (0, 120, rows), (120, 180, [])):
        span = {"from": first + timedelta(minutes=start), "to": first + timedelta(minutes=end)}
        assert await found(api, **{name: moment.isoformat() for name, moment in span.items()}) == hits
    page = await api("GET", "/refusals", params={"limit": 1})
    assert page.json()["refusals"] == rows[:1]
    assert (await api("GET", "/refusals", params={"limit": 1, "cursor": page.json()["next"]})).json() == {
        "refusals": [counted],
        "next": None,
    }


@pytest.mark.parametrize(
    "query",
    [
        {"address": "office"},
        {"address": "1.2.3.4.5"},
        {"reason": "bored"},
        {"cursor": "x"},
        {"from": "2026-03-14T09:00:00"},
    ],
)
async def test_what_is_asked_for_wrongly_is_refused(
    http: Http, db: Database, clock: Clock, query: dict[str, str]
) -> None:
    """Nothing is guessed: 400, and which parameter it was."""
    api = await admin_api(http, db, clock)
    answer = await api("GET", "/refusals", params=query)
    assert answer.status_code == 400
    assert {error["pointer"] for error in answer.json()["errors"]} == {f"/{name}" for name in query}


async def test_a_viewer_finds_networks_only(http: Http, db: Database, clock: Clock, address: str) -> None:
    """What is masked can't be found out by asking for it: a whole address stands for its network."""
    await exhaust(http)
    viewer = await admin_api(http, db, clock, "viewer")
    (row,) = await found(viewer, reason="address")
    assert row["network"] == f"{':'.join(address.split(':')[:3])}::/48" or row["network"].endswith("/48")
    assert address.rpartition("::")[0] not in json.dumps(row)
    neighbours = [f"{row['network'].removesuffix('::/48')}:{n:x}::1" for n in range(5)]
    assert [await found(viewer, reason="address", address=other) for other in (*neighbours, address)] == [[row]] * 6


async def test_known_and_unknown_are_refused_alike(http: Http, db: Database, clock: Clock) -> None:
    """A tenant's name, a suspended one's, nobody's: the same answer, and none is looked up before it is given."""
    known, closed = await add_tenant(db, clock()), await add_tenant(db, clock(), status="suspended")
    await exhaust(http)
    answers = []
    for slug in (known.slug, closed.slug, f"nobody-{uuid4().hex[:8]}"):
        refused = await http.otp(slug, "request", headers={"X-Request-Id": "x"})
        headers = {name: value for name, value in refused.headers.items() if name not in {"x-request-id", "date"}}
        answers.append((refused.status_code, headers, {k: v for k, v in refused.json().items() if k != "request_id"}))
    assert answers == [answers[0]] * 3
    api = await admin_api(http, db, clock)
    rows = await found(api, reason="address")
    assert {row["tenant"] for row in rows} == {known.slug, closed.slug, None}


async def test_a_key_asks_for_many(http: Http, db: Database, clock: Clock) -> None:
    """A server with a key asks for all of its users from one address; each user's address is held to the limit."""
    api = await admin_api(http, db, clock)
    keyed = {"Authorization": f"Bearer {api.key}"}

    async def statuses(times: int, headers: dict[str, str]) -> list[int]:
        """Told that nobody has the name, or refused before."""
        return [(await http.otp("nobody-at-all", "request", headers=headers)).status_code for _ in range(times)]

    assert await statuses(3 * LIMIT, keyed) == [404] * 3 * LIMIT
    user, other = (keyed | {"X-Client-IP": some_address()} for _ in range(2))
    assert await statuses(LIMIT + 2, user) == [404] * LIMIT + [429] * 2
    assert await statuses(LIMIT, other) == [404] * LIMIT
    assert await statuses(1, keyed) == [404]


async def test_every_way_in_is_counted(http: Http, db: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """By API and by page, with and without a name: a limit, a name nobody has, one that can't be, a flood."""
    unknown = f"nobody-{uuid4().hex[:8]}"
    assert (await http.otp(unknown, "request")).status_code == 202
    assert (await http.otp("Not-A-Slug", "request")).status_code == 400
    assert (await http.post(f"/api/v1/tenants/{unknown}/members", {"name": "Ana"})).status_code == 400
    passwords = http.app.state.services.entrance._passwords
    monkeypatch.setattr(passwords, "_taken", 1000)
    flood = await http.otp(unknown, "request", {"identifier": "ana@home.example", "password": "x" * 12})
    assert flood.status_code == 503
    assert "reason" not in flood.json()
    api = await admin_api(http, db, clock)
    counted = {(row["reason"], row["name"]): row["count"] for row in await found(api)}
    assert counted == {("unknown-name", unknown): 2, ("malformed-name", None): 1, (FLOOD, unknown): 1}


async def test_a_known_name_asked_for_is_no_refusal(http: Http, db: Database, clock: Clock, ring: KeyRing) -> None:
    """Whoever signs in leaves nothing here."""
    tenant = await add_tenant(db, clock())
    asked = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
    code = await current_code(db, ring, asked)
    assert (await http.otp(tenant.slug, "verify", {"challenge_id": asked, "code": code})).status_code == 200
    assert await found(await admin_api(http, db, clock)) == []


def test_each_reason_has_its_words() -> None:
    """Staff read what a limit is about, not its name."""
    assert set(REASONS) == {ADDRESS, *ROOMS, door.UNKNOWN_NAME, door.MALFORMED_NAME, FLOOD}


@pytest.fixture
async def log(db: Database, clock: Clock) -> DoorLog:
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM door_refusals")
    return DoorLog(db, clock)


async def rows_of(db: Database, condition: str = "true") -> tuple[int, int]:
    """How many rows there are, and what they count."""
    async with db.every_tenant() as connection:
        row = await connection.fetchrow(
            f"SELECT count(*), coalesce(sum(count), 0) FROM door_refusals WHERE {condition}"
        )
        return row[0], row[1]


@pytest.mark.parametrize(
    ("named", "most"),
    [
        (lambda n: (f"198.51.{n // 200}.{n % 200}", f"made-up-{n}"), door.MOST_ROWS_OF_NOBODY),
        (lambda n: ("198.51.100.1", f"made-up-{n}"), door.MOST_ROWS_OF_NOBODY),
        (lambda n: (f"2001:db8:{n:x}::1", None), door.MOST_ROWS_OF_NOBODY),
        (lambda n: (f"2001:db8:{n:x}::1", "known"), door.MOST_ROWS_OF_ONE),
    ],
)
async def test_no_flood_fills_the_disk(
    db: Database, clock: Clock, log: DoorLog, named: Callable[[int], tuple[str, str | None]], most: int
) -> None:
    """Made-up names, made-up addresses: an hour has so many rows and one for the rest; no refusal is left out."""
    known = await add_tenant(db, clock())
    for n in range(3000):
        address, slug = named(n)
        log.refused(ADDRESS, address, known.slug if slug == "known" else slug)
        if n % 700 == 0:
            await log.write()
    await log.write()
    rows, counted = await rows_of(db)
    assert counted == 3000
    assert most <= rows <= most + 1
    assert (await rows_of(db, "network = '::/0'"))[0] == 1


async def test_the_hour_of_an_honest_tenant_is_kept_in_a_flood(db: Database, clock: Clock, log: DoorLog) -> None:
    """Who floods at names nobody has doesn't push a tenant's refusals out; all together have a bound, too."""
    for n in range(900):
        log.refused(ADDRESS, f"198.51.{n // 200}.{n % 200}", f"made-up-{n}")
    await log.write()
    tenants = [await add_tenant(db, clock()) for _ in range(3)]
    for tenant in tenants:
        log.refused(ADDRESS, "192.0.2.9", tenant.slug)
    await log.write()
    for tenant in tenants:
        assert await rows_of(db, f"tenant_id = '{tenant.id}'") == (1, 1)


async def test_names_asked_for_are_bounded_in_memory(db: Database, clock: Clock, log: DoorLog) -> None:
    """What doesn't fit between two batches is dropped: it may be anybody's."""
    for n in range(5000):
        log.named("192.0.2.9", f"made-up-{n}")
    assert len(log._named) == door._MOST_HERE
    await log.write()
    assert (len(log._named), len(log._refused)) == (0, 0)
    assert (await rows_of(db))[1] == door._MOST_HERE


async def test_what_could_not_be_written_is_kept(clock: Clock, db: Database, settings: Settings) -> None:
    """While the database is away it is counted on, and written when it is back."""
    away = Database("postgresql://127.0.0.1:1/none", application="tests")
    await away.open()
    log = DoorLog(away, clock)
    log.refused(ADDRESS, "192.0.2.9", "somebody")
    with pytest.raises(Unavailable):
        await log.write()
    clock.forward(seconds=9)
    log.refused(ADDRESS, "192.0.2.9", "somebody")
    await away.close()
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM door_refusals")
    log._db = db
    await log.write()
    async with db.every_tenant() as connection:
        row = await connection.fetchrow("SELECT count, last_at - first_at AS span FROM door_refusals")
    assert tuple(row) == (2, timedelta(seconds=9))


async def test_processes_write_at_the_same_time(db: Database, clock: Clock) -> None:
    """Batches of ten processes with the same keys: every refusal is counted once."""
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM door_refusals")
    logs = [DoorLog(db, clock) for _ in range(10)]
    for number, each in enumerate(logs):
        for n in range(100):
            each.refused(ADDRESS, f"192.0.2.{(n + number) % 100}", None)
    await asyncio.gather(*(each.write() for each in logs))
    assert await rows_of(db) == (100, 1000)


async def test_a_process_writes_what_it_has_when_it_ends(settings: Settings, db: Database, clock: Clock) -> None:
    """An orderly end loses nothing."""
    slug = f"nobody-{uuid4().hex[:8]}"
    async with serve(settings, clock) as http:
        await http.otp(slug, "request")
        assert await rows_of(db, f"slug = '{slug}'") == (0, 0)
    assert await rows_of(db, f"slug = '{slug}'") == (1, 1)


@pytest.fixture
async def office(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Office]:
    async with open_office(settings, clock, db, ring) as opened:
        yield opened


async def test_staff_find_it_on_a_page(office: Office, log: DoorLog, db: Database, clock: Clock) -> None:
    """By tenant, address, hour and reason; a fault stands at its field; a viewer sees networks."""
    tenant = await office.tenant()
    for address in ("192.0.2.9", "192.0.2.9", "198.51.100.7"):
        log.refused(ADDRESS, address, tenant.slug)
    log.refused(ADDRESS, "192.0.2.9", "acme-enrgy")
    await log.write()
    browser = await office.signed_in("manager")
    cases: list[tuple[str, list[str], list[str]]] = [
        ("", ["192.0.2.9", "198.51.100.7", "acme-enrgy", tenant.slug, "nobody\N{RIGHT SINGLE QUOTATION MARK}s"], []),
        (f"tenant={tenant.slug}", ["192.0.2.9", "198.51.100.7"], ["acme-enrgy"]),
        ("tenant=acme-enrgy", ["192.0.2.9", "acme-enrgy"], ["198.51.100.7"]),
        ("address=198.51.100.7", ["198.51.100.7"], ["192.0.2.9"]),
        ("address=192.0.2.0%2F24", ["192.0.2.9"], ["198.51.100.7"]),
        ("hour=2026-03-14T09:30", ["192.0.2.9", "198.51.100.7"], ["Nothing was refused"]),
        ("hour=2026-03-14T10:00", ["Nothing was refused"], ["192.0.2.9"]),
        ("reason=unknown-name", ["Nothing was refused"], ["192.0.2.9"]),
    ]
    for query, there, gone in cases:
        await browser.get(f"/admin/refusals?{query}")
        assert browser.page.status_code == 200
        assert faults(browser.page.text) == []
        listed = browser.page.text.partition("</form>")[2].rpartition("</main>")[0]
        listed = listed[listed.find("Show") :]
        for text in there:
            assert text in listed, (query, text)
        for text in gone:
            assert text not in listed, (query, text)
    for query in ("address=office", "hour=soon", "reason=bored"):
        await browser.get(f"/admin/refusals?{query}")
        assert browser.page.status_code == 400
        assert faults(browser.page.text) == []
        assert "<title>Error: Refusals" in browser.page.text
    viewer = await office.signed_in("viewer")
    await viewer.get("/admin/refusals?address=192.0.2.200")
    assert "192.0.2.0/24" in viewer.page.text
    assert "192.0.2.9" not in viewer.page.text
    await browser.get(f"/admin/tenants/{tenant.slug}/timeline")
    assert f'href="/admin/refusals?tenant={tenant.slug}"' in browser.page.text


async def test_it_is_listed_on_the_command_line(log: DoorLog, settings: Settings, clock: Clock) -> None:
    """As a table, and as JSON with what the API has."""
    log.refused(ADDRESS, "192.0.2.9", "acme-enrgy")
    log.refused("password-flood", "198.51.100.7", None)
    await log.write()

    async def run(*options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "app.cli.main", "refusals", *options],
            env=environment(settings),
            cwd=settings.data_dir,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done

    async def shown(*options: str) -> str:
        return (await run(*options)).stdout

    (row,) = json.loads(await shown("--address", "192.0.2.0/24", "--json"))
    moment = clock().isoformat().replace("+00:00", "Z")
    assert row == {
        "hour": clock().replace(minute=0, second=0).isoformat().replace("+00:00", "Z"),
        "reason": "address",
        "tenant": None,
        "name": "acme-enrgy",
        "network": "192.0.2.9",
        "count": 1,
        "first_at": moment,
        "last_at": moment,
    }
    for options in (["--tenant", "acme-enrgy"], ["--reason", "address"]):
        assert json.loads(await shown(*options, "--json")) == [row]
    for options in (["--from", "2026-03-15"], ["--to", "2026-03-14T09:00:00Z"], ["--tenant", "somebody-else"]):
        assert json.loads(await shown(*options, "--json")) == []
    head, *lines = (await shown()).splitlines()
    assert head.split() == ["HOUR", "REASON", "TENANT", "NAME", "NETWORK", "COUNT", "FIRST_AT", "LAST_AT"]
    assert len(lines) == 2
    assert "address" in (await run("--address", "office", status=2)).stderr
