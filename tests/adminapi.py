"""Callers of the admin API: API keys of every role."""

from dataclasses import dataclass
from typing import Any

import httpx

from app.audit.log import Actor, Client
from app.auth.api_keys import ApiKeys
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http

PREFIX = "/api/v1/admin"
ROLES = ("viewer", "manager", "owner")


@dataclass(frozen=True, slots=True)
class AdminApi:
    """A program with one key."""

    http: Http
    key: str

    async def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any method on /api/v1/admin/…; `key` as an option is the Idempotency-Key."""
        headers = {"Authorization": f"Bearer {self.key}"} | options.pop("headers", {})
        if key := options.pop("key", None):
            headers["Idempotency-Key"] = key
        return await self.http.client.request(method, PREFIX + path, headers=headers, **options)


async def admin_api(http: Http, db: Database, clock: Clock, role: str = "owner") -> AdminApi:
    """A caller with a fresh key of this role."""
    _, text = await ApiKeys(db, clock).create(f"a {role}", role, actor=Actor("operator"), client=Client("cli"))
    return AdminApi(http, text)
