"""Registering with several things wrong at once."""

import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import serve
from tests.pages import visitor
from tests.people import add_tenant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({}, ["name", "email address or a phone number", "Tick this box"]),
        ({"email": "ana at home", "name": "Ana"}, ["This is not an email address.", "Tick this box"]),
        ({"email": "ana@home.example", "consent": "yes"}, ["name"]),
        (
            {"name": "", "email": "x", "phone_number": "12", "password": "short", "document": "a\tb"},
            ["This is not an email address.", "A password has 8 to 128", "Tick this box"],
        ),
    ],
)
async def test_all_faults_are_said_at_once(
    typed: dict[str, str], said: list[str], settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Each stands at its field, so that nobody mends one only to be told the next; on top of all, in the fields' order,
    and the first takes the focus.
    """
    tenant = await add_tenant(db, clock(), policy={"registration": "open"})
    async with serve(settings, clock) as http, visitor(http) as person:
        await person.open(f"/t/{tenant.slug}/register")
        await person.submit(f"/t/{tenant.slug}/register", typed)
        assert person.page.status_code == 400
        for words in said:
            assert words in person.text, words
        assert (places := [person.text.index(words) for words in said]) == sorted(places)
        first = person.page.text.split("autofocus")[0].rpartition('name="')[2]
        assert first.startswith(("name", "email")), first
        assert ("Tick this box" in person.text) == ("consent" not in typed)
