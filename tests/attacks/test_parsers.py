"""Everything that reads what others wrote: texts with placeholders, searches, policies, cursors, headers, JSON.

Never a server error and never long, whatever is in it: what is built to make a parser climb or count is refused.
"""

import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode
from uuid import UUID

import httpx
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.cursors import Moment, Number, Text, read_cursor, show_cursor
from app.delivery import wording
from app.delivery.brand_rules import RULES, SMS_NAMES, check_branding
from app.errors import InvalidRequest
from app.keys import KeyRing, base64url
from app.members import search as member_search
from app.settings import Settings
from app.storage.db import Database
from app.tenants import search as tenant_search
from app.tenants.policy import POLICY_KEYS, parse_policy, parse_policy_assignments
from app.web.caller import preferred_wait
from app.web.texts import choose_language
from tests.admins import AdminBrowser, add_admin
from tests.attacks.test_schemathesis import Target, target_of
from tests.conftest import Clock
from tests.people import SomeTenant, add_tenant

# Seconds of processor time for one call; the slowest takes a twentieth, whole pages included.
_LONGEST: Final = 0.5
_EXAMPLES: Final = hypothesis_settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
_MANY: Final = hypothesis_settings(_EXAMPLES, max_examples=500)

# What makes one parser or another go deep, go round, or count.
NASTY: Final = [
    "{{" + "(" * 140 + "code" + ")" * 140 + "}}",
    "{{" + "[" * 145 + "}}",
    "{{" + "{" * 145,
    "{{" * 150,
    "{{ code" + ".a" * 140 + " }}",
    "{{ code" + "[0]" * 90 + " }}",
    "{{ code" + "|e" * 140 + " }}",
    "{{" + "-" * 200 + "code }}",
    "{{" + " not" * 60 + " code }}",
    "{{" + "~".join(["code"] * 50) + "}}",
    "{% if code %}" * 22,
    "{% for i in range(10**10) %}{{ code }}{% endfor %}",
    "{{ 'a' * 10**9 }}{{ code }}",
    "{{ 10 ** 10 ** 10 }}{{ code }}",
    "{% include 'words/en.j2' %}",
    "{% extends code %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ code.format(code) }}",
    "{% raw %}{{ code }}",
    "{#" * 100,
    "{{{ code }}}",
    "{{ code }}}}{{",
    "{ { code } }",
    "%" * 120 + "_" * 120,
    "\\" * 250,
    "(" * 250,
    "((a+)+)+$" * 20,
    "'" * 250,
    "\ufdfa" * 80,
    "a" + "\u0316\u0300" * 120,
    "\u202e\u200b\ufeff" * 60,
    "\U0010ffff" * 60,
    "+" + "٣" * 40,
    "a@" + "ß" * 240,
]
texts: Final = st.one_of(
    st.sampled_from(NASTY),
    st.text(alphabet="{}%#()[]|.-~*'\"\\ _code\u202e\0", max_size=250),
    st.text(max_size=250),
    st.builds(lambda piece, times: (piece * times)[:250], st.text(min_size=1, max_size=6), st.integers(1, 250)),
)
leaves: Final = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)
values: Final = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)


def nested(depth: int, leaf: str = "1") -> str:
    return "[" * depth + leaf + "]" * depth


def refused(call: Callable[[], object]) -> str:
    """What is said to whoever wrote it; nothing where it is taken. Any other error is a fault of ours."""
    try:
        call()
    except (InvalidRequest, ValueError) as refusal:
        return str(refusal)
    return ""


@_MANY
@given(source=texts)
@example(source="{{ code }}{{- tenant -}}")
def test_words_that_pass_can_be_filled_in(source: str) -> None:
    """Checked at once, refused with a sentence or filled in; what passes is text and names, to Jinja too."""
    began = time.process_time()
    said = refused(lambda: wording.check(source, names=SMS_NAMES, needed="code"))
    filled = wording.fill(source, {"code": "<123456>", "tenant": "Acme", "lifetime": "soon"}) if not said else ""
    assert time.process_time() - began < _LONGEST
    assert said.endswith(".") or ("<123456>" in filled and "{{" not in filled)


@_MANY
@given(name=st.sampled_from(sorted(RULES)), value=st.one_of(values, st.sampled_from([t * 40 for t in NASTY])))
def test_no_branding_is_a_fault_of_ours(name: str, value: object) -> None:
    """Every field, any value: taken or refused."""
    began = time.process_time()
    refused(lambda: check_branding({name: value}))
    assert time.process_time() - began < _LONGEST


@_MANY
@given(key=st.one_of(st.sampled_from(POLICY_KEYS), texts), value=values)
def test_no_policy_is_a_fault_of_ours(key: str, value: object) -> None:
    """As JSON and as text of a command line or a cell."""
    began = time.process_time()
    refused(lambda: parse_policy({key: value}))
    refused(lambda: parse_policy_assignments([f"{key}={value}"]))
    assert time.process_time() - began < _LONGEST


