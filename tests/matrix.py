"""Every route of the application, who may call it, and what a caller sends: the tables of the generated role matrix.

A new route takes part by itself. Where it belongs to no rule here, or its path needs an id that nobody knows, the
matrix fails with a sentence that says what to add.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Final, TypeAlias

import httpx
from litestar import Litestar
from litestar.routes import HTTPRoute

ROLES: Final = ("viewer", "manager", "owner")
_PARAMETER: Final = re.compile(r"\{([^}:]+)[^}]*\}")


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route. `least_role` is what the admin portal's routes declare."""

    method: str
    template: str
    least_role: str | None

    @property
    def safe(self) -> bool:
        """Whether it only reads."""
        return self.method == "GET"

    @property
    def is_page(self) -> bool:
        """Whether browsers call it, with forms."""
        return not self.template.startswith(("/api/", "/callbacks/"))

    def path(self, values: Mapping[str, str]) -> str:
        """The path with its parameters filled in."""

        def fill(found: re.Match[str]) -> str:
            assert found[1] in values, (
                f"{self}: nobody knows what to put for {{{found[1]}}}. An id is found in the table of its name "
                f"(member_id in members); name any other one in `ids_of`, tests/town.py."
            )
            return values[found[1]]

        return _PARAMETER.sub(fill, self.template)

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


