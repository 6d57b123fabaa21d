"""The admin API below /api/v1/admin: everything the admin portal does, for programs."""

from typing import Final

from litestar import Router
from litestar.openapi.spec import Tag

from admin_portal.api import (
    actions,
    branding,
    factors,
    files,
    member_actions,
    member_files,
    members,
    people,
    records,
    refused,
    tenants,
)
from admin_portal.api.guards import guarded
from admin_portal.api.once import DoneOnce

TAGS: Final = (Tag(name="Admin", description="With an API key that has a role, or an admin's session."),)


def routes() -> Router:
    """The admin API. Raises `ConfigurationError` for a route that doesn't say who may call it."""
    modules = (
        tenants,
        branding,
        actions,
        factors,
        files,
        records,
        refused,
        people,
        members,
        member_actions,
        member_files,
    )
    return guarded((handler for module in modules for handler in module.HANDLERS), [DoneOnce()], tags=["Admin"])
