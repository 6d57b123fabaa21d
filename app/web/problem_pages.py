"""GET /problems/{code}: what the `type` of a problem document leads to."""

import jinja2
from litestar import MediaType, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.errors import NotFound
from app.web.problems import CODES


def problem_pages(pages: jinja2.Environment) -> HTTPRouteHandler:
    """The pages that explain the problem codes."""

    @get("/problems/{code:str}", media_type=MediaType.HTML, include_in_schema=False, sync_to_thread=False)
    def problem_page(code: FromPath[str]) -> str:
        if code not in CODES:
            raise NotFound
        return pages.get_template("tenant/problem_type.html").render(code=code, csrf_token="")

    return problem_page
