"""The log as a channel: a developer signs in without any mail server or SMS account."""

import structlog

from app.delivery.message import Message, Receipt
from app.errors import ConfigurationError
from app.logs import reveal_code_in_development_log
from app.settings import Settings


class Console:
    """Writes codes to the log of a development server. Refuses to exist in production."""

    name = "console"

    def __init__(self, settings: Settings, channel: str) -> None:
        if settings.production:
            raise ConfigurationError([f"{channel.upper()}: the console provider is for development only."])
        self.channel = channel
        self._settings = settings
        self._log = structlog.get_logger()

    async def send(self, message: Message) -> Receipt:
        """Takes every message."""
        if message.code is not None:
            reveal_code_in_development_log(
                self._settings, message.code, tenant=message.tenant, channel=self.channel, contact=message.to
            )
        else:
            self._log.info(
                "Message",
                tenant=message.tenant,
                channel=self.channel,
                contact=message.to,
                detail=message.subject or message.text,
            )
        return Receipt()

    async def close(self) -> None:
        """There is nothing to close."""
