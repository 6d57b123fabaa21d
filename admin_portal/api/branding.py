"""How a tenant's messages look: read and changed."""

from typing import Annotated, Any, Final

from litestar import Response, get, put
from litestar.params import JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict

from admin_portal.api.guards import MANAGER, VIEWER, caller, require_fresh
from admin_portal.api.tenants import REFUSED, IfMatch, Slug
from admin_portal.desk import desk
from app.delivery.branding import Branding, Brandings, logo_address
from app.delivery.logo import MAX_BYTES
from app.errors import EditConflict, PayloadTooLarge, TenantNotFound
from app.masking import mask_email
from app.web.caller import client_of
from app.web.docs import refusals
from app.web.etags import etag, expected_version
from app.web.reading import BODY_LIMIT
from app.web.services import AnyRequest, Services, services

# The logo in base64, and what any other body may have.
SIZE_LIMIT: Final = -(-MAX_BYTES // 3) * 4 + BODY_LIMIT

SenderName = Annotated[str, Meta(description="Before the sender's address; 64 characters.", examples=["Acme Water"])]
ReplyTo = Annotated[str, Meta(description="Where answers go.", examples=["help@acme.example"])]
Colour = Annotated[str, Meta(description="#RGB or #RRGGBB; made readable where it is used.", examples=["#76530c"])]
Intro = Annotated[
    str,
    Meta(
        description="A paragraph of emails with a code; {{ tenant }} and {{ lifetime }} are filled in. 300 characters.",
        examples=["Your key to the Acme customer area:"],
    ),
]
SmsText = Annotated[
    str,
    Meta(
        description="The whole SMS; {{ code }} must be in it, {{ tenant }} and {{ lifetime }} may. 250 characters.",
        examples=["{{ code }} is your Acme code."],
    ),
]


class BrandingChangeRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """What is to be changed; null clears, so that it is as the operator has it. What isn't named stays."""

    sender_name: SenderName | UnsetType | None = UNSET
    reply_to: ReplyTo | UnsetType | None = UNSET
    colour: Colour | UnsetType | None = UNSET
    logo: (
        Annotated[
            bytes,
            Meta(
                description="A PNG, JPEG or WebP image of at most 64 KiB and 2048 x 2048 pixels, in base64.",
                extra_json_schema={"type": "string", "contentEncoding": "base64"},
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    code_in_subject: bool | UnsetType = UNSET
    email_intro: Intro | UnsetType | None = UNSET
    sms_text: SmsText | UnsetType | None = UNSET


class LogoBody(Struct, frozen=True):
    """The logo there is. `url` changes with it; width and height are pixels."""

    url: str
    media_type: Annotated[str, Meta(examples=["image/png"])]
    width: int
    height: int


class BrandingBody(Struct, frozen=True):
    """How a tenant's messages look. What is null is as the operator has it. Viewers see `reply_to` masked."""

    sender_name: SenderName | None
    reply_to: ReplyTo | None
    colour: Colour | None
    logo: LogoBody | None
    code_in_subject: Annotated[bool, Meta(description="Whether the subject of an email has the code.")]
    email_intro: Intro | None
    sms_text: SmsText | None
    version: Annotated[int, Meta(description="Also the ETag; 0 for what was never changed.", examples=[1])]


@get(
    "/tenants/{slug:str}/branding",
    opt=VIEWER,
    summary="Read how a tenant's messages look",
    responses=refusals(*REFUSED, TenantNotFound),
)
async def get_branding(request: AnyRequest, slug: Slug) -> Response[BrandingBody]:
    """Its version is the ETag; it is not the tenant's."""
    tenant = await desk(request).tenants.get(slug)
    return _answer(request, slug, await Brandings(services(request).db).get(tenant.id))


@put(
    "/tenants/{slug:str}/branding",
    opt=MANAGER,
    summary="Change how a tenant's messages look",
    responses=refusals(*REFUSED, TenantNotFound, EditConflict, PayloadTooLarge),
    request_max_body_size=SIZE_LIMIT,
)
async def change_branding(
    request: AnyRequest, slug: Slug, data: JSONBody[BrandingChangeRequest], if_match: IfMatch = None
) -> Response[BrandingBody]:
    """Shows in messages after half a minute at the latest. What a refusal points at is wrong, and nothing was saved."""
    if data.reply_to is not UNSET:
        require_fresh(request)
    tenant = await desk(request).tenants.get(slug)
    brandings = Brandings(services(request).db)

    async def version() -> int:
        return (await brandings.get(tenant.id)).version

    branding = await brandings.set(
        tenant.id,
        {name: value for name, value in asdict(data).items() if value is not UNSET},
        now=services(request).clock(),
        actor=caller(request).actor,
        client=client_of(request),
        expected_version=await expected_version(if_match, version),
    )
    return _answer(request, slug, branding)


HANDLERS: Final = (get_branding, change_branding)


def _answer(request: AnyRequest, slug: str, branding: Branding) -> Response[BrandingBody]:
    reply_to = branding.reply_to
    if reply_to and not caller(request).sees_contacts:
        reply_to = mask_email(reply_to)
    body = BrandingBody(
        sender_name=branding.sender_name,
        reply_to=reply_to,
        colour=branding.colour,
        logo=_logo(services(request), slug, branding),
        code_in_subject=branding.code_in_subject,
        email_intro=branding.email_intro,
        sms_text=branding.sms_text,
        version=branding.version,
    )
    headers: dict[str, Any] = {"ETag": etag(branding.version)}
    return Response(body, status_code=200, headers=headers)


def _logo(core: Services, slug: str, branding: Branding) -> LogoBody | None:
    logo = branding.logo
    if logo is None:
        return None
    url = core.settings.public_url + logo_address(core.ring, slug, logo.version)
    return LogoBody(url, logo.media_type, logo.width, logo.height)
