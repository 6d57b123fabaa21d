"""The list of tenants, and a new one."""

from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlencode

from litestar import get, post

from admin_portal.desk import desk
from admin_portal.guards import MANAGER, VIEWER, fresh, sign_in_address, signed_in
from admin_portal.views import Shown, errors_of, show, ways
from app.errors import AlreadyExists, ChannelUnavailable, ContactMissing, GatehouseError, InvalidRequest
from app.tenants.rules import CHANNELS, STATUSES
from app.tenants.search import Filters
from app.web.browser import ADMIN, Answer, redirect, visitor
from app.web.queries import reads
from app.web.services import AnyRequest, services

_PAGE: Final = 25
_COUNT_AT_MOST: Final = 10_000
_LIST: Final = "/admin/tenants"
_NEW: Final = ("name", "slug", "email", "phone_number", "otp_delivery_method", "locale", "timezone")
_CONTACT: Final = ("missing", "failing")
# The list's names for its orders, and the service's.
_ORDERS: Final = {"name": "name", "slug": "slug", "updated": "updated_at"}
_UNPROCESSABLE: Final = 422


@dataclass(frozen=True, slots=True)
class Choice:
    """What the list shows, as its URL says. Words it doesn't know count for nothing: people edit URLs."""

    q: str
    status: str
    method: str
    contact: str
    sort: str

    @classmethod
    def of(cls, request: AnyRequest) -> "Choice":
        """What this request asks for."""
        query = request.query_params
        sort = query.get("sort", "")
        return cls(
            query.get("q", "").strip(),
            _one_of(query.get("status"), STATUSES),
            _one_of(query.get("method"), CHANNELS),
            _one_of(query.get("contact"), _CONTACT),
            sort if sort.removeprefix("-") in _ORDERS else "name",
        )

    @property
    def order(self) -> str:
        """The service's word for the order."""
        name = _ORDERS[self.sort.removeprefix("-")]
        return f"-{name}" if self.sort.startswith("-") else name

    def page(self, cursor: str | None) -> str | None:
        """The address of another page of the same list."""
        if cursor is None:
            return None
        chosen = {name: value for name, value in asdict(self).items() if value}
        return f"{_LIST}?{urlencode({**chosen, 'cursor': cursor})}"


@get("/tenants", opt=VIEWER | reads("q", "status", "method", "contact", "sort", "cursor"))
async def tenant_list(request: AnyRequest) -> Answer:
    """GET /admin/tenants?q=&status=&method=&contact=&sort=&cursor=."""
    own, choice = desk(request), Choice.of(request)
    masked = not signed_in(request).may_edit
    filters = Filters(
        search=choice.q,
        contacts=not masked,
        status=choice.status or None,
        method=choice.method or None,
        contact_missing=True if choice.contact == "missing" else None,
        failing=True if choice.contact == "failing" else None,
    )
    page = await own.tenants.list(filters, sort=choice.order, cursor=request.query_params.get("cursor"), limit=_PAGE)
    total = await own.tenants.count(filters, at_most=_COUNT_AT_MOST)
    return await show(
        request,
        "admin/tenants.html",
        filters=asdict(choice),
        q=choice.q,
        tenants=[Shown.of(tenant, masked=masked, failing=tenant.id in page.failing) for tenant in page.tenants],
        total=total,
        total_is_least=total >= _COUNT_AT_MOST,
        any=bool(total) or await own.tenants.count(Filters(contacts=False), at_most=1) > 0,
        methods=CHANNELS,
        pager={"previous": choice.page(page.previous), "next": choice.page(page.next)},
    )


@get("/tenants/new", opt=MANAGER)
async def new_tenant(request: AnyRequest) -> Answer:
    """The empty form. Its contacts need a young sign-in, which is asked for before anything is typed."""
    if not fresh(request):
        return redirect(sign_in_address(f"{_LIST}/new", "again"))
    usual = next(iter(services(request).settings.providers), "email")
    return await _new_page(request, {"otp_delivery_method": usual})


@post("/tenants/new", opt=MANAGER)
async def add_tenant(request: AnyRequest) -> Answer:
    """Adds a tenant; what is refused comes back as it was typed."""
    form = await ADMIN.form(request, *_NEW)
    if not fresh(request):
        return redirect(sign_in_address(f"{_LIST}/new", "again"))
    typed: dict[str, Any] = {name: value.strip() for name, value in form.items()}
    # An empty field is not filled in, it isn't a wish for nothing.
    values = {name: value for name, value in typed.items() if value}
    if "email" not in values and "phone_number" not in values:
        values.pop("otp_delivery_method", None)
    try:
        tenant = await desk(request).tenants.create(values, actor=signed_in(request).actor, client=visitor(request))
    except (InvalidRequest, AlreadyExists, ContactMissing, ChannelUnavailable) as refusal:
        return await _new_page(request, typed, refusal)
    return redirect(f"{_LIST}/{tenant.slug}?done=added")


HANDLERS: Final = (tenant_list, new_tenant, add_tenant)


async def _new_page(request: AnyRequest, values: dict[str, Any], refusal: GatehouseError | None = None) -> Answer:
    errors = {}
    if isinstance(refusal, AlreadyExists):
        errors = {"slug": "There is a tenant with this slug already."}
    elif refusal is not None:
        errors = errors_of(refusal, _NEW, values.get("otp_delivery_method", ""))
    return await show(
        request,
        "admin/tenant_new.html",
        status=_UNPROCESSABLE if errors else 200,
        methods=ways(services(request).settings),
        values=values,
        errors=errors,
    )


def _one_of(value: str | None, known: tuple[str, ...]) -> str:
    return value if value in known else ""
