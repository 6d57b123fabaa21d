"""All routes of the admin portal."""

from litestar import Router

from admin_portal import (
    branding,
    factor_reset,
    factors,
    home,
    member,
    member_actions,
    member_import,
    members,
    refused,
    sign_in,
    stories,
    tenant,
    tenant_actions,
    tenants,
)
from admin_portal.guards import guarded


def routes() -> Router:
    """The portal below /admin. Raises `ConfigurationError` for a route that doesn't say who may use it."""
    people = (members, member, member_actions, member_import)
    modules = (
        sign_in,
        factors,
        home,
        tenants,
        tenant,
        branding,
        tenant_actions,
        factor_reset,
        stories,
        refused,
        *people,
    )
    return guarded(handler for module in modules for handler in module.HANDLERS)
