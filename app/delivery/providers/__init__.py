"""The providers that the settings switch on, each in a file of its own, or in another package.

A package adds one by an entry point of the group `gatehouse.providers`: its name is what `SMS_PROVIDER` and its like
call it, and it leads to something that makes a `Provider` of the settings and a channel. It is loaded only when a
setting names it, and none takes the place of ours.
"""

from importlib.metadata import entry_points
from typing import Final

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

GROUP: Final = "gatehouse.providers"


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
            return _from_another_package(name, channel, settings)


def _from_another_package(name: str, channel: str, settings: Settings) -> Provider:
    setting = f"{channel.upper()}_PROVIDER"
    found = next(iter(entry_points(group=GROUP, name=name)), None)
    if found is None:
        raise ConfigurationError([f"{setting} names {name}: there is no such provider."])
    provider: Provider = found.load()(settings, channel)
    if (provider.name, provider.channel) != (name, channel):
        raise ConfigurationError(
            [f"{setting} names {name}, but {found.value} is {provider.name} for {provider.channel}."]
        )
    return provider
