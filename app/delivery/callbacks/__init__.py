"""What providers report after they took a message: the readers that the settings switch on, by provider."""

from app.delivery.callbacks.gupshup import Gupshup
from app.delivery.callbacks.meta import Meta
from app.delivery.callbacks.msg91 import Msg91
from app.delivery.callbacks.posted import Posted, Reader, Report
from app.delivery.callbacks.reports import Reports
from app.delivery.callbacks.sns import Sns, fetch
from app.delivery.callbacks.twilio import Twilio
from app.delivery.callbacks.vonage import Vonage
from app.settings import Settings

__all__ = ["PROVIDERS", "Posted", "Reader", "Report", "Reports", "readers_for", "reporting"]

PROVIDERS = frozenset({"gupshup", "meta", "msg91", "sns", "twilio", "vonage"})


def readers_for(settings: Settings) -> dict[str, Reader]:
    """A reader for each provider whose secret for callbacks is known; without one nothing it says can be believed."""
    known = settings.credentials
    url = f"{settings.public_url}/callbacks"
    readers: dict[str, Reader] = {}
    if token := known.get("TWILIO_AUTH_TOKEN"):
        readers["twilio"] = Twilio(token, f"{url}/twilio")
    if secret := known.get("VONAGE_SIGNATURE_SECRET"):
        readers["vonage"] = Vonage(secret)
    if secret := known.get("META_APP_SECRET"):
        readers["meta"] = Meta(secret, known.get("META_VERIFY_TOKEN"))
    if token := known.get("MSG91_WEBHOOK_TOKEN"):
        readers["msg91"] = Msg91(token)
    if token := known.get("GUPSHUP_CALLBACK_TOKEN"):
        readers["gupshup"] = Gupshup(token)
    if topic := known.get("SNS_CALLBACK_TOPIC_ARN"):
        readers["sns"] = Sns(topic, fetch)
    return readers


def reporting(settings: Settings) -> frozenset[str]:
    """The providers from which a status is to be expected: those that can be believed, where they can reach us."""
    return frozenset(readers_for(settings)) if settings.public_url.startswith("https://") else frozenset()
