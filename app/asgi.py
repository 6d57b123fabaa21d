"""The web application, put together: `create_app` is the composition root of every web process."""

import asyncio
import sys

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from admin_portal import api as admin_api
from admin_portal import routes as admin_pages
from admin_portal.desk import Desk
from app import resources
from app.settings import Settings
from app.tenants.contacts import accept_internal_domains
from app.web import health, limits, logos, not_me
from app.web.assets import Assets
from app.web.callbacks import callback_routes
from app.web.docs import openapi_config
from app.web.edge import Edge
from app.web.forwarded import Forwarded
from app.web.metrics import Metrics
from app.web.problem_pages import problem_pages
from app.web.problems import Problems
from app.web.queries import known_query
from app.web.reading import BODY_LIMIT, StrictRequest
from app.web.services import Clock, Services, Sleep, utc_now
from app.web.templates import make_environment
from tenant_portal import api as sign_in_api
from tenant_portal import pages as tenant_pages


def create_app(settings: Settings, *, clock: Clock = utc_now, sleep: Sleep = asyncio.sleep) -> Litestar:
    """The application. Connects to nothing before its lifespan begins. Raises `ConfigurationError`."""
    accept_internal_domains(settings.email_internal_domains)
    # Files are read in threads; the event loop gets its turn after a millisecond, not after Python's five.
    sys.setswitchinterval(0.001)
    services = Services.build(settings, clock, sleep)
    assets = Assets(resources.STATIC)
    pages = make_environment(settings, assets)
    problems = Problems(settings, pages)
    metrics = Metrics()
    app = Litestar(
        route_handlers=[
            *sign_in_api.ROUTES,
            *tenant_pages.ROUTES,
            logos.logo,
            not_me.route,
            admin_pages.routes(),
            admin_api.routes(),
            callback_routes(settings, services),
            health.router,
            metrics.route(settings),
            problem_pages(pages),
            assets.route(),
        ],
        guards=[known_query, limits.admit],
        request_class=StrictRequest,
        request_max_body_size=BODY_LIMIT,
        exception_handlers={HTTPException: problems.handle, Exception: problems.handle},
        lifespan=[services.running],
        state=State({"services": services, "pages": pages, "desk": Desk.of(services)}, deep_copy=False),
        cors_config=_cors(settings),
        openapi_config=openapi_config(pages, (*sign_in_api.TAGS, *admin_api.TAGS)),
        # Litestar's own would log bodies and cookies; app.web.edge writes the line of a request.
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    app.asgi_handler = Edge(app.asgi_handler, settings, metrics, Forwarded(services.accelerator), services.door)
    return app


def _cors(settings: Settings) -> CORSConfig | None:
    """Front ends elsewhere send tokens, never cookies."""
    if not settings.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=[
            "Accept-Language",
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "Prefer",
            "X-Device-Token",
        ],
        allow_credentials=False,
        expose_headers=[
            "Idempotency-Replayed",
            "Preference-Applied",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            "X-Request-Id",
        ],
        max_age=600,
    )
