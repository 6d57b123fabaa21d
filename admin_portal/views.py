"""What the pages show: people, places, contacts and refusals in the words of somebody who does support."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from admin_portal.guards import signed_in
from app.audit.blame import failure
from app.audit.story import BY, Entry
from app.auth.tenant_sessions import TenantSession
from app.delivery.client import browser_and_system
from app.delivery.marks import Mark
from app.errors import ChannelUnavailable, ContactMissing, GatehouseError, InvalidRequest
from app.masking import mask_email, mask_ip, mask_phone
from app.settings import Settings
from app.tenants.history import Change
from app.tenants.model import Tenant
from app.tenants.rules import CHANNELS
from app.web.browser import ADMIN, Answer
from app.web.sentences import FORM, notice
from app.web.services import AnyRequest, services
from app.web.useragents import describe

_NOTICES: Final = {
    "added": "The tenant is added.",
    "contact": "The contact is saved. Open codes stopped working, and the old and the new address are told.",
    "delivery": "The delivery is saved.",
    "details": "The details are saved.",
    "suspended": "The tenant is suspended. Nobody of it is signed in any more.",
    "resumed": "The tenant is resumed. Codes are sent again.",
    "unlocked": "Unlocked. A code can be asked for now.",
    "cleared": "The contact counts as working again. Send a test to be sure.",
    "not-marked": "The contact wasn't marked.",
    "not-locked": "There was nothing to unlock.",
    "factor-reset": "The second factor is reset. Where one is required, the next sign-in sets a new one up.",
    "no-factor": "There was no second factor.",
    "session": "The session is ended.",
    "sessions": "All sessions are ended.",
    "test": "The test message is on its way.",
    "member-added": "The member is added.",
    "member-contact": "The contact is saved. Open codes stopped working, and the old and the new address are told.",
    "member-details": "The details are saved.",
    "member-access": "The sign-in settings are saved.",
    "member-suspended": "The member is suspended, and signed out everywhere.",
    "member-resumed": "The member is resumed, and can sign in again.",
    "member-invited": "The invitation is on its way.",
    "member-erased": "All that was kept of this person is deleted.",
    "members-imported": "The file is imported.",
    "codes-on": "Codes are on for these members.",
    "codes-off": "Codes are off for these members.",
}
_VIA: Final = {"page": "page", "api": "API", "cli": "command line", "worker": "worker"}
_ACTORS: Final = {"operator": "somebody at the command line", "system": "Gatehouse"}
_CHANGE_WORDS: Final = {
    "tenant.created": "Added",
    "tenant.suspended": "Suspended",
    "tenant.resumed": "Resumed",
    "tenant.unlocked": "Unlocked",
    "tenant.contact_cleared": "Contact said to work again",
    "tenant.branded": "Look of messages changed",
    "member.created": "Added",
    "member.registered": "Registered",
    "member.suspended": "Suspended",
    "member.resumed": "Resumed",
    "member.unlocked": "Unlocked",
    "member.contact_cleared": "Contact said to work again",
    "member.invited": "Invited",
    "member.exported": "All data exported",
}
_CHANNEL_WORDS: Final = {"email": "Email", "sms": "SMS", "whatsapp": "WhatsApp", "push": "Push notification"}
_FIELD_WORDS: Final = {
    "name": "Name",
    "slug": "Slug",
    "status": "Status",
    "status_reason": "Reason",
    "email": "Email",
    "phone_number": "Phone number",
    "otp_delivery_method": "Codes go by",
    "fallback_methods": "If that fails",
    "locale": "Language",
    "timezone": "Time zone",
    "preferred_method": "Codes go by",
    "codes_enabled": "Code after the password",
    "must_verify": "Must prove new addresses",
}
_CONTACT_WORDS: Final = {"email": "an email address", "phone_number": "a phone number"}
# Counting stops here: a page that says "more than 10,000" has said enough.
COUNT_AT_MOST: Final = 10_000


async def show(request: AnyRequest, template: str, *, status: int = 200, **context: Any) -> Answer:
    """A page of somebody who is signed in. The label of the environment is there in production too."""
    core = services(request)
    admin = signed_in(request)
    said = {
        "admin": {"email": admin.session.email, "role": admin.session.role},
        "environment_label": core.settings.environment,
        "now": core.clock(),
        "may_edit": admin.may_edit,
        "notice": notice(request, _NOTICES),
    }
    return await ADMIN.page(request, template, status=status, **{**said, **context})


@dataclass(frozen=True, slots=True)
class Shown:
    """A tenant as a role may see it: with `masked`, contacts are."""

    slug: str
    name: str
    status: str
    suspended_reason: str | None
    email: str | None
    phone_number: str | None
    otp_delivery_method: str
    fallback_methods: Sequence[str]
    locale: str
    timezone: str
    version: int
    created_at: Any
    updated_at: Any
    contact_missing: bool
    failing: bool = False

    @classmethod
    def of(cls, tenant: Tenant, *, masked: bool, failing: bool = False) -> "Shown":
        """This tenant, for somebody who may (not) see contacts."""
        email, phone = tenant.email, tenant.phone_number
        if masked:
            email, phone = masked_contacts(tenant).values()
        return cls(
            tenant.slug,
            tenant.name,
            tenant.status,
            tenant.status_reason,
            email,
            phone,
            tenant.otp_delivery_method,
            tenant.fallback_methods,
            tenant.locale,
            tenant.timezone,
            tenant.version,
            tenant.created_at,
            tenant.updated_at,
            tenant.contact_missing,
            failing,
        )


def masked_contacts(tenant: Tenant) -> dict[str, str | None]:
    """A tenant's contacts by field name, masked."""
    return {
        "email": mask_email(tenant.email) if tenant.email else None,
        "phone_number": mask_phone(tenant.phone_number) if tenant.phone_number else None,
    }


