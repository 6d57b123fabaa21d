"""What holds for every answer, whoever gives it: headers, ids, problem documents, health, documentation."""

import ipaddress
import json
import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar, get

from app import errors
from app.asgi import create_app
from app.audit.log import Actor, Client
from app.auth.api_keys import ApiKeys
from app.errors import GatehouseError
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.migrate import head
from app.web.health import expected_revision
from app.web.problems import CODES, STATUS
from tests.conftest import Clock
from tests.http import BASE_URL, Http, running, serve
from tests.people import add_tenant, challenge_row, current_code

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
# An address nobody listens on: what a database looks like that is away.
AWAY = "postgresql://gatehouse_app:x@127.0.0.1:1/gatehouse"


def nobody() -> str:
    """A slug no tenant has, and no other test asks for."""
    return f"nobody-{uuid4().hex[:12]}"


def all_refusals(kind: type[GatehouseError] = GatehouseError) -> set[type[GatehouseError]]:
    """The whole error tree, as app/errors.py draws it."""
    below = {sub for sub in kind.__subclasses__() if sub.__module__ == errors.__name__}
    return below | {each for sub in below for each in all_refusals(sub)}


@get("/boom", sync_to_thread=False)
def boom() -> None:
    """A mistake of ours, with something in it that must not get out."""
    raise ZeroDivisionError("secret 123456")


def with_mistake(settings: Settings, clock: Clock) -> Http:
    app: Litestar = create_app(settings, clock=clock)
    app.register(boom)
    transport: Any = httpx.ASGITransport(app)  # type: ignore[arg-type] # typed differently by the two libraries
    return Http(app, httpx.AsyncClient(transport=transport, base_url=BASE_URL))


async def test_every_answer_carries_id_and_security_headers(settings: Settings, clock: Clock) -> None:
    """Success, refusal, unknown path, wrong method, too large, our own mistake: none lacks them."""
    http = with_mistake(settings, clock)
    async with running(http.app), http.client:
        answers = [
            await http.get("/health"),
            await http.get("/nothing/here"),
            await http.get("/api/v1/tenants/acme/otp/request"),
            await http.client.post("/api/v1/tenants/acme/otp/request", content=b"x" * 20_000),
            await http.get("/boom"),
            await http.get("/static/favicon.svg"),
            await http.client.head("/health"),
            await http.get("/docs"),
        ]
    assert [answer.status_code for answer in answers] == [200, 404, 405, 413, 500, 200, 200, 200]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    for answer in answers:
        assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
        assert "strict-transport-security" not in answer.headers
    assert {answer.headers["cache-control"] for answer in answers[:5]} == {"no-store"}
    assert answers[6].content == b""


async def test_production_adds_transport_security(settings: Settings, clock: Clock) -> None:
    """HSTS is for production: in development it would lock http://localhost out."""
    async with serve(settings, clock, environment="production") as http:
        assert (await http.get("/nothing")).headers["strict-transport-security"].startswith("max-age=63072000")


