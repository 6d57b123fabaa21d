"""A stranger asks in every way the API offers, as long as a challenge lives, and learns nothing about who exists."""

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import add_tenant

PHONE: Final = "+447700900123"
# The moment of the answer, and the id of the call.
_IGNORED: Final = {"date", "x-request-id"}
_IDS: Final = {"challenge_id", "request_id"}

Look = tuple[str, int, list[tuple[str, str]], dict[str, Any], int]


@pytest.fixture
async def http(settings: Settings, clock: Clock) -> AsyncIterator[Http]:
    """Concealed, with two channels switched on."""
    async with serve(settings, clock, otp_disclose_errors=False, sms_enabled=True, sms_provider=("console",)) as served:
        yield served


class Stranger:
    """Somebody who writes down everything that could tell one slug from another."""

    def __init__(self, http: Http, clock: Clock, slug: str) -> None:
        self.http, self.clock, self.slug = http, clock, slug
        self.challenge_id = ""
        self.seen: list[Look] = []

    async def ask(self, **body: str) -> None:
        answer = await self._call("request", body)
        self.challenge_id = answer.json().get("challenge_id", self.challenge_id)

    async def ask_again(self, **body: str) -> None:
        await self._call("resend", {"challenge_id": self.challenge_id, **body})

    async def guess(self, code: str = "000000") -> None:
        await self._call("verify", {"challenge_id": self.challenge_id, "code": code})

    async def look(self) -> None:
        await self._call("status", {"challenge_id": self.challenge_id})

    async def _call(self, verb: str, body: dict[str, str]) -> httpx.Response:
        answer = await self.http.otp(self.slug, verb, body)
        headers = sorted((name, value) for name, value in answer.headers.items() if name not in _IGNORED)
        shape = {name: value if name not in _IDS else len(value) for name, value in answer.json().items()}
        self.seen.append((verb, answer.status_code, headers, shape, len(answer.content)))
        return answer


async def whole_life(stranger: Stranger, opening: dict[str, str]) -> None:
    """Every state there is: fresh, sent, cooling down, sent anew by another channel, guessed dead, refused, expired."""
    clock = stranger.clock
    await stranger.ask(**opening)
    await stranger.look()
    await stranger.ask_again()
    clock.forward(seconds=3)
    await stranger.look()
    await stranger.guess()
    clock.forward(seconds=60)
    await stranger.ask_again(channel="sms")
    await stranger.ask_again()
    await stranger.look()
    for _ in range(6):
        await stranger.guess()
    await stranger.look()
    await stranger.ask_again()
    await stranger.ask(**opening)
    await stranger.ask(**opening)
    # The quota of the hour is spent, however the next one is asked for.
    for other in ({}, {"channel": "email"}, {"channel": "sms"}):
        await stranger.ask(**{**opening, **other})
    clock.forward(seconds=600)
    for step in (stranger.look, stranger.guess, stranger.ask_again):
        await step()
    clock.forward(hours=1)
    await stranger.ask(**opening)
    for _ in range(5):
        await stranger.guess()
    # Ten wrong guesses: the next code has eight digits.
    await stranger.ask(**opening)
    await stranger.look()
    await stranger.guess("00000000")


def same_length(kinds: tuple[str, ...]) -> dict[str, str]:
    """A slug for each kind, of equal length."""
    run = uuid4().hex[:8]
    return {kind: f"slug-{run}-{number}" for number, kind in enumerate(kinds)}


@pytest.mark.parametrize(
    "opening",
    [{}, {"channel": "email"}, {"channel": "sms"}, {"channel": "whatsapp"}],
    ids=lambda opening: opening.get("channel", "unsaid"),
)
async def test_tenants_cannot_be_told_apart(http: Http, clock: Clock, db: Database, opening: dict[str, str]) -> None:
    """Known, reachable one way only, not at all, suspended, nobody's: one story, answer by answer."""
    slugs = same_length(("known", "no phone", "no email", "no contact", "suspended", "named only", "nobody"))
    columns: dict[str, dict[str, Any]] = {
        "known": {"phone_number": PHONE},
        "no phone": {},
        "no email": {"email": None, "phone_number": PHONE},
        "no contact": {"email": None},
        "suspended": {"phone_number": PHONE, "status": "suspended"},
        "named only": {"phone_number": PHONE, "policy": {"require_contact": True}},
    }
    for kind, fields in columns.items():
        await add_tenant(db, clock(), slug=slugs[kind], **fields)
    began, stories = clock(), {}
    for kind, slug in slugs.items():
        clock.now = began
        stranger = Stranger(http, clock, slug)
        await whole_life(stranger, opening)
        stories[kind] = stranger.seen

    answers = {(verb, status) for verb, status, *_ in stories["known"]}
    assert answers == {
        *(("request", status) for status in (202, 429)),
        *(("resend", status) for status in (202, 429, 410)),
        *(("verify", status) for status in (401, 429, 410)),
        ("status", 200),
    }
    assert [seen[3]["code_length"] for seen in stories["known"] if "code_length" in seen[3]][-1] == 8
    for kind, story in stories.items():
        assert story == stories["known"], kind


async def test_members_cannot_be_told_apart(http: Http, clock: Clock, db: Database) -> None:
    """The right contact, another one, a suspended tenant's, anybody of a slug nobody has: by email and by phone."""
    slugs = same_length(("right", "wrong", "suspended", "nobody"))
    for kind in ("right", "suspended"):
        status = "suspended" if kind == "suspended" else "active"
        await add_tenant(db, clock(), slug=slugs[kind], email="a@b.example", phone_number=PHONE, status=status)
    await add_tenant(db, clock(), slug=slugs["wrong"], email="c@d.example", phone_number="+447700900124")
    began = clock()
    for identifier in ("a@b.example", PHONE):
        stories = {}
        for kind, slug in slugs.items():
            clock.now = began
            stranger = Stranger(http, clock, slug)
            await whole_life(stranger, {"identifier": identifier})
            stories[kind] = stranger.seen
        for kind, story in stories.items():
            assert story == stories["right"], (identifier, kind)
        # The next identifier finds every recipient rested.
        began = clock() + (clock() - began) * 30


async def test_a_tenant_suspended_meanwhile_goes_on_looking_alive(http: Http, clock: Clock, db: Database) -> None:
    """What becomes of a tenant between two steps doesn't show in the second."""
    slugs = same_length(("known", "suspended", "bereft"))
    for slug in slugs.values():
        await add_tenant(db, clock(), slug=slug)
    began, stories = clock(), {}
    for kind, slug in slugs.items():
        clock.now = began
        stranger = Stranger(http, clock, slug)
        await stranger.ask()
        change = {"suspended": "status = 'suspended'", "bereft": "email = NULL"}.get(kind)
        if change:
            async with db.every_tenant() as connection:
                await connection.execute(f"UPDATE tenants SET {change} WHERE slug = $1", slug)
        clock.forward(seconds=61)
        for step in (stranger.look, stranger.guess, stranger.ask_again, stranger.look, stranger.guess, stranger.ask):
            await step()
        stories[kind] = stranger.seen
    assert stories["suspended"] == stories["known"]
    assert stories["bereft"] == stories["known"]
