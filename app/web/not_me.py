"""The page behind "it wasn't me" in a mail. Looking changes nothing, because mail scanners follow links; a button makes
the code useless. The same for everybody, signed in or not, and whether errors are disclosed or not.
"""

from typing import Final

from litestar import Router, get, post
from litestar.params import FromPath

from app.auth.disowning import check_link, disown
from app.delivery.disowning import PATH
from app.web.browser import TENANT, Answer, visitor
from app.web.repeats import FormsOnce
from app.web.services import AnyRequest, services

_TEMPLATE: Final = "tenant/not_me.html"


@get("/{token:str}")
async def ask(request: AnyRequest, token: FromPath[str]) -> Answer:
    """Says what the button does. 410 for a link that isn't ours."""
    check_link(services(request).ring, token)
    return await TENANT.page(request, _TEMPLATE, token=token, stood=None)


@post("/{token:str}", status_code=200)
async def end(request: AnyRequest, token: FromPath[str]) -> Answer:
    """Makes the code useless and says how it stood."""
    await TENANT.form(request)
    core = services(request)
    stood = await disown(core.db, core.ring, token, core.clock(), visitor(request))
    return await TENANT.page(request, _TEMPLATE, token=token, stood=stood)


route: Final = Router(
    PATH,
    route_handlers=[ask, end],
    middleware=[FormsOnce(TENANT.name, TENANT.prove)],
    include_in_schema=False,
)
