"""The providers that the settings switch on, each in a file of its own."""

from app.delivery.message import Provider
from app.delivery.providers.console import Console
from app.delivery.providers.gupshup import Gupshup
from app.delivery.providers.meta import Meta
from app.delivery.providers.msg91 import Msg91
from app.delivery.providers.smtp import Smtp
from app.delivery.providers.sns import Sns
from app.delivery.providers.twilio import Twilio
from app.delivery.providers.vonage import Vonage
from app.errors import ConfigurationError
from app.settings import Settings


def providers_for(settings: Settings) -> dict[str, list[Provider]]:
    """Providers by channel, in the order they are tried. Connects to nothing yet.

    Raises `ConfigurationError` for a name nobody answers to.
    """
    return {
        channel: [_provider(name, channel, settings) for name in names] for channel, names in settings.providers.items()
    }


def _provider(name: str, channel: str, settings: Settings) -> Provider:
    match channel, name:
        case _, "console":
            return Console(settings, channel)
        case "email", "smtp":
            return Smtp.from_settings(settings)
        case "sms" | "whatsapp", "twilio":
            return Twilio.from_settings(settings, channel)
        case "sms" | "whatsapp", "gupshup":
            return Gupshup.from_settings(settings, channel)
        case "sms", "sns":
            return Sns.from_settings(settings)
        case "sms", "msg91":
            return Msg91.from_settings(settings)
        case "sms", "vonage":
            return Vonage.from_settings(settings)
        case "whatsapp", "meta":
            return Meta.from_settings(settings)
        case _:
            raise ConfigurationError([f"{channel.upper()}_PROVIDER names {name}: there is no such provider."])
