"""Whatever the OpenAPI document allows, and what it forbids, is sent: nothing makes the server stumble.

Schemathesis makes the calls from the document; they are sent to the application in this process, by strangers, by a
signed-in tenant and by an owner's API key.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from app.audit.log import Actor, Client
from app.auth.api_keys import ApiKeys
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import BASE_URL, Http, bearer, serve
from tests.people import add_tenant, current_code

PROBLEM: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Target:
    """The application, its document, and who may call it."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    http: Http
    document: dict[str, Any]
    callers: dict[str, dict[str, str]]


async def _no_wait(_: float) -> None:
    """Whoever asks to wait for an outcome has waited."""


async def _callers(http: Http, settings: Settings, clock: Clock) -> dict[str, dict[str, str]]:
    assert settings.database_url
    db = Database(settings.database_url, application="tests")
    await db.open()
    slug = (await add_tenant(db, clock())).slug
    challenge = (await http.otp(slug, "request")).json()["challenge_id"]
    code = await current_code(db, KeyRing(settings.secret_keys), challenge)
    tokens = (await http.otp(slug, "verify", {"challenge_id": challenge, "code": code})).json()
    _, key = await ApiKeys(db, clock).create("schemathesis", "owner", actor=Actor("operator"), client=Client("cli"))
    await db.close()
    return {"a stranger": {}, "a tenant": bearer(tokens["access_token"]), "an owner's key": bearer(key)}


@contextmanager
def target_of(settings: Settings, clock: Clock) -> Iterator[Target]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        http = runner.run(stack.enter_async_context(serve(settings, clock, sleep=_no_wait)))
        try:
            document = json.loads(runner.run(http.get("/docs/openapi.json")).content)
            yield Target(runner.run, http, document, runner.run(_callers(http, settings, clock)))
        finally:
            runner.run(stack.aclose())


def send(target: Target, case: "schemathesis.Case[Any]", caller: str) -> httpx.Response:
    """The call as schemathesis would have it, by our own client."""
    options = case.as_transport_kwargs(base_url=BASE_URL)
    headers = {str(name): str(value) for name, value in dict(options.pop("headers", None) or {}).items()}
    # Not to be chosen by chance: who calls, and the length, which the client counts.
    headers = {
        name: value for name, value in headers.items() if name.lower() not in {"authorization", "content-length"}
    }
    body = {
        key: options[key]
        for key in ("json", "data", "files", "content")
        if options.get(key) is not None and options[key] != b""
    }
    if isinstance(body.get("data"), bytes | str):
        body["content"] = body.pop("data")
    request = target.http.client.build_request(
        options["method"],
        options["url"],
        params=options.get("params") or None,
        headers={
            name.encode(): value.encode("utf-8", "replace")
            for name, value in (headers | target.callers[caller]).items()
        },
        cookies=options.get("cookies"),
        **body,
    )
    response: httpx.Response = target.run(target.http.client.send(request))
    return response


@pytest.mark.parametrize(
    "examples",
    [
        pytest.param(6, id="short"),
        pytest.param(300, id="long", marks=[pytest.mark.long, pytest.mark.timeout(3000)]),
    ],
)
def test_no_call_makes_the_server_stumble(settings: Settings, clock: Clock, examples: int) -> None:
    """Every operation, with data that fits its schema and data that doesn't: no 5xx, and each refusal is a problem."""
    with target_of(settings, clock) as target:
        schema = schemathesis.openapi.from_dict(target.document)
        seen: dict[str, set[int]] = {}
        for result in schema.get_all_operations():
            assert isinstance(result, Ok), "the document is not OpenAPI"
            operation = result.ok()

            @hypothesis_settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=examples < 100,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(
                case=st.one_of(
                    operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
                    operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
                ),
                caller=st.sampled_from(sorted(target.callers)),
            )
            def judge(case: "schemathesis.Case[Any]", caller: str) -> None:
                try:
                    answer = send(target, case, caller)
                except httpx.InvalidURL:
                    return
                seen.setdefault(case.operation.label, set()).add(answer.status_code)
                assert answer.status_code < 500, (caller, case.as_curl_command(), answer.text)
                if answer.status_code >= 400:
                    assert answer.headers["content-type"] == PROBLEM, case.as_curl_command()
                    assert answer.json()["status"] == answer.status_code

            judge()
        told = {f"{m.upper()} {path}" for path, operations in target.document["paths"].items() for m in operations}
        assert set(seen) == told
        # Generated calls get past the door too, or they would show little.
        assert {200, 202, 400, 401, 404} <= set().union(*seen.values())