def ways(settings: Settings, *, failing: Collection[str] = ()) -> list[dict[str, object]]:
    """Every channel: whether a provider is switched on, and whether the contact is marked as no good by it."""
    return [{"key": key, "available": key in settings.providers, "failing": key in failing} for key in CHANNELS]


def mark_lines(marks: Sequence[Mark]) -> list[dict[str, object]]:
    """Marks at a contact: since when, by which channel, and why."""
    return [{"since": m.since, "channel": m.channel, "why": failure(m.error_class, m.channel)} for m in marks]


def lines(entries: Sequence[Entry]) -> list[dict[str, object]]:
    """Entries of a story for the timeline macro."""
    return [
        {
            "at": e.at,
            "since": e.since,
            "kind": e.look,
            "text": e.text,
            "note": " · ".join((*e.notes, *whereabouts(e.user_agent, e.ip))),
        }
        for e in entries
    ]


def whereabouts(user_agent: str | None, ip: str | None) -> list[str]:
    """Browser and network of a call, as far as they are known. A network, not an address: it is somebody else's."""
    device = describe(user_agent) if any(browser_and_system(user_agent)) else ""
    return [part for part in (device, mask_ip(ip) if ip else "") if part]


def session_lines(sessions: Sequence[TenantSession], tenant_id: UUID) -> list[dict[str, object]]:
    """Sessions for the list macro."""
    return [
        {
            "id": session.id,
            "device": session.device_name or describe(session.user_agent),
            "subject": None if session.subject_id == tenant_id else "a member",
            "place": mask_ip(session.ip) if session.ip else "unknown network",
            "started_at": session.created_at,
            "last_seen_at": session.seen_at,
        }
        for session in sessions
    ]


def change_line(change: Change) -> dict[str, object]:
    """One entry of the history: who, from where, what, and the differences."""
    return {
        "at": change.at,
        "actor": actor(change),
        "via": _VIA.get(change.source, change.source),
        "place": " · ".join(whereabouts(change.user_agent, change.ip) if change.source != "cli" else []),
        "what": what_changed(change),
        "changes": [
            {"field": field_words(c["field"]), "before": _value(c["before"]), "after": _value(c["after"])}
            for c in change.changes
        ],
    }


def actor(change: Change) -> str:
    """Who did it."""
    return change.actor or _ACTORS.get(change.actor_kind, change.actor_kind)


def what_changed(change: Change) -> str:
    """A change in one line."""
    words = _CHANGE_WORDS.get(change.action)
    if words is None:
        words = f"{', '.join(field_words(c['field']) for c in change.changes) or 'Something'} changed"
    return f"{words}: {change.reason}" if change.reason and change.action == "tenant.suspended" else words


def field_words(name: str) -> str:
    """What a field is called on pages."""
    return _FIELD_WORDS.get(name, name.removeprefix("policy.").removeprefix("branding.").replace("_", " ").capitalize())


def channel_words(name: str) -> str:
    """What a channel is called on pages."""
    return _CHANNEL_WORDS.get(name, name)


def errors_of(refusal: GatehouseError, fields: Sequence[str], method: str) -> dict[str, str]:
    """A refusal as sentences by field, for a form with these fields; `method` is how codes are to go.

    What concerns a field the form doesn't have stands at the first one.
    """
    if isinstance(refusal, InvalidRequest) and refusal.errors:
        found: dict[str, str] = {}
        for error in refusal.errors:
            name = error.pointer.split("/")[1] if error.pointer else FORM
            found.setdefault(name if name in fields else FORM, sentence(name, error.detail))
        return {name: found[name] for name in (FORM, *fields) if name in found}
    if isinstance(refusal, ContactMissing):
        missing = str(refusal.extra.get("pointer", "")).removeprefix("/")
        what = _CONTACT_WORDS.get(missing, "a contact")
        if missing not in fields:
            return {fields[0]: f"There is no {what.partition(' ')[2]} for it. Add one under Contact first."}
        return {missing: f"Codes go {BY.get(method, method)}, so {what} is needed." if method else refusal.detail}
    if isinstance(refusal, ChannelUnavailable):
        at = "otp_delivery_method" if "otp_delivery_method" in fields else FORM
        return {at: f"{channel_words(method)} is switched off: no provider is set up."}
    return {FORM: refusal.detail}


def sentence(name: str, detail: str) -> str:
    """The rules speak of fields by their name in the API."""
    for field, words in _CONTACT_WORDS.items():
        detail = detail.replace(f" needs {field}.", f" needs {words}.")
    return detail.replace(f"{name} is required", f"Enter the {field_words(name).lower()}")


def _value(value: object) -> str | None:
    match value:
        case None | "" | []:
            return None
        case bool():
            return "yes" if value else "no"
        case list():
            return ", then ".join(channel_words(str(item)) for item in value)
        case _:
            return _CHANNEL_WORDS.get(str(value), str(value))
