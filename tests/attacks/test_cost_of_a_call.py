"""What a stranger's call costs: under 5 ms of processor time at every route, whatever is sent.

Walks the route table of the application, so a new route takes part by itself. The time is that of the event loop's own
thread: it is what everybody else waits for. Passwords are hashed in threads of their own, behind a line of their own.
"""

import json
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from litestar import Litestar

from app.auth.credentials import MfaToken, new_cookie
from app.auth.devices import device_token
from app.auth.tokens import RefreshToken, sign_access
from app.keys import KeyRing, base64url
from app.settings import Settings
from app.storage.db import Database
from app.web import csrf
from tests.conftest import Clock
from tests.http import BASE_URL, Http, serve
from tests.matrix import STRANGERS, Operation, operations, rule_for
from tests.people import add_tenant

_MOST: Final = 0.005
_ON_A_BUSY_MACHINE: Final = 0.012
# What is over is measured again, so often: a busy machine makes a call dearer, never cheaper.
_AGAIN: Final = 15
# What 50,000 squares take: processor time is dearer where neighbours share the core.
_REFERENCE: Final = 0.0035
_BODY: Final = 16_000
_HEAD: Final = 7_000
_PRE_SESSION: Final = "A" * 43
_NOBODY: Final = UUID(int=5)


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as it comes from a socket."""

    name: str
    method: str
    path: str
    query: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


async def send(app: Litestar, call: Call) -> tuple[int, float]:
    """The status, and the seconds of processor time that this thread spent on it."""
    head = {"host": "localhost:8000", "content-length": str(len(call.body)), **call.headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "query_string": call.query,
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in head.items()],
        "client": ("192.0.2.10", 50000),
        "server": ("localhost", 8000),
        "state": {},
    }
    told: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": call.body, "more_body": False}

    async def answer(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            told.append(message["status"])

    before = time.thread_time()
    await app(scope, receive, answer)  # type: ignore[arg-type] # as a server calls it
    return told[0], time.thread_time() - before


class Nasty:
    """What somebody sends who wants to keep the processor busy. None of it opens anything."""

    def __init__(self, ring: KeyRing, settings: Settings, clock: Clock, slug: str) -> None:
        self.slug = slug
        keys, now = ring.current, clock()
        access: dict[str, Any] = {
            "issuer": settings.jwt_issuer,
            "audience": settings.jwt_audience,
            "ttl": 900,
            "slug": slug,
        }
        ours = sign_access(keys, now, **access, tenant_id=_NOBODY, subject_id=_NOBODY, session_id=_NOBODY)
        refresh = RefreshToken.first(keys, _NOBODY, uuid4())
        deep = base64url(b'{"kid":' + b"[" * 2_500)
        huge_kid = base64url(json.dumps({"alg": "EdDSA", "typ": "at+jwt", "kid": "k" * 2_500}).encode())
        self.tokens = {
            "ours": ours,
            "spoilt": ours[:-4] + "AAAA",
            "huge kid": f"{huge_kid}.{base64url(b'{}')}.{'A' * 86}",
            "deep": f"{deep}.{deep}.AAAA",
            "dots": "." * _HEAD,
            "long": "e" * _HEAD,
            "key": f"ghk_{uuid4().hex}_{'A' * _HEAD}",
            "underscores": "ghk_" + "_" * _HEAD,
        }
        self.refresh = {
            "made up": replace(refresh, secret=bytes(32)).text(),
            "of old": refresh.text(),
            "last": replace(refresh, n=2**31 - 2).text(),
            "long": "ghr_" + "A" * _BODY,
        }
        self.cookies = {
            "of nobody": f"gh_session={new_cookie(_NOBODY, uuid4())}; gh_admin={new_cookie(_NOBODY, uuid4())}",
            "many": "; ".join(f"c{n}=v" for n in range(1_000)),
            "long": f"gh_session={'A' * _HEAD}",
            "quoted": 'gh_session="' + "\\" * (_HEAD - 20) + '"',
        }
        self.device = device_token(keys, slug, _NOBODY, uuid4())
        self.mfa = MfaToken.new(_NOBODY, uuid4()).text()
        self.form = csrf.token(keys, "tenant", _PRE_SESSION)
        self.admin_form = csrf.token(keys, "admin", _PRE_SESSION)

    def heads(self) -> Sequence[tuple[str, dict[str, str]]]:
        """One nasty header at a time."""
        found = [(f"bearer: {name}", {"authorization": f"Bearer {token}"}) for name, token in self.tokens.items()]
        found += [(f"cookies: {name}", {"cookie": cookies}) for name, cookies in self.cookies.items()]
        for name, values in {
            "accept-language": ["en-" * 2_000, "a;q=0.1," * 900, "," * _HEAD, "de-" + "x-" * 3_000],
            "accept": ["text/html;" * 600, "*/*," * 1_500],
            "x-device-token": [self.device, "A" * _HEAD, self.device + "A" * 6_000],
            "prefer": ["wait=" + "1" * _HEAD, "wait = ," * 800, "," * _HEAD, ",wait" * 1_300],
            "x-client-ip": ["1" * _HEAD, ":" * _HEAD],
            "x-forwarded-for": ["1.1.1.1," * 800],
            "user-agent": ["\x7f" * _HEAD, "Mozilla/5.0 (" * 500],
            "if-match": ['"' + "1" * _HEAD, 'W/"1",' * 1_000],
            "idempotency-key": ["k" * _HEAD],
            "content-type": ["application/json;" + "a=b;" * 1_500, "multipart/form-data; boundary=" + "b" * 6_000],
            "origin": ["http://" + "a." * 3_000],
            "hx-current-url": ["http://localhost:8000/" + "a/" * 3_000],
            "accept-encoding": ["gzip;q=1," * 700],
        }.items():
            found += [(f"{name} {n}", {name: value}) for n, value in enumerate(values)]
        return found

    def values(self) -> Mapping[str, Sequence[str]]:
        """By field: what is dear to read or to compare."""
        emails = [
            "a@" + "b." * 4_000 + "example",
            "a" * 64 + "@" + "x" * 8_000,
            "a@" + ".".join(["xn--" + "a" * 59] * 60),
            "a@" + "\u00fc" * 4_000 + ".example",
            '"' + "\\a" * 4_000 + '"@x.example',
            "@" * 8_000,
            "a@xn--" + "9" * 4_000 + ".example",
            "a@" + "\u0627\u0301" * 2_000 + ".example",
        ]
        phones = [
            "+" + "4" * 10_000,
            "+44" + "(" * 8_000,
            "+44 " + "7 " * 5_000,
            "tel:" + "+" * 8_000,
            "\u0664" * 4_000,
            "+447700900123" + "x" * 5_000,
            "+44 7700 900123;ext=" + "1" * 5_000,
        ]
        texts = ["x" * 12_000, "\u0301" * 5_000, "\u200b" * 5_000, "\U0001f468\u200d" * 2_000]
        return {
            "identifier": [*emails, *phones, *texts],
            "email": emails,
            "phone_number": phones,
            "name": texts,
            "device_name": texts,
            "slug": ["a-" * 5_000, *texts],
            "next": ["http://" + "a" * 8_000, "/" * 10_000, "%2e" * 3_000, "http://[" + ":" * 5_000],
            "code": ["1" * 12_000, "\u0664" * 5_000, " -" * 6_000],
            "totp": ["1" * 12_000, "\u0664" * 5_000],
            "backup_code": ["o" * 12_000],
            "challenge_id": ["A" * 12_000, "A" * 22, "\u00e9" * 22],
            "mfa_token": [self.mfa, "ghm_" + "A" * 12_000],
            "registration_token": [self.mfa, "ghm_" + "A" * 12_000],
            "refresh_token": list(self.refresh.values()),
            "token": list(self.tokens.values()),
            "channel": texts[:1],
            "purpose": texts[:1],
        }

    def documents(self) -> Sequence[tuple[str, bytes]]:
        """Bodies that are no object of ours."""
        return [
            ("arrays", b"[" * _BODY),
            ("objects", b'{"a":' * (_BODY // 5)),
            ("closed arrays", b"[" * 8_000 + b"]" * 8_000),
            ("many fields", json.dumps({f"f{n}": 1 for n in range(1_400)}).encode()),
            ("one name", b"{" + b",".join([b'"identifier":"a"'] * 900) + b"}"),
            ("number", b"1" * _BODY),
            ("fraction", b"0." + b"1" * (_BODY - 2)),
            ("exponent", b'{"code":1e' + b"9" * 15_000 + b"}"),
            ("escapes", b'{"code":"' + b"\\u0041" * 2_600 + b'"}'),
            ("surrogates", b'{"code":"' + b"\\ud83d" * 2_600 + b'"}'),
            ("invalid", b"\xff" * _BODY),
            ("spaces", b" " * _BODY),
        ]

    def path(self, operation: Operation) -> Sequence[tuple[str, str]]:
        """The path, and with dear values in the place of its parameters."""
        plain = {"slug": self.slug, "token": "A" * 86, "code": "rate-limited", "provider": "twilio", "path": "x"}
        paths = [("", operation.path(_Any(plain, str(uuid4()))))]
        if "{" in operation.template:
            for name, value in (("long", "a" * 6_000), ("dashes", "a-" * 3_000), ("dots", "%2e." * 1_500)):
                paths.append((f"path {name}: ", operation.path(_Any({}, value))))
        return paths

    def calls(self, operation: Operation) -> Sequence[Call]:
        """Everything at one route."""
        page = operation.is_page
        own = {"accept": "text/html"} if page else {"content-type": "application/json"}
        (_, path), *others = self.path(operation)
        # What is behind a guard is refused before most of it is read.
        guarded = rule_for(operation)(STRANGERS[0], operation, self.slug) is not None
        found = [Call("plain", operation.method, path, headers=own)]
        found += [Call(name, operation.method, other, headers=own) for name, other in others]
        heads = self.heads()
        if guarded and operation.safe:
            heads = heads[:12]
        found += [Call(name, operation.method, path, headers=own | head) for name, head in heads]
        values = self.values()
        found.append(Call("query", operation.method, path, b"&".join([b"a=b"] * 1_700), own))
        queries = [("next", value) for value in values["next"]] if page else []
        queries += [
            (name, "a-" * 2_500) for name in ("cursor", "before", "done", "why", "using", "q", "lang", "max_age")
        ]
        found += [
            Call(f"?{name}={value[:9]}", operation.method, path, urlencode({name: value[:5_000]}).encode()[:7_000], own)
            for name, value in queries
        ]
        if operation.safe:
            return found
        if guarded:
            bodies = [b"[" * _BODY, b"{" + b'"a":{' * 3_000, b"a=b&" * 4_000]
            return [*found, *(Call("body", operation.method, path, headers=own, body=body) for body in bodies)]
        if page:
            token = self.admin_form if operation.template.startswith("/admin") else self.form
            kept = f"gh_pre={_PRE_SESSION}"
            head = {
                **own,
                "cookie": kept,
                "origin": BASE_URL,
                "content-type": "application/x-www-form-urlencoded",
                csrf.HEADER: token,
            }
            for name, of in values.items():
                for n, value in enumerate(of):
                    body = urlencode({name: value}).encode()[:_BODY]
                    found.append(Call(f"form {name} {n}", operation.method, path, headers=head, body=body))
            fields = b"&".join([b"a=b"] * 4_000)
            found.append(Call("fields", operation.method, path, headers=head, body=fields))
            found.append(Call("percents", operation.method, path, headers=head, body=b"a=" + b"%41" * 5_000))
            return found
        usual: dict[str, Any] = {
            "challenge_id": "A" * 22,
            "code": "123456",
            "name": "Ana",
            "email": "a@b.example",
            "consent": {"document": "terms", "version": "1"},
            "identifier": "a@b.example",
            "mfa_token": self.mfa,
            "refresh_token": self.refresh["made up"],
            "token": self.tokens["ours"],
        }
        for name, of in values.items():
            for n, value in enumerate(of):
                body = json.dumps({name: value}).encode()[:_BODY]
                found.append(Call(f"json {name} {n}", operation.method, path, headers=own, body=body))
                filled = {key: usual[key] for key in _FIELDS.get(operation.template.rsplit("/", 1)[-1], ())}
                body = json.dumps({**filled, name: value}, ensure_ascii=False).encode()[:_BODY]
                found.append(Call(f"whole {name} {n}", operation.method, path, headers=own, body=body))
        found += [Call(name, operation.method, path, headers=own, body=body) for name, body in self.documents()]
        return found


_FIELDS: Final = {
    "request": (),
    "resend": ("challenge_id",),
    "verify": ("challenge_id", "code"),
    "status": ("challenge_id",),
    "members": ("name", "email", "consent"),
    "mfa": ("mfa_token",),
    "refresh": ("refresh_token",),
    "confirm": ("code",),
    "introspect": ("token",),
}


class _Any(dict[str, str]):
    """What a path is filled with: a value for any name."""

    def __init__(self, known: Mapping[str, str], otherwise: str) -> None:
        super().__init__(known)
        self._otherwise = otherwise

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, _: str) -> str:
        return self._otherwise


@pytest.fixture
async def served(settings: Settings, clock: Clock) -> AsyncIterator[Http]:
    async with serve(settings, clock, otp_disclose_errors=False, metrics_token="m" * 40) as http:
        yield http


@pytest.mark.parametrize(
    "most", [pytest.param(_ON_A_BUSY_MACHINE, id="short"), pytest.param(_MOST, id="long", marks=pytest.mark.long)]
)
async def test_no_strangers_call_is_dear(
    served: Http, db: Database, ring: KeyRing, settings: Settings, clock: Clock, most: float
) -> None:
    """Every route, by somebody without a session: under 5 ms each, and never a mistake of ours. In short, among tests
    that share the caches, what is more than twice that.
    """
    nasty = Nasty(ring, settings, clock, (await add_tenant(db, clock())).slug)
    dear: dict[str, float] = {}
    broken: list[str] = []
    asked = 0
    for operation in operations(served.app):
        for call in nasty.calls(operation):
            clock.forward(seconds=1)
            asked += 1
            status, spent = await send(served.app, call)
            if status >= 500 and status != 503:
                broken.append(f"{operation}: {call.name}: {status}")
            if spent > most:
                again = [(await send(served.app, call))[1] for _ in range(_AGAIN)]
                if statistics.median(again) > most * slowness():
                    dear[f"{operation}: {call.name}"] = round(statistics.median(again) * 1000, 1)
    assert asked > 5_000
    assert broken == []
    assert dear == {}


def slowness() -> float:
    """By what factor this machine is slower at the moment than an idle core of some years ago; at least 1."""
    spent = []
    for _ in range(5):
        before = time.thread_time()
        sum(n * n for n in range(50_000))
        spent.append(time.thread_time() - before)
    return max(1.0, statistics.median(spent) / _REFERENCE)


async def test_the_measure_notices(served: Http) -> None:
    """A route that reckons for longer is seen."""
    from litestar import get  # noqa: PLC0415 - only here

    @get("/reckons", sync_to_thread=False)
    def reckons() -> str:
        return str(sum(n * n for n in range(800_000)))

    served.app.register(reckons)
    spent = [(await send(served.app, Call("plain", "GET", "/reckons")))[1] for _ in range(3)]
    assert statistics.median(spent) > _MOST * slowness()