TENANT: Final = UUID(int=7)
CURSORS: Final[dict[str, Callable[[str], object]]] = {
    "tenants": lambda text: tenant_search.build(
        tenant_search.Filters(contacts=True), sort="updated_at", cursor=text, limit=10
    ),
    "members": lambda text: member_search.build(TENANT, member_search.Filters(contacts=True), text, 10),
    "events": lambda text: read_cursor(text, tuple[Moment, Number]),
    "timeline": lambda text: read_cursor(text, tuple[Moment, Text]),
}
PACKED: Final = [
    nested(20_000),
    f'{{"name":"a","id":"{TENANT}","backwards":false,"x":{nested(20_000)}',
    f'["updated_at",false,"0001-01-01T00:00:00+23:59","{TENANT}"]',
    f'["updated_at",false,"2026-01-01T00:00:00","{TENANT}"]',
    f'["updated_at",false,"\\u0000","{TENANT}"]',
    '["0001-01-01T00:00:00+23:59",1]',
    '["9999-12-31T23:59:59-23:59",1]',
    '["2026-01-01T00:00:00",1]',
    '["2026-01-01T00:00:00Z",9223372036854775808]',
    '["2026-01-01T00:00:00Z",-1]',
    f'["2026-01-01T00:00:00Z",{"9" * 1900}]',
    '["2026-01-01T00:00:00Z","a\\u0000"]',
    f'{{"name":"\\u0000","id":"{TENANT}","backwards":false}}',
]


def test_a_cursor_of_ours_leads_on() -> None:
    """What is shown is read again, to the last number that the database has."""
    place = (datetime(2026, 3, 14, 9, 26, 53, 589793, UTC), 2**63 - 1)
    assert read_cursor(show_cursor(place), tuple[Moment, Number]) == place


@pytest.mark.parametrize("list_", CURSORS)
@pytest.mark.parametrize("packed", PACKED, ids=lambda packed: packed[:40])
def test_a_cursor_of_ones_own_making_is_refused(list_: str, packed: str) -> None:
    """Deep, foreign, or a place that the database doesn't have: 400 before it is asked."""
    with pytest.raises(InvalidRequest) as refusal:
        CURSORS[list_](base64url(packed.encode()))
    assert [error.pointer for error in refusal.value.errors] == ["/cursor"]


@_MANY
@given(
    text=st.one_of(
        texts,
        st.binary(max_size=200).map(base64url),
        values.map(lambda v: base64url(repr(v).encode("utf-8", "replace"))),
    )
)
def test_no_cursor_is_a_fault_of_ours(text: str) -> None:
    """Any text, any bytes."""
    for read in CURSORS.values():
        if text:
            with pytest.raises(InvalidRequest):
                read(text)


class _Asked:
    """As much of a request as headers are read from."""

    def __init__(self, value: str) -> None:
        self.headers = {"prefer": value}


@_MANY
@given(value=st.one_of(texts, st.sampled_from([t * 100 for t in (",", ", ", "wait=", 'wait = "', ";;q=", "en;q=1,")])))
def test_headers_are_read_at_once(value: str) -> None:
    """Whatever stands in them they mean something of ours, or nothing."""
    began = time.process_time()
    assert choose_language(value) in {None, "en", "de", "fr", "es", "pt", "ar", "hi"}
    asked: Any = _Asked(value)
    assert 0 <= preferred_wait(asked) <= 10
    assert time.process_time() - began < _LONGEST


@dataclass(frozen=True, slots=True)
class Doors:
    """The application, an owner's key and browser, and a tenant to work on."""

    target: Target
    tenant: SomeTenant
    browser: AdminBrowser

    async def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = self.target.callers["an owner's key"] | options.pop("headers", {})
        return await self.target.http.client.request(method, f"/api/v1/admin{path}", headers=headers, **options)

    async def form(self, path: str, page: str, **fields: str) -> httpx.Response:
        return await self.browser.press(f"/admin{path}", f"/admin{page}", fields)


