"""An app whose clock is wrong: its owner is told by how much, staff read it, and nobody guesses better for it."""

import pytest
from structlog.testing import capture_logs

from app.audit.story import Happening, tell
from app.auth.challenges import Challenges
from app.auth.factors import totp
from app.auth.sessions import Sessions
from app.errors import InvalidCode, TooManyAttempts
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.counting import counting
from tests.factors import App, Door
from tests.http import Http
from tests.people import add_tenant, current_code

_WRONG = "SELECT data FROM audit_events WHERE tenant_id = $1 AND action = 'factor.wrong' ORDER BY id"


@pytest.fixture
def door(
    db: Database, ring: KeyRing, settings: Settings, clock: Clock, challenges: Challenges, sessions: Sessions
) -> Door:
    return Door(db, ring, settings, clock, challenges, sessions)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (-20, "right about 10 minutes ago"),
        (-4, "right about 2 minutes ago"),
        (-2, "right about 1 minute ago"),
        (2, "about 1 minute fast"),
        (3, "about 2 minutes fast"),
        (20, "about 10 minutes fast"),
        (-21, "Wrong code"),
        (21, "Wrong code"),
        (120, "Wrong code"),
    ],
)
async def test_a_wrong_clock_is_told(door: Door, steps: int, said: str) -> None:
    """The code stays wrong and is a try; the answer, the log and the story say by how much the clock is off."""
    person = await door.enrolled()
    door.clock.forward(minutes=30)
    half = await door.half(person.realm)
    with capture_logs() as lines, pytest.raises(InvalidCode) as refused:
        await door.finish(half, person.app.code(steps))
    assert refused.value.attempts_left == 4
    assert said in refused.value.detail
    async with door.db.every_tenant() as connection:
        (data,) = [row["data"] for row in await connection.fetch(_WRONG, person.tenant.id)]
    expected = steps * totp.SECONDS if said != "Wrong code" else None
    assert data.get("clock_off_by") == expected
    assert [line["seconds"] for line in lines] == ([expected] if expected else [])
    assert (await door.finish(half, person.app.code())).access_token


async def test_the_story_says_slow_and_fast() -> None:
    """In whole minutes, as staff say it to whoever is on the phone."""

    def note(seconds: int) -> tuple[str, ...]:
        happening = Happening(at=Clock()(), what="factor.wrong", data={"attempts_left": 4, "clock_off_by": seconds})
        return tuple(tell([happening], {})[0].notes)

    assert note(-120) == ("the phone's clock is about 2 minutes slow",)
    assert note(60) == ("the phone's clock is about 1 minute fast",)


async def test_a_code_to_come_is_spent_by_being_told_of(door: Door) -> None:
    """Or a guess that hits one would be as good as a guess that opens: its time comes."""
    person = await door.enrolled()
    door.clock.forward(minutes=30)
    half = await door.half(person.realm)
    guessed = person.app.code(4)
    with pytest.raises(InvalidCode, match="fast"):
        await door.finish(half, guessed)
    for seconds in (90, 30):
        door.clock.forward(seconds=seconds)
        assert guessed == person.app.code(1 if seconds == 90 else 0)
        with pytest.raises(InvalidCode, match="Wrong code"):
            await door.finish(half, guessed)
    assert (await door.finish(half, person.app.next())).access_token


async def test_every_one_is_a_try(door: Door) -> None:
    """Five of them end the sign-in, as any five do; 30 of a day are all an app takes."""
    person = await door.enrolled()
    door.clock.forward(minutes=30)
    half = await door.half(person.realm)
    for steps in (-5, 5, -6, 6):
        with pytest.raises(InvalidCode):
            await door.finish(half, person.app.code(steps))
    with pytest.raises(TooManyAttempts):
        await door.finish(half, person.app.code(-7))
    async with door.db.every_tenant() as connection:
        guesses = "SELECT cardinality(guesses) FROM factors WHERE tenant_id = $1"
        assert await connection.fetchval(guesses, person.tenant.id) == 5


async def test_a_code_used_before_tells_nothing_of_the_clock(door: Door) -> None:
    """Who saw it over a shoulder is told that it is wrong, and no more."""
    person = await door.enrolled()
    used = person.app.next()
    await door.finish(await door.half(person.realm), used)
    door.clock.forward(minutes=2)
    with pytest.raises(InvalidCode, match="Wrong code"):
        await door.finish(await door.half(person.realm), used)


def test_all_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time says nothing: as many codes are made whichever it is, or none."""
    secret, now = bytes(20), Clock()()
    made: list[int] = []
    code_at = totp.code_at
    monkeypatch.setattr(totp, "code_at", counting(code_at, made))
    counts = set()
    for code in (code_at(secret, totp.step_at(now) - 3), code_at(secret, totp.step_at(now) + 9), "000000"):
        totp.wrong_clock(secret, code, now)
        counts.add(len(made))
        made.clear()
    assert counts == {41}


async def test_setting_an_app_up_says_so_too(door: Door, http: Http) -> None:
    """The first code of a new app, by session and by a half sign-in, over the API."""
    tenant = await add_tenant(door.db, door.clock(), policy={"second_factor": "optional"})
    asked = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
    code = await current_code(door.db, door.ring, asked)
    token = (await http.otp(tenant.slug, "verify", {"challenge_id": asked, "code": code})).json()["access_token"]
    app = App.scan((await http.auth("POST", "totp", token)).json()["secret"], door.clock)
    refused = await http.auth("POST", "totp/confirm", token, json={"code": app.code(-4)})
    assert refused.status_code == 400
    assert "right about 2 minutes ago" in refused.json()["errors"][0]["detail"]
    other = await add_tenant(door.db, door.clock(), policy={"second_factor": "required"})
    asked = (await http.otp(other.slug, "request")).json()["challenge_id"]
    code = await current_code(door.db, door.ring, asked)
    mfa = (await http.otp(other.slug, "verify", {"challenge_id": asked, "code": code})).json()["mfa_token"]
    app = App.scan((await http.auth("POST", "totp", json={"mfa_token": mfa})).json()["secret"], door.clock)
    refused = await http.auth("POST", "totp/confirm", json={"code": app.code(4), "mfa_token": mfa})
    assert (refused.status_code, refused.json()["attempts_left"]) == (401, 4)
    assert "about 2 minutes fast" in refused.json()["detail"]
