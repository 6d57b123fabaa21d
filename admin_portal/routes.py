"""All routes of the admin portal."""

from litestar import Router

from admin_portal import branding, factors, home, sign_in, stories, tenant, tenant_actions, tenants
from admin_portal.guards import guarded


def routes() -> Router:
    """The portal below /admin. Raises `ConfigurationError` for a route that doesn't say who may use it."""
    modules = (sign_in, factors, home, tenants, tenant, branding, tenant_actions, stories)
    return guarded(handler for module in modules for handler in module.HANDLERS)
