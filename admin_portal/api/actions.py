"""What is done for one tenant: its story told, a test sent, unlocked, let in."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from litestar import Response, get, post
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta, Struct

from admin_portal.api.documents import Once, OnceShown
from admin_portal.api.guards import MANAGER, VIEWER, YOUNG, caller
from admin_portal.api.payloads import ClearedBody, Method, Next, UnlockBody
from admin_portal.api.tenants import REFUSED, Limit, Slug
from admin_portal.desk import desk
from app.auth.links import LIFETIME
from app.errors import (
    AlreadyExists,
    ChannelUnavailable,
    ContactMissing,
    DeliveryFailed,
    TenantNotFound,
    TenantSuspended,
)
from app.masking import mask_ip
from app.tenants.test_message import TestMessage, TestOutcome
from app.web.caller import client_of, preferred_wait
from app.web.docs import refusals
from app.web.services import AnyRequest, services

_ACCEPTED: Final = 202
_OK: Final = 200
_POLL_SECONDS: Final = 0.1
_ARRIVED: Final = frozenset({"sent", "delivered"})


class TestMessageRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """How the message should go; otherwise by the preferred method."""

    channel: Method | None = None


class TestMessageBody(Struct, frozen=True):
    """Where a test message stands."""

    id: UUID
    channel: Method
    state: Annotated[str, Meta(description="queued, sending, sent, delivered, failed, expired or void.")]
    provider: str | None = None


class LinkBody(Struct, frozen=True):
    """Signs the tenant in, once. Shown this once."""

    url: str
    expires_in: Annotated[int, Meta(description="Whole seconds.", examples=[600])]


class TimelineEntry(Struct, frozen=True):
    """One line of the story. `look` names the kind of line."""

    at: datetime
    look: Annotated[str, Meta(examples=["sent"])]
    text: Annotated[str, Meta(examples=["Accepted by the mail server"])]
    notes: list[str]
    ip: str | None
    user_agent: str | None
    since: Annotated[datetime | None, Meta(description="Of a line that stands for several tries: the first of them.")]


class TimelineBody(Struct, frozen=True):
    """What happened to the tenant's codes, newest first."""

    entries: list[TimelineEntry]
    next: Next


@get(
    "/tenants/{slug:str}/timeline",
    opt=VIEWER,
    summary="What happened to its codes",
    responses=refusals(*REFUSED, TenantNotFound),
)
async def timeline(
    request: AnyRequest,
    slug: Slug,
    cursor: Annotated[str | None, QueryParameter(description="`next` of the page before.")] = None,
    limit: Limit = 50,
) -> TimelineBody:
    """The story of each code in plain words, newest first."""
    tenant = (await desk(request).tenants.get(slug)).masked()
    contacts = {"email": tenant.email, "phone_number": tenant.phone_number}
    story = await desk(request).timeline.read(
        tenant.id, contacts, sees_contacts=caller(request).sees_contacts, cursor=cursor, limit=limit
    )
    exact = caller(request).sees_contacts
    entries = [
        TimelineEntry(
            e.at, e.look, e.text, list(e.notes), e.ip if exact or e.ip is None else mask_ip(e.ip), e.user_agent, e.since
        )
        for e in story.entries
    ]
    return TimelineBody(entries, story.next)


@post(
    "/tenants/{slug:str}/test-message",
    opt=MANAGER,
    status_code=202,
    summary="Send a test message",
    responses=refusals(*REFUSED, TenantNotFound, ContactMissing, ChannelUnavailable, DeliveryFailed, AlreadyExists),
    operation_class=Once,
)
async def send_test(request: AnyRequest, slug: Slug, data: JSONBody[TestMessageRequest]) -> Response[TestMessageBody]:
    """Its words hold no code. With `Prefer: wait=10` the answer waits for the outcome: 200, or 502 with the reason."""
    message = await desk(request).tenants.send_test(
        slug, channel=data.channel, actor=caller(request).actor, client=client_of(request)
    )
    wait = preferred_wait(request)
    if not wait:
        return Response(TestMessageBody(message.id, message.channel, "queued"), status_code=_ACCEPTED)
    outcome = await _outcome(request, message, wait)
    if outcome.settled and outcome.state not in _ARRIVED:
        raise DeliveryFailed(outcome.error)
    return Response(
        TestMessageBody(message.id, outcome.channel, outcome.state, outcome.provider),
        status_code=_OK if outcome.settled else _ACCEPTED,
        headers={"Preference-Applied": f"wait={wait}"},
    )


@post(
    "/tenants/{slug:str}/unlock",
    opt=MANAGER,
    status_code=200,
    summary="Unlock a tenant",
    responses=refusals(*REFUSED, TenantNotFound, AlreadyExists),
    operation_class=Once,
)
async def unlock(request: AnyRequest, slug: Slug) -> UnlockBody:
    """Forgets wrong codes, lock and hourly quota of the tenant's contact, so that a code can be asked for now."""
    tenant_id = await _tenant_id(request, slug)
    unlocked = await desk(request).unlocking.unlock(tenant_id, actor=caller(request).actor, client=client_of(request))
    return UnlockBody(unlocked)


@post(
    "/tenants/{slug:str}/clear-failing",
    opt=MANAGER,
    status_code=200,
    summary="Take the mark off a tenant's contact",
    responses=refusals(*REFUSED, TenantNotFound, AlreadyExists),
    operation_class=Once,
)
async def clear_failing(request: AnyRequest, slug: Slug) -> ClearedBody:
    """A provider said that there is no such address or number; somebody who knows better says that there is. The mark
    also goes by itself when a message arrives, and when the contact changes.
    """
    tenant_id = await _tenant_id(request, slug)
    cleared = await desk(request).marks.clear(tenant_id, actor=caller(request).actor, client=client_of(request))
    return ClearedBody(list(cleared))


@post(
    "/tenants/{slug:str}/sign-in-link",
    opt=MANAGER | YOUNG,
    status_code=201,
    summary="Let a tenant in",
    responses=refusals(*REFUSED, TenantNotFound, TenantSuspended, AlreadyExists),
    operation_class=OnceShown,
)
async def sign_in_link(request: AnyRequest, slug: Slug) -> LinkBody:
    """A link that signs whoever has it in as this tenant, once, within ten minutes. It is in no store."""
    tenant = await desk(request).tenants.get(slug)
    if tenant.status != "active":
        raise TenantSuspended
    token = await desk(request).links.create(
        tenant.id, ("tenant", tenant.id), caller(request).actor, client_of(request)
    )
    public_url = services(request).settings.public_url
    return LinkBody(f"{public_url}/t/{tenant.slug}/link/{token}", int(LIFETIME.total_seconds()))


HANDLERS: Final = (timeline, send_test, unlock, clear_failing, sign_in_link)


async def _tenant_id(request: AnyRequest, slug: str) -> UUID:
    return (await desk(request).tenants.get(slug)).id


async def _outcome(request: AnyRequest, message: TestMessage, wait: int) -> TestOutcome:
    """The outcome as soon as there is one, or where it stands after `wait` seconds."""
    tenants = desk(request).tenants
    for _ in range(round(wait / _POLL_SECONDS)):
        outcome = await tenants.test_outcome(message)
        if outcome.settled:
            return outcome
        await services(request).sleep(_POLL_SECONDS)
    return await tenants.test_outcome(message)
