"""The two contacts of a person on pages: what they are called there, and by which ways a code can reach them."""

from dataclasses import dataclass
from typing import Final

from app.auth.sessions import LiveSession
from app.errors import NotFound
from app.masking import mask_email, mask_phone
from app.members.model import Member
from app.web.services import AnyRequest, services

# Name in addresses, field, and what carries a code there, best first.
_KINDS: Final = (("email", "email", ("email",)), ("phone", "phone_number", ("sms", "whatsapp")))


@dataclass(frozen=True, slots=True)
class Kind:
    """Email or phone. Without any of its `channels` installed, no code can be sent there."""

    name: str
    field: str
    channels: list[str]

    @property
    def cookie(self) -> str:
        """The name of the cookie of a code under way; each kind has its own."""
        return f"{self.name}-claim"

    def masked(self, person: LiveSession | Member) -> str | None:
        """What the person has of this kind, as pages show it."""
        value = person.email if self.field == "email" else person.phone_number
        if value is None:
            return None
        return mask_email(value) if self.field == "email" else mask_phone(value)

    def verified(self, member: Member) -> bool:
        """Whether a code has proven it."""
        return (member.email_verified_at if self.field == "email" else member.phone_verified_at) is not None


def kinds(request: AnyRequest) -> list[Kind]:
    """Both, as this installation has them."""
    providers = services(request).settings.providers
    return [Kind(name, field, [way for way in ways if way in providers]) for name, field, ways in _KINDS]


def kind_named(request: AnyRequest, name: str) -> Kind:
    """The one of this name. Raises `NotFound`, also where no code can be sent there."""
    for kind in kinds(request):
        if kind.name == name and kind.channels:
            return kind
    raise NotFound
