"""Where providers report what became of messages."""

from typing import Final

from litestar import MediaType, Router, get, post
from litestar.params import FromPath

from app.delivery.callbacks import PROVIDERS, Posted, Reports, readers_for
from app.delivery.callbacks.gupshup import Gupshup
from app.delivery.callbacks.meta import Meta
from app.delivery.callbacks.posted import refuse
from app.errors import NotFound
from app.settings import Settings
from app.web.queries import ANY_QUERY
from app.web.services import AnyRequest, Services

# Providers report on many messages at once.
_BODY_LIMIT: Final = 256 * 1024


def callback_routes(settings: Settings, core: Services) -> Router:
    """`POST /callbacks/{provider}`, the question by which Meta makes sure that the URL is ours, and Gupshup's GET."""
    readers = readers_for(settings)
    reports = Reports(core.db, settings.providers, core.clock, core.wakeup)

    @post("/{provider:str}", status_code=204, opt=ANY_QUERY)
    async def callback(provider: FromPath[str], request: AnyRequest) -> None:
        """204 also for messages nobody knows: the provider could do nothing about it."""
        if provider not in PROVIDERS:
            raise NotFound
        reader = readers.get(provider)
        if reader is None:
            raise refuse()
        headers = dict(request.headers.items())
        await reports.take(provider, reader, Posted(await request.body(), headers, _query(request)))

    @get("/{provider:str}", media_type=MediaType.TEXT)
    async def by_get(provider: FromPath[str], request: AnyRequest) -> str:
        """Meta asks before it reports; Gupshup reports like this unless it was asked not to. Nobody else does."""
        if provider not in {Meta.name, Gupshup.name}:
            raise NotFound
        match readers.get(provider):
            case Meta() as reader:
                return reader.challenge(_query(request))
            case Gupshup() as reader:
                await reports.take(provider, reader, Posted(b"", dict(request.headers.items()), _query(request)))
                return ""
            case _:
                raise refuse()

    return Router(
        "/callbacks",
        route_handlers=[callback, by_get],
        request_max_body_size=_BODY_LIMIT,
        tags=["Operations"],
        include_in_schema=False,
    )


def _query(request: AnyRequest) -> str:
    """As it came: it may be signed."""
    return request.scope["query_string"].decode("latin-1")