Door: TypeAlias = Callable[[Doors, str], Coroutine[Any, Any, httpx.Response]]
# Where a text of somebody's choice comes in, and how it gets there.
DOORS: Final[dict[str, Door]] = {
    "a text of mails, API": lambda d, t: d.api("PUT", f"/tenants/{d.tenant.slug}/branding", json={"email_intro": t}),
    "a text of SMS, API": lambda d, t: d.api("PUT", f"/tenants/{d.tenant.slug}/branding", json={"sms_text": t}),
    "texts, page": lambda d, t: d.form(
        f"/tenants/{d.tenant.slug}/branding",
        f"/tenants/{d.tenant.slug}/branding",
        version="1",
        email_intro=t,
        sms_text=t,
        sender_name=t,
    ),
    "search for tenants, API": lambda d, t: d.api("GET", "/tenants", params={"search": t}),
    "search for tenants, page": lambda d, t: d.browser.get(f"/admin/tenants?{urlencode({'q': t})}"),
    "export of tenants": lambda d, t: d.api("GET", "/tenants/export", params={"search": t}),
    "search for members, API": lambda d, t: d.api("GET", f"/tenants/{d.tenant.slug}/members", params={"search": t}),
    "search for members, page": lambda d, t: d.browser.get(
        f"/admin/tenants/{d.tenant.slug}/members?{urlencode({'q': t})}"
    ),
    "export of members": lambda d, t: d.api("GET", f"/tenants/{d.tenant.slug}/members/export", params={"search": t}),
    "a policy, API": lambda d, t: d.api(
        "PATCH", f"/tenants/{d.tenant.slug}", json={"policy": {t: t, "max_attempts": t}}
    ),
    "a policy, CSV": lambda d, t: d.api(
        "POST",
        "/tenants/import?dry_run=true",
        content=f"slug,policy\n{d.tenant.slug},max_attempts={t}\n".encode("utf-8", "replace"),
        headers={"Content-Type": "text/csv"},
    ),
    "a name, API": lambda d, t: d.api("PATCH", f"/tenants/{d.tenant.slug}", json={"name": t}),
    "a contact, API": lambda d, t: d.api("PATCH", f"/tenants/{d.tenant.slug}", json={"email": t, "phone_number": t}),
    "an action to look for": lambda d, t: d.api("GET", "/events", params={"action": t}),
    "a time to look from": lambda d, t: d.api("GET", "/events", params={"from": t}),
    "a provider to look for": lambda d, t: d.api("GET", "/deliveries", params={"provider": t}),
    "a cursor of events": lambda d, t: d.api("GET", "/events", params={"cursor": t}),
    "a cursor of deliveries": lambda d, t: d.api("GET", "/deliveries", params={"cursor": t}),
    "a cursor of a timeline": lambda d, t: d.api("GET", f"/tenants/{d.tenant.slug}/timeline", params={"cursor": t}),
    "a cursor of a history": lambda d, t: d.browser.get(
        f"/admin/tenants/{d.tenant.slug}/history?{urlencode({'cursor': t})}"
    ),
    "an entity tag": lambda d, t: d.api(
        "PATCH", f"/tenants/{d.tenant.slug}", json={"name": "Acme"}, headers={"If-Match": in_a_header(t)}
    ),
    "an idempotency key": lambda d, t: d.api(
        "POST", f"/tenants/{d.tenant.slug}/unlock", headers={"Idempotency-Key": in_a_header(t)}
    ),
    "an identifier": lambda d, t: d.target.http.otp(
        d.tenant.slug, "request", {"identifier": t}, headers={"Accept-Language": in_a_header(t)}
    ),
}


def in_a_header(text: str) -> str:
    """As much of it as HTTP lets through."""
    return text.encode("ascii", "replace").decode().replace("\0", "?").replace("\r", "?").replace("\n", "?").strip()


@pytest.fixture(scope="module")
def doors(settings: Settings) -> Iterator[Doors]:
    clock = Clock()
    with target_of(settings, clock) as target:

        async def furnish() -> Doors:
            assert settings.database_url
            db = Database(settings.database_url, application="tests")
            await db.open()
            browser = AdminBrowser.of(target.http)
            await browser.sign_in(db, KeyRing(settings.secret_keys), await add_admin(db, clock))
            tenant = await add_tenant(db, clock())
            await db.close()
            return Doors(target, tenant, browser)

        yield target.run(furnish())


# Times that the calendar has and the database hasn't.
TIMES: Final = ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1e400", "99999999999999", "-1"]


@pytest.mark.parametrize("door", DOORS)
def test_no_text_makes_the_server_stumble(doors: Doors, door: str) -> None:
    """By API, page and file: an answer below 500, at once."""

    def knock(text: str) -> None:
        began = time.process_time()
        answer = doors.target.run(DOORS[door](doors, text))
        assert answer.status_code < 500, (text, answer.text)
        assert time.process_time() - began < _LONGEST, text

    for text in (*NASTY, *TIMES, *(base64url(packed.encode()) for packed in PACKED)):
        knock(text)
    _EXAMPLES(given(texts)(knock))()


@pytest.mark.parametrize("depth", [10, 200, 900, 990, 1000, 1100, 7000])
def test_no_depth_makes_the_server_stumble(doors: Doors, depth: int) -> None:
    """JSON as deep as a body can be, where any value may stand: as a policy, by API and in a file."""
    policy = f'"policy": {{"max_attempts": {nested(depth)}}}'
    body, line = f"{{{policy}}}", f'{{"slug": "{doors.tenant.slug}", {policy}}}'
    answers = doors.target.run(_sent(doors, body, line))
    assert [answer.status_code for answer in answers] == [400, 200], [answer.text for answer in answers]
    assert answers[1].json()["faulty"] == 1


async def _sent(doors: Doors, body: str, line: str) -> list[httpx.Response]:
    return [
        await doors.api(
            "PATCH", f"/tenants/{doors.tenant.slug}", content=body, headers={"Content-Type": "application/json"}
        ),
        await doors.api(
            "POST", "/tenants/import?dry_run=true", content=line, headers={"Content-Type": "application/jsonl"}
        ),
    ]
