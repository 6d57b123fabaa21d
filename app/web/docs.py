"""The API reference: an OpenAPI document made from the handlers, and a page that shows it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import jinja2
from litestar import Request, Response, Router
from litestar.enums import MediaType
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import (
    Components,
    Example,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    Schema,
    SecurityScheme,
    Tag,
)

from app.errors import GatehouseError, InvalidCode, KeyInUse, KeyReused, NotFound
from app.web.problems import PROBLEM_JSON, STATUS, Problem, title

_DESCRIPTION: Final = """\
Sign-in by one-time code: ask for a code with `otp/request`, send it back with `otp/verify`, get tokens.

Refusals are `application/problem+json` (RFC 9457): `code` is stable, `type` leads to a page that explains it.
"""
_EXAMPLE_REQUEST_ID: Final = "qkdfbtshmrjgpnlcdqwz"


def refusals(*kinds: type[GatehouseError]) -> dict[int, ResponseSpec]:
    """How an operation may refuse, for its documentation: by status, with an example for each code."""
    by_status: dict[int, list[type[GatehouseError]]] = {}
    for kind in kinds:
        by_status.setdefault(STATUS[kind], []).append(kind)
    return {
        status: ResponseSpec(
            Problem,
            generate_examples=False,
            description=", ".join(f"`{kind.code}`" for kind in same),
            media_type=PROBLEM_JSON,
            examples=[_example(kind, status) for kind in same],
        )
        for status, same in by_status.items()
    }


def also(
    responses: dict[str, OpenAPIResponse | Reference], *kinds: type[GatehouseError]
) -> dict[str, OpenAPIResponse | Reference]:
    """An operation's responses with more refusals, of which all have something in common; see `refusals`."""
    told = dict(responses)
    schema = next(
        media.schema
        for answer in told.values()
        if isinstance(answer, OpenAPIResponse)
        for name, media in (answer.content or {}).items()
        if name == PROBLEM_JSON
    )
    for kind in kinds:
        status = STATUS[kind]
        known = told.get(str(status))
        before = (known.content or {})[PROBLEM_JSON].examples if isinstance(known, OpenAPIResponse) else None
        examples = {**(before or {}), kind.code: _example(kind, status)}
        told[str(status)] = OpenAPIResponse(
            description=", ".join(f"`{code}`" for code in examples),
            content={PROBLEM_JSON: OpenAPIMediaType(schema=schema, examples=examples)},
        )
    return told


def _example(kind: type[GatehouseError], status: int) -> Example:
    value: dict[str, object] = {
        "type": f"/problems/{kind.code}",
        "title": title(kind.code),
        "status": status,
        "detail": kind.default_detail,
        "code": kind.code,
        "request_id": _EXAMPLE_REQUEST_ID,
    }
    if kind is InvalidCode:
        value["attempts_left"] = 4
    return Example(id=kind.code, summary=kind.default_detail, value=value)


_KEY: Final = Parameter(
    name="Idempotency-Key",
    param_in="header",
    description="A random text of your own, such as a UUID. If the answer gets lost, send the same again within two "
    "minutes: you get it, and nothing is sent, spent or counted twice.",
    schema=Schema(type=OpenAPIType.STRING, min_length=16, max_length=255),
)


@dataclass
class SentOnce(Operation):
    """A POST whose answer can't be had a second time otherwise: see `app.web.repeats.CallsOnce`."""

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or []), _KEY]
        self.responses = also(self.responses or {}, KeyInUse, KeyReused)


class ReferencePage(OpenAPIRenderPlugin):
    """Swagger UI from our own files: no inline script or style, nothing from elsewhere."""

    def __init__(self, pages: jinja2.Environment) -> None:
        super().__init__(path="/")
        self._page = pages.get_template("docs.html").render().encode()

    def render(self, _: Request[Any, Any, Any], __: dict[str, Any]) -> bytes:
        """The page; it fetches the document itself."""
        return self._page


class Document(JsonRenderPlugin):
    """The OpenAPI document, with what Litestar doesn't tell of our types."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document as JSON. Bodies refuse unknown fields; by convention their types are named …Request."""
        for name, schema in openapi_schema["components"]["schemas"].items():
            if name.endswith("Request"):
                schema["additionalProperties"] = False
        return super().render(request, openapi_schema)


def openapi_config(pages: jinja2.Environment, tags: Iterable[Tag]) -> OpenAPIConfig:
    """GET /docs and GET /docs/openapi.json."""
    components = Components(
        security_schemes={
            "accessToken": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT"),
            "apiKey": SecurityScheme(type="http", scheme="bearer", bearer_format="ghk_…"),
            "adminSession": SecurityScheme(
                type="apiKey",
                security_scheme_in="cookie",
                name="__Host-gh_admin",
                description="An admin's browser. Unsafe methods need X-CSRF-Token, and our own origin.",
            ),
        }
    )
    return OpenAPIConfig(
        title="Gatehouse",
        version="1",
        use_handler_docstrings=True,
        description=_DESCRIPTION,
        components=components,
        tags=list(tags),
        openapi_router=Router("/docs", route_handlers=[], include_in_schema=False, after_request=_refuse_unknown),
        render_plugins=[
            ReferencePage(pages),
            Document(media_type=MediaType.JSON),
        ],
    )


def _refuse_unknown(response: Response[Any]) -> Response[Any]:
    """Litestar answers other paths below /docs with a page of its own; ours are all alike."""
    if response.status_code == 404:  # noqa: PLR2004
        raise NotFound
    return response
