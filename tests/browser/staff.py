"""The staff of an installation in the browser tests: what they do for members goes over the admin API."""

from dataclasses import dataclass
from typing import Any

import httpx

from app.audit.log import Actor, Client
from app.auth.api_keys import ApiKeys
from app.storage.db import Database
from tests.adminapi import PREFIX
from tests.browser.conftest import ClockAhead, Site


@dataclass(frozen=True, slots=True)
class Staff:
    """Somebody with an API key of an owner."""

    url: str
    key: str

    @classmethod
    async def of(cls, db: Database, site: Site, now: ClockAhead) -> "Staff":
        """Of this installation."""
        keys = ApiKeys(db, now)
        _, key = await keys.create("staff", "owner", actor=Actor("operator"), client=Client("cli"))
        return cls(site.url + PREFIX, key)

    async def add_member(self, slug: str, fields: dict[str, Any]) -> None:
        """Adds one to a tenant."""
        answer = await self._call("POST", f"/tenants/{slug}/members", json=fields)
        assert answer.status_code == 201, answer.text

    async def change_member(self, slug: str, email: str, fields: dict[str, Any]) -> None:
        """Changes the one with this address."""
        found = await self._call("GET", f"/tenants/{slug}/members", params={"search": email})
        (member,) = found.json()["members"]
        path = f"/tenants/{slug}/members/{member['id']}"
        tag = (await self._call("GET", path)).headers["ETag"]
        answer = await self._call("PATCH", path, json=fields, headers={"If-Match": tag})
        assert answer.status_code == 200, answer.text

    async def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} | options.pop("headers", {})
        async with httpx.AsyncClient() as client:
            return await client.request(method, self.url + path, headers=headers, **options)