def operations(app: Litestar) -> Sequence[Operation]:
    """All of them, but for OPTIONS, which Litestar answers with the methods there are."""
    return sorted(
        (
            Operation(method, route.path, handler.opt.get("least_role"))
            for route in app.routes
            if isinstance(route, HTTPRoute)
            for handler in route.route_handlers
            for method in handler.http_methods - {"OPTIONS"}
        ),
        key=str,
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls. `ticket` is what they hold, `slug` the tenant and `role` the role it is good for."""

    name: str
    ticket: str = ""
    slug: str = ""
    role: str = ""

    def reaches(self, least: str | None) -> bool:
        """Whether the role is the least one or a higher one."""
        return self.role in ROLES and least in ROLES and ROLES.index(self.role) >= ROLES.index(least)


STRANGERS: Final = (
    Caller("stranger"),
    Caller("half"),
    Caller("over: ended"),
    Caller("over: expired"),
    Caller("key: forged"),
    Caller("key: revoked"),
    Caller("key: sign-in", "sign-in key"),
    Caller("key: introspect", "introspect key"),
)
STAFF: Final = (
    *(Caller(f"key: {role}", "admin key", role=role) for role in ROLES),
    *(Caller(f"admin: {role}", "admin session", role=role) for role in ROLES),
)


def people_of(whose: str, slug: str) -> Sequence[Caller]:
    """Whoever is signed in to a tenant."""
    return (
        Caller(f"{whose}: tenant: token", "access token", slug),
        Caller(f"{whose}: member: token", "access token", slug),
        Caller(f"{whose}: tenant: browser", "browser session", slug),
        Caller(f"{whose}: member: browser", "browser session", slug),
    )


# Whether a caller is let in, given the operation and the slug in its path. None: it is open, and whatever proof it
# takes is in what is sent (a code, a token, a signature).
Rule: TypeAlias = Callable[[Caller, Operation, str], bool | None]


def _open(caller: Caller, operation: Operation, slug: str) -> None:
    return None


def _admin_page(caller: Caller, operation: Operation, slug: str) -> bool | None:
    if operation.least_role == "anyone":
        return None
    return caller.ticket == "admin session" and caller.reaches(operation.least_role)


def _admin_api(caller: Caller, operation: Operation, slug: str) -> bool:
    return caller.ticket in {"admin session", "admin key"} and caller.reaches(operation.least_role)


def _access_token(caller: Caller, operation: Operation, slug: str) -> bool:
    return caller.ticket == "access token"


def _service(caller: Caller, operation: Operation, slug: str) -> bool:
    return caller.ticket in {"admin key", "introspect key"}


def _own_session(caller: Caller, operation: Operation, slug: str) -> bool:
    return caller.ticket == "browser session" and caller.slug == slug


# Who may call what, by the beginning of the path; the first that fits counts. Below /t/{slug} a page is for whoever is
# signed in to that tenant unless it stands here as open.
RULES: Final[tuple[tuple[str, Rule], ...]] = (
    ("/api/v1/admin", _admin_api),
    ("/admin", _admin_page),
    ("/api/v1/auth/introspect", _service),
    ("/api/v1/auth/refresh", _open),
    ("/api/v1/auth/mfa", _open),
    ("/api/v1/auth", _access_token),
    ("/api/v1/tenants/{slug:str}", _open),
    ("/t/{slug:str}/login", _open),
    ("/t/{slug:str}/verify", _open),
    ("/t/{slug:str}/resend", _open),
    ("/t/{slug:str}/link", _open),
    ("/t/{slug:str}/second-factor", _open),
    ("/t/{slug:str}/register", _open),
    ("/t/{slug:str}/logo", _open),
    # Whoever has no session here is told that they are signed out, as whoever had one.
    ("/t/{slug:str}/logout", _open),
    ("/t/{slug:str}", _own_session),
    ("/login", _open),
    ("/not-me", _open),
    ("/callbacks", _open),
    ("/.well-known/jwks.json", _open),
    ("/health", _open),
    ("/metrics", _open),
    ("/problems", _open),
    ("/static", _open),
    ("/docs", _open),
)


def rule_for(operation: Operation) -> Rule:
    """The rule of an operation. Raises `AssertionError` where there is none."""
    for prefix, rule in RULES:
        if operation.template == prefix or operation.template.startswith(prefix + "/"):
            return rule
    if operation.template == "/":
        return _open
    raise AssertionError(
        f"{operation}: no rule says who may call it. Add the beginning of its path to RULES in tests/matrix.py."
    )


def let_in(answer: httpx.Response, operation: Operation, slug: str) -> bool:
    """Whether the caller got past the door, whatever became of the call behind it."""
    if answer.status_code == 303:
        to = answer.headers["location"]
        return not (to.partition("?")[0] == f"/t/{slug}/login" or to.startswith("/admin/sign-in"))
    if answer.status_code not in {401, 403} or operation.is_page:
        return answer.status_code not in {401, 403}
    # Below /api/v1/auth "forbidden" is about what a person may do with their own account.
    own_account = operation.template.startswith("/api/v1/auth/") and "introspect" not in operation.template
    return answer.json()["code"] not in ({"invalid-token"} if own_account else {"invalid-token", "forbidden"})


class Bodies:
    """A body for each call, from the OpenAPI document: examples, but for the fields that `values` knows."""

    def __init__(self, app: Litestar) -> None:
        self._document = app.openapi_schema.to_schema()

    def of(self, operation: Operation, values: Mapping[str, object]) -> object:
        """What a well-behaved client would send; an empty object where the document knows nothing."""
        path = _PARAMETER.sub(r"{\1}", operation.template)
        known = self._document["paths"].get(path, {}).get(operation.method.lower(), {})
        content = known.get("requestBody", {}).get("content", {}).get("application/json")
        return self._value("", content["schema"], values) if content else {}

    def _value(self, name: str, schema: Mapping[str, Any], values: Mapping[str, object]) -> object:
        if name in values:
            return values[name]
        if "$ref" in schema:
            return self._value(name, self._document["components"]["schemas"][schema["$ref"].split("/")[-1]], values)
        for key in ("oneOf", "anyOf", "allOf"):
            if key in schema:
                return self._value(name, next(s for s in schema[key] if s.get("type") != "null"), values)
        if "properties" in schema:
            required = schema.get("required", ())
            return {
                field: self._value(field, of, values)
                for field, of in schema["properties"].items()
                # A token that may be there takes the place of a session, which is what this is about.
                if field in required or (field in values and not field.endswith("_token"))
            }
        for key in ("examples", "enum"):
            if schema.get(key):
                return schema[key][0]
        kind = schema.get("type", "string")
        return {"array": [], "object": {}, "boolean": False, "integer": schema.get("minimum", 1)}.get(kind, "x")


class Forms(HTMLParser):
    """The forms of a page: where each is sent, with its fields as they stand."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str]] = {}
        self._open: dict[str, str] | None = None
        self._choice = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "form" and said.get("method") == "post":
            self._open = self.found.setdefault(said.get("action") or "", {})
        elif self._open is not None and tag in {"input", "textarea", "select", "button"} and (name := said.get("name")):
            self._open[name] = said.get("value") or ""
            self._choice = name if tag == "select" else ""
        elif self._open is not None and tag == "option" and self._choice and "selected" in said:
            self._open[self._choice] = said.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None
