"""One Jinja environment a process, for the pages of both portals."""

import jinja2

from app import resources
from app.settings import Settings
from app.web.assets import Assets


def make_environment(settings: Settings, assets: Assets) -> jinja2.Environment:
    """Autoescape everywhere; an undefined name is an error. Templates don't change while the process runs."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=settings.environment == "development",
    )
    environment.globals.update(
        asset_version=assets.version,
        environment_label=None if settings.production else settings.environment,
    )
    return environment