async def test_our_own_mistake_tells_nothing(
    settings: Settings, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A 500 names its request id, here and in the log, and nothing of what happened."""
    http = with_mistake(settings, clock)
    async with running(http.app), http.client:
        answer = await http.get("/boom")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "error")
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "123456" not in answer.text
    assert "ZeroDivision" not in answer.text
    logged = capsys.readouterr()
    assert problem["request_id"] in logged.out + logged.err


async def test_problem_documents(settings: Settings, clock: Clock) -> None:
    """RFC 9457 with our members, and the page that `type` leads to is there."""
    async with serve(settings, clock) as http:
        answer = await http.get("/api/v1/auth/me")
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert problem == {
            "type": f"{BASE_URL}/problems/invalid-token",
            "title": "Invalid token",
            "status": 401,
            "detail": "The token is not valid. Sign in again.",
            "code": "invalid-token",
            "request_id": answer.headers["x-request-id"],
        }
        page = await http.get(problem["type"].removeprefix(BASE_URL))
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")


async def test_every_code_has_a_status_and_a_page(settings: Settings, clock: Clock) -> None:
    """Nothing in the error tree was forgotten; only a broken configuration never meets HTTP."""
    assert all_refusals() - set(STATUS) == {errors.ConfigurationError}
    async with serve(settings, clock) as http:
        for code in CODES:
            assert (await http.get(f"/problems/{code}")).status_code == 200, code
        assert (await http.get("/problems/no-such-code")).status_code == 404


async def test_browsers_get_a_page_and_the_api_never_does(settings: Settings, clock: Clock) -> None:
    """A person who goes astray reads a sentence; a program gets JSON, whatever it says it accepts."""
    html = {"Accept": "text/html,application/xhtml+xml"}
    async with serve(settings, clock) as http:
        page = await http.get("/nothing", headers=html)
        api = await http.get("/api/v1/nothing", headers=html)
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["x-request-id"] in page.text
    assert api.headers["content-type"] == "application/problem+json"


async def test_methods_and_slashes(settings: Settings, clock: Clock) -> None:
    """405 names what is allowed; HEAD works where GET does; a slash at the end changes nothing."""
    async with serve(settings, clock) as http:
        refused = await http.client.put("/api/v1/auth/me")
        assert refused.status_code == 405
        assert refused.headers["allow"] == "GET, HEAD, OPTIONS"
        assert (await http.client.head("/.well-known/jwks.json")).content == b""
        assert (await http.get("/health/")).json() == (await http.get("/health")).json()
        assert (await http.otp(nobody(), "request/")).status_code == 202


async def test_only_trusted_proxies_are_believed(settings: Settings, clock: Clock, db: Database) -> None:
    """The rightmost untrusted address counts, and a request id is taken over, behind a trusted proxy only."""
    tenant = await add_tenant(db, clock())
    forwarded = {"X-Forwarded-For": "6.6.6.6, 198.51.100.7, 10.0.0.2", "X-Request-Id": "from-the-proxy-1"}
    networks = (ipaddress.ip_network("10.0.0.0/8"),)
    for trusted, expected_ip, takes_id in ((networks, "198.51.100.7", True), ((), "10.0.0.1", False)):
        async with serve(settings, clock, client_address="10.0.0.1", trusted_proxies=trusted) as http:
            answer = await http.otp(tenant.slug, "request", headers=forwarded)
        assert (answer.headers["x-request-id"] == "from-the-proxy-1") is takes_id
        assert (await challenge_row(db, answer.json()["challenge_id"]))["ip"].partition("/")[0] == expected_ip


async def test_hosts_that_are_not_ours_are_refused(settings: Settings, clock: Clock) -> None:
    """ALLOWED_HOSTS holds for everything but the probes of a load balancer, which knows no name."""
    async with serve(settings, clock, allowed_hosts=("login.example.com", "*.apps.example.com")) as http:

        async def status(path: str, host: str) -> int:
            return (await http.get(path, headers={"Host": host})).status_code

        assert await status("/docs", "login.example.com:8000") == 200
        assert await status("/docs", "a.apps.example.com") == 200
        assert await status("/docs", "evil.example.org") == 400
        assert await status("/docs", "apps.example.com.evil.org") == 400
        assert await status("/health", "10.1.2.3") == 200


async def test_an_api_key_discloses_and_speaks_for_an_end_user(settings: Settings, clock: Clock, db: Database) -> None:
    """With a key: real reasons and X-Client-IP. Without: neither. With a false one: 401, so that its owner notices."""
    tenant = await add_tenant(db, clock())
    _, key = await ApiKeys(db, clock).create("Portal", "viewer", actor=Actor("operator"), client=Client("cli"))
    speaking = {"X-Client-IP": "203.0.113.99"}
    async with serve(settings, clock) as http:
        with_key = {"Authorization": f"Bearer {key}", **speaking}
        answer = await http.otp(tenant.slug, "request", headers=with_key)
        assert (await challenge_row(db, answer.json()["challenge_id"]))["ip"].partition("/")[0] == "203.0.113.99"
        assert (await http.otp(nobody(), "request", headers=with_key)).json()["code"] == "tenant-not-found"
        nonsense = await http.otp(tenant.slug, "request", headers=with_key | {"X-Client-IP": "here"})
        assert nonsense.status_code == 400

        without = await http.otp(tenant.slug, "request", headers=speaking)
        assert (await challenge_row(db, without.json()["challenge_id"]))["ip"].partition("/")[0] == "192.0.2.10"
        false_key = {"Authorization": "Bearer ghk_" + "0" * 32 + "_x"}
        assert (await http.otp(tenant.slug, "request", headers=false_key)).status_code == 401
        stale_token = {"Authorization": "Bearer eyJhbGciOi.x.y"}
        assert (await http.otp(nobody(), "request", headers=stale_token)).status_code == 202


async def test_introspection(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """RFC 7662 by form and by JSON; a token is inactive at once after its sign-out, and keys only may ask."""
    tenant = await add_tenant(db, clock())
    _, key = await ApiKeys(db, clock).create("Service", "viewer", actor=Actor("operator"), client=Client("cli"))
    authorization = {"Authorization": f"Bearer {key}"}
    async with serve(settings, clock) as http:
        challenge = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        code = await current_code(db, ring, challenge)
        body = {"challenge_id": challenge, "code": code}
        token = (await http.otp(tenant.slug, "verify", body)).json()["access_token"]

        form = {"token": token, "token_type_hint": "access_token", "something": "else"}
        active = await http.auth("POST", "introspect", data=form, headers=authorization)
        assert active.json() | {"jti": "", "sid": ""} == {
            "active": True,
            "token_type": "Bearer",
            "iss": BASE_URL,
            "aud": "gatehouse",
            "sub": str(tenant.id),
            "tid": str(tenant.id),
            "slug": tenant.slug,
            "sid": "",
            "iat": int(clock().timestamp()),
            "nbf": int(clock().timestamp()),
            "exp": int(clock().timestamp()) + 900,
            "jti": "",
            "auth_time": int(clock().timestamp()),
            "amr": ["otp:email"],
        }
        assert (await http.auth("POST", "introspect", token, json={"token": token})).status_code == 401
        await http.auth("POST", "logout", token)
        for asked in (token, "nonsense"):
            inactive = await http.auth("POST", "introspect", json={"token": asked}, headers=authorization)
            assert inactive.json() == {"active": False}


@pytest.mark.parametrize(
    ("state", "status", "code"), [("sent", 200, None), ("failed", 502, "delivery-failed"), ("queued", 202, None)]
)
async def test_prefer_wait_tells_the_outcome(
    settings: Settings, clock: Clock, db: Database, state: str, status: int, code: str | None
) -> None:
    """A disclosed caller who waits learns what became of the delivery; nobody waits longer than asked."""
    tenant = await add_tenant(db, clock())
    naps: list[float] = []

    async def deliver_meanwhile(seconds: float) -> None:
        naps.append(seconds)
        async with db.every_tenant() as connection:
            await connection.execute(
                "UPDATE outbox SET state = $2, error_text = '550 no such user' WHERE tenant_id = $1", tenant.id, state
            )

    async with serve(settings, clock, otp_disclose_errors=True, sleep=deliver_meanwhile) as http:
        answer = await http.otp(tenant.slug, "request", headers={"Prefer": "respond-async, wait=2"})
    assert answer.status_code == status
    assert answer.json().get("code") == code
    if code is None:
        assert answer.json()["state"] == state
        assert answer.headers["preference-applied"] == "wait=2"
    else:
        assert answer.json()["detail"] == "550 no such user"
    assert len(naps) == (20 if state == "queued" else 1)


async def test_a_stranger_may_not_wait(settings: Settings, clock: Clock, db: Database) -> None:
    """`Prefer: wait` would tell who exists, so it is ignored for concealed callers."""
    tenant = await add_tenant(db, clock())
    async with serve(settings, clock) as http:
        answer = await http.otp(tenant.slug, "request", headers={"Prefer": "wait=5"})
    assert answer.status_code == 202
    assert "state" not in answer.json()
    assert "preference-applied" not in answer.headers


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("de-CH, en;q=0.8", "de"), ("fr;q=0.2, es;q=0.9", "es"), ("ja, fr;q=0", "en"), ("*", "en"), (";;q=,", "en")],
)
async def test_the_message_speaks_the_callers_language(
    settings: Settings, clock: Clock, accepted: str, language: str
) -> None:
    """Accept-Language chooses among ours by weight; anything else is English."""
    async with serve(settings, clock) as http:
        answer = await http.otp(nobody(), "request", headers={"Accept-Language": accepted})
        english = await http.otp(nobody(), "request")
    assert answer.headers["content-language"] == language
    assert (answer.json()["message"] == english.json()["message"]) is (language == "en")


async def test_front_ends_of_the_allow_list_may_call(settings: Settings, clock: Clock) -> None:
    """CORS is by allow-list, without cookies; errors carry it too, or a front end couldn't read them."""
    async with serve(settings, clock, cors_origins=("https://app.example.com",)) as http:
        friend = await http.get("/api/v1/auth/me", headers={"Origin": "https://app.example.com"})
        stranger = await http.get("/api/v1/auth/me", headers={"Origin": "https://evil.example.org"})
    assert friend.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "access-control-allow-credentials" not in friend.headers
    assert stranger.headers.get("access-control-allow-origin") != "https://evil.example.org"


async def test_readiness(settings: Settings, clock: Clock, db: Database) -> None:
    """Ready with everything up, degraded without worker or Valkey, unavailable without the database; alive anyway."""
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM workers")
    async with serve(settings, clock) as http:
        lonely = await http.get("/health/ready")
        assert lonely.status_code == 200
        assert lonely.json()["status"] == "degraded"
        assert lonely.json()["checks"]["worker"].startswith("degraded")
        async with db.every_tenant() as connection:
            await connection.execute("INSERT INTO workers VALUES ('w', $1, $1)", clock())
        well = await http.get("/health/ready")
        assert well.json() == {
            "status": "ok",
            "checks": {"database": "ok", "schema": "ok", "valkey": "ok", "worker": "ok"},
        }
        clock.forward(seconds=31)
        assert (await http.get("/health/ready")).json()["status"] == "degraded"
        clock.now -= timedelta(seconds=31)
    async with serve(settings, clock, redis_url="redis://127.0.0.1:1/0") as http:
        assert (await http.get("/health/ready")).json()["checks"]["valkey"].startswith("degraded")
        assert (await http.otp(nobody(), "request")).status_code == 202
    async with serve(settings, clock, database_url=AWAY) as http:
        away = await http.get("/health/ready")
        assert (away.status_code, away.json()["status"]) == (503, "unavailable")
        assert (await http.get("/health/live")).json() == {"status": "ok"}


async def test_without_the_database_the_answer_is_503(settings: Settings, clock: Clock) -> None:
    """Nothing is half done; the caller learns when to try again."""
    async with serve(settings, clock, database_url=AWAY) as http:
        answer = await http.otp(nobody(), "request")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1


def test_expected_revision_is_the_head_of_the_migrations() -> None:
    """Readiness reads file names, which is cheap; Alembic must agree."""
    assert expected_revision() == head()


async def test_metrics_stay_on_this_machine(settings: Settings, clock: Clock) -> None:
    """Counted by template, never by path; in production told to this machine only, and to nobody behind a proxy."""
    async with serve(settings, clock) as http:
        await http.otp(slug := nobody(), "request")
        text = (await http.get("/metrics")).text
    route = re.escape("/api/v1/tenants/{slug}/otp/request")
    assert re.search(rf'gatehouse_http_requests_total{{method="POST",route="{route}",status="202"}} 1.0', text)
    assert slug not in text
    async with serve(settings, clock, environment="production") as http:
        assert (await http.get("/metrics")).status_code == 404
    async with serve(settings, clock, environment="production", client_address="127.0.0.1") as http:
        assert (await http.get("/metrics")).status_code == 200
        assert (await http.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"})).status_code == 404


async def test_metrics_for_whoever_has_the_token(settings: Settings, clock: Clock) -> None:
    """With METRICS_TOKEN a scraper elsewhere reads them, and nobody without it does, this machine included."""
    token = "scrape" + "r" * 40
    async with serve(settings, clock, environment="production", metrics_token=token) as http:
        given = {"Authorization": f"Bearer {token}"}
        assert (await http.get("/metrics", headers=given)).status_code == 200
        for wrong in (
            {},
            {"Authorization": "Bearer "},
            {"Authorization": f"Bearer {token[:-1]}"},
            {"Authorization": token},
        ):
            assert (await http.get("/metrics", headers=wrong)).status_code == 404
    async with serve(
        settings, clock, environment="production", metrics_token=token, client_address="127.0.0.1"
    ) as http:
        assert (await http.get("/metrics")).status_code == 404


async def test_the_document_tells_every_operation_and_refusal(settings: Settings, clock: Clock) -> None:
    """Each route of the API is in the OpenAPI document, with a summary, and its refusals as problem documents."""
    async with serve(settings, clock) as http:
        document = json.loads((await http.get("/docs/openapi.json")).content)
        routes = {
            (route.path_format, method.lower())
            for route in http.app.routes
            if route.path.startswith(("/api/", "/.well-known"))
            for method in route.methods
            if method != "OPTIONS"
        }
    told = {(path, method) for path, operations in document["paths"].items() for method in operations}
    assert told == routes
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    (media_type, content), *_ = answer["content"].items()
                    assert media_type == "application/problem+json", (method, path, status)
                    assert set(content["examples"]) <= CODES
    request = document["paths"]["/api/v1/tenants/{slug}/otp/request"]["post"]
    assert request["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/CodeRequest"
    }
    assert document["components"]["schemas"]["CodeRequest"]["additionalProperties"] is False
    assert set(request["responses"]) == {"202", "400", "401", "403", "404", "409", "422", "429", "502", "503"}


async def test_the_reference_needs_nobody_else(settings: Settings, clock: Clock) -> None:
    """The page has no inline script or style, and everything it names is ours and there."""
    async with serve(settings, clock) as http:
        page = await http.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=|https?://", page.text)
        named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(named) >= 4
        for path in named:
            assert (await http.get(path)).status_code == 200, path
        assert (await http.get("/docs/something-else")).json()["code"] == "not-found"


async def test_static_files_are_compressed_and_remembered(settings: Settings, clock: Clock) -> None:
    """Small over the wire, not sent twice; a path that leads out of the directory leads nowhere."""
    async with serve(settings, clock) as http:
        first = await http.get("/static/css/gatehouse.css", headers={"Accept-Encoding": "gzip"})
        assert first.headers["content-encoding"] == "gzip"
        again = await http.get("/static/css/gatehouse.css", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        vendored = await http.get("/static/vendor/swagger-ui-5.35.0.css")
        assert "immutable" in vendored.headers["cache-control"]
        for path in ("/static/..%2fpyproject.toml", "/static/%2fetc/passwd", "/static/css", "/static/"):
            assert (await http.get(path)).status_code == 404, path


async def test_options_break_nothing(settings: Settings, clock: Clock) -> None:
    """OPTIONS on any route of both portals is answered or refused, never a server error."""
    async with serve(settings, clock) as http:
        paths = {re.sub(r"\{[^}]*\}", "x", route.path) for route in http.app.routes}
        assert len(paths) > 50
        for path in paths:
            assert (await http.client.options(path)).status_code < 500, path


async def test_a_key_opens_only_what_it_was_made_for(settings: Settings, clock: Clock, db: Database) -> None:
    """Scopes: a key for sign-in neither introspects nor administers, and the other way round."""
    keys = ApiKeys(db, clock)
    async with serve(settings, clock) as http:

        async def answers(scope: str) -> list[int]:
            _, text = await keys.create("front end", "owner", [scope], actor=Actor("operator"), client=Client("cli"))
            headers = {"Authorization": f"Bearer {text}"}
            asked = await http.otp("nobody-has-this", "request", headers=headers)
            introspected = await http.post("/api/v1/auth/introspect", {"token": "x"}, headers=headers)
            administered = await http.get("/api/v1/admin/tenants", headers=headers)
            return [asked.status_code, introspected.status_code, administered.status_code]

        assert await answers("sign-in") == [404, 403, 403]
        assert await answers("introspect") == [403, 200, 403]
        assert await answers("admin") == [403, 403, 200]
    with pytest.raises(errors.InvalidRequest):
        await keys.create("none", "owner", ["everything"], actor=Actor("operator"), client=Client("cli"))
