"""One installation that has an account with every vendor, all of them on one recorder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from app.delivery.message import Message, Provider
from app.delivery.providers import providers_for
from app.settings import Settings, load

ACCOUNTS = {
    "TWILIO_ACCOUNT_SID": "AC00000000000000000000000000000001",
    "TWILIO_AUTH_TOKEN": "twilio-token",
    "TWILIO_FROM": "+15005550006",
    "TWILIO_WHATSAPP_FROM": "+15005550007",
    "VONAGE_API_KEY": "vonage-key",
    "VONAGE_API_SECRET": "vonage-secret",
    "VONAGE_FROM": "Acme",
    "MSG91_AUTH_KEY": "msg91-key",
    "MSG91_TEMPLATE_ID": "60a1b2c3d4e5f60718293a4b",
    "MSG91_SENDER_ID": "ACMEIN",
    "GUPSHUP_USER_ID": "2000000000",
    "GUPSHUP_PASSWORD": "gupshup&password",
    "META_ACCESS_TOKEN": "meta-token",
    "META_PHONE_NUMBER_ID": "106540352242922",
    "META_TEMPLATE": "sign_in_code",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "AWS_REGION": "eu-west-1",
    "SNS_SENDER_ID": "Acme",
}
VENDORS = ("TWILIO", "VONAGE", "MSG91", "GUPSHUP", "META", "SNS")
MESSAGE = Message(
    id="0123456789abcdef",
    channel="sms",
    tenant="acme",
    to="+447700900123",
    text="Größe & Söhne: 123456 is your code + key.\n\n@login.example #123456",
    date=datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC),
    code="123456",
    locale="de",
    valid_seconds=600,
)


def installation(url: str, **changes: str | None) -> Settings:
    """Settings with every vendor switched on at `url`; `changes` replace credentials, or take them away."""
    settings = load(
        {
            "ENVIRONMENT": "test",
            "SECRET_KEY": "fJ3nq0Zs8vYt1LwXk5Rb7Ue2Mh9Pc4Ga6Dd-Ty_Ki",
            "PUBLIC_URL": "https://login.example",
            "SMS_ENABLED": "true",
            "SMS_PROVIDER": "twilio,sns,msg91,gupshup,vonage",
            "WHATSAPP_ENABLED": "true",
            "WHATSAPP_PROVIDER": "meta,twilio,gupshup",
            **{f"{vendor}_API_URL": url for vendor in VENDORS},
            **ACCOUNTS,
        },
        dotenv=None,
    )
    given = {**settings.credentials, **changes}
    return replace(settings, credentials={name: value for name, value in given.items() if value is not None})


@asynccontextmanager
async def provider(settings: Settings, channel: str, name: str) -> AsyncIterator[Provider]:
    """The provider of that name as the worker gets it."""
    everyone = [each for providers in providers_for(settings).values() for each in providers]
    try:
        yield next(each for each in everyone if (each.channel, each.name) == (channel, name))
    finally:
        for each in everyone:
            await each.close()
