"""Forms of pages that count no more: where they lead, and what is said where they lead nowhere."""

from typing import Final
from urllib.parse import urlsplit

from litestar.response import Response

from app.errors import StalePage
from app.web.browser import Answer, leave
from app.web.problems import refuse
from app.web.services import AnyRequest, services
from tenant_portal.dashboard import to_login

# Whose forms lead inside.
_ENTRIES: Final = ("login", "verify", "resend", "register", "link", "second-factor")
_LONGEST: Final = 400


def lead_on(request: AnyRequest, error: StalePage) -> Answer:
    """Whoever sends the form of a sign-in again that is complete is in already. Whose session has ended signs in. Any
    other page is loaded again.
    """
    slug: str | None = request.path_params.get("slug")
    if slug is not None:
        step = request.scope["path"].removeprefix(f"/t/{slug}/").partition("/")[0]
        signed_in = request.scope["state"].get("tenant-session") is not None
        if error.ours and signed_in and step in _ENTRIES:
            return leave(request, f"/t/{slug}/")
        if not signed_in and step == "logout":
            return leave(request, f"/t/{slug}/login?done=signed-out")
        if not signed_in and step not in _ENTRIES:
            return to_login(request, slug)
    refusal = refuse(error, services(request).settings)
    page = request.app.state.pages.get_template("tenant/problem.html").render(
        code=refusal.code,
        detail=refusal.detail,
        retry_after=None,
        request_id=request.scope["state"]["request_id"],
        csrf_token="",
        back={"href": _page_of(request, slug), "label": "Load the page again"},
    )
    return Response(page.encode(), status_code=refusal.status, headers=refusal.headers, media_type="text/html")


def _page_of(request: AnyRequest, slug: str | None) -> str:
    """The page that the form was on, if the browser tells and it is one of this tenant's; else where one begins."""
    start = f"/t/{slug}/" if slug is not None else "/login"
    path = urlsplit(request.headers.get("referer") or "").path
    inside = path.startswith(start) and len(path) <= _LONGEST and path.isascii() and ".." not in path
    return path if inside else start
