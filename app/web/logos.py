"""Tenants' logos, for mail readers."""

from typing import Final

from litestar import Response, get
from litestar.params import FromPath

from app.delivery.branding import logo_file
from app.errors import NotFound
from app.web.services import AnyRequest, services

_HEADERS: Final = {
    # Its address changes with it.
    "Cache-Control": "public, max-age=31536000, immutable",
    # Uploaded by somebody: whatever a browser makes of it when opened on its own can load and run nothing.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    # Webmail shows it on pages of its own.
    "Cross-Origin-Resource-Policy": "cross-origin",
}


@get("/t/{slug:str}/logo", include_in_schema=False)
async def logo(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """The logo, for whoever has its whole address from a message of ours.

    Raises `NotFound` for everybody else, before anything is looked up: strangers learn nothing of which tenants there
    are, neither from the answer nor from its time.
    """
    core = services(request)
    found = await logo_file(core.db, core.ring, slug, request.query_params.get("v", ""))
    if found is None:
        raise NotFound
    media_type, data = found
    return Response(data, media_type=media_type, headers=_HEADERS)
