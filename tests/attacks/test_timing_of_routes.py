"""How long an answer takes tells nothing about whose slug it is, by any route that a stranger may call with one.

Generated from the route table: a new route takes part by itself, called as a stranger would, or fails until `WAYS` says
how it is called. What a body may change of it, and what members are told: `test_timing.py`, `test_member_timing.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from app.asgi import create_app
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.web import csrf
from app.web.cookies import per_tenant
from tests.conftest import Clock
from tests.http import BASE_URL
from tests.matrix import Bodies, Operation, _open, operations, rule_for
from tests.people import CONSENT
from tests.timing import LATE, Arm, assert_alike, lengths, measured

_PRE_SESSION: Final = "A" * 43
_REACHABLE: Final = {"email": "'owner@' || s || '.example'", "status": "'active'"}
_LOGO: Final = {
    "logo": "convert_to(repeat('x', 60000), 'UTF8')",
    "logo_version": "'version'",
    "logo_type": "'image/png'",
    "logo_width": "64",
    "logo_height": "64",
}
# What stands for a path's other parameters.
_VALUES: Final = {"token": "x" * 86}
_HALF: Final = "x" * 90


def _cookie(name: str, value: str) -> Any:
    return lambda slug: f"gh_pre={_PRE_SESSION}; gh_{per_tenant(name, slug)}={value}"


_KEPT: Final = {"Cookie": _cookie("challenge", "{challenge}.6.0.")}
_UNDER_WAY: Final[Mapping[str, Any]] = {"asks_first": True, "headers": _KEPT}
_HALF_WAY: Final = {"headers": {"Cookie": _cookie("half", f"totp.{_HALF}.")}}
# How a route is called, beyond a stranger's first call of it: with a code under way, or with what people type.
WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "POST /api/v1/tenants/{slug}/otp/request": {"body": {}},
    "POST /api/v1/tenants/{slug}/otp/resend": {"asks_first": True, "body": {"challenge_id": "{challenge}"}},
    "POST /api/v1/tenants/{slug}/otp/status": {"asks_first": True, "body": {"challenge_id": "{challenge}"}},
    "POST /api/v1/tenants/{slug}/otp/verify": {
        "asks_first": True,
        "body": {"challenge_id": "{challenge}", "code": "000000"},
    },
    "POST /api/v1/tenants/{slug}/members": {"body": {"name": "Ana", "email": "ana@{slug}.example", "consent": CONSENT}},
    "GET /t/{slug}/verify": _UNDER_WAY,
    "GET /t/{slug}/verify/status": {**_UNDER_WAY, "headers": {**_KEPT, "HX-Request": "true"}},
    "POST /t/{slug}/verify": {**_UNDER_WAY, "body": {"code": "000000"}},
    "POST /t/{slug}/resend": _UNDER_WAY,
    "GET /t/{slug}/second-factor": _HALF_WAY,
    "POST /t/{slug}/second-factor": _HALF_WAY | {"body": {"totp": "000000"}},
    "POST /t/{slug}/second-factor/enrol": _HALF_WAY | {"body": {"code": "000000"}},
    "POST /t/{slug}/register": {
        "body": {"name": "Ana", "email": "ana@{slug}.example", "consent": "yes", "document": "terms", "version": "1"}
    },
}


def strangers(settings: Settings) -> list[Operation]:
    """Every call with a slug that needs nobody to be signed in."""
    found = operations(create_app(settings))
    return [each for each in found if "{slug" in each.template and rule_for(each) is _open]


def arm_of(operation: Operation, bodies: Bodies, ring: KeyRing) -> Arm:
    """The call as a stranger makes it. Raises `AssertionError` where the path needs more than `_VALUES` has."""
    path = operation.path(_VALUES | {"slug": "{slug}"})
    way: dict[str, Any] = dict(WAYS.get(f"{operation.method} {path.replace(_VALUES['token'], '{token}')}", {}))
    headers: dict[str, Any] = {}
    if operation.is_page:
        token = csrf.token(ring.current, "tenant", _PRE_SESSION)
        headers = {"Accept": "text/html", "Cookie": f"gh_pre={_PRE_SESSION}"}
        if not operation.safe:
            headers |= {"Origin": BASE_URL, csrf.HEADER: token}
    elif "body" not in way and not operation.safe:
        way["body"] = bodies.of(operation, {})
    way["headers"] = headers | dict(way.get("headers", {}))
    return Arm("", path=path, method=operation.method, status=None, form=operation.is_page, **way)


def arms_of(settings: Settings, ring: KeyRing) -> tuple[dict[str, Arm], dict[str, str]]:
    """For each call four kinds of slugs, and which are compared."""
    bodies = Bodies(create_app(settings))
    arms: dict[str, Arm] = {}
    pairs: dict[str, str] = {}
    for number, operation in enumerate(strangers(settings)):
        kinds: dict[str, dict[str, Any]] = {
            "known": {"tenant": _REACHABLE},
            "unknown": {},
            "suspended": {"tenant": _REACHABLE | {"status": "'suspended'"}},
        }
        if operation.template.endswith("/logo"):
            kinds["with a logo"] = {"tenant": _REACHABLE, "branding": _LOGO}
        call = arm_of(operation, bodies, ring)
        for letter, (kind, there) in zip("abcd", kinds.items(), strict=False):
            arms[f"{operation}: {kind}"] = replace(call, prefix=f"{letter}{number:03}", **there)
        pairs |= {f"{operation}: {kind}": f"{operation}: known" for kind in list(kinds)[1:]}
    control = Arm(LATE)
    return arms | {"a millisecond later": control, "no tenant": Arm("gone")}, pairs


def test_every_route_takes_part(settings: Settings, ring: KeyRing) -> None:
    """Whatever a stranger may call with a slug is called; ways of routes that are gone are not kept."""
    found = strangers(settings)
    assert len(found) >= 19
    arms, pairs = arms_of(settings, ring)
    assert len(pairs) == 2 * len(found) + 1
    assert {name for name in pairs if "/logo:" in name} == {
        f"GET /t/{{slug:str}}/logo: {kind}" for kind in ("unknown", "suspended", "with a logo")
    }
    called = {f"{o.method} {o.path({'slug': '{slug}', 'token': '{token}'})}" for o in found}
    assert set(WAYS) <= called
    for one, other in pairs.items():
        slugs = [arms[name].slug("12345678", 0) for name in (one, other)]
        assert len(arms[one].request(slugs[0], "c" * 22)) == len(arms[other].request(slugs[1], "c" * 22))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("rounds", "allowed"), [pytest.param(20, None, id="short"), lengths(250)[1]])
async def test_time_tells_nothing_of_slugs(
    settings: Settings, db: Database, ring: KeyRing, clock: Clock, tmp_path: Path, rounds: int, allowed: float | None
) -> None:
    """Known, unknown and suspended, by every route: the same status, and in full AUC about 0.5; 1 ms more shows. In
    short the time is that of `test_timing` and `test_member_timing` alone: these many arms take a machine of their own.
    """
    arms, pairs = arms_of(settings, ring)
    times, statuses = await measured(arms, rounds, settings, db, clock, tmp_path)
    for name, against in pairs.items():
        assert statuses[name] == statuses[against], name
        assert not {403, 500} & set(statuses[name]), (name, statuses[name])
    if allowed is not None:
        assert_alike(times, pairs, allowed, control=("a millisecond later", "no tenant"))
