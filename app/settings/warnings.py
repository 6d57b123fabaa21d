"""What starts and still can't be as it was meant: one sentence each, the setting's name first. Pure."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final
from urllib.parse import urlsplit

from app.settings import parsing
from app.settings.model import Settings

# Which provider a credential belongs to, by how its name begins.
_VENDORS: Final = ("TWILIO", "VONAGE", "MSG91", "GUPSHUP", "META", "SNS")
_CHANNELS: Final = ("sms", "whatsapp")
_SHORT_SECONDS: Final = 60
_WIDEST: Final = 8  # bits that a network of trusted proxies must at least name


def warnings(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    """`given` holds the text of what was set, by name."""
    yield from _where(settings, given)
    yield from _mail(settings, given)
    yield from _messages(settings, given)
    yield from _numbers(settings)
    yield from _secrets(settings, given)


def _where(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:  # noqa: C901 - a list, not a maze
    url = urlsplit(settings.public_url)
    local = parsing.is_local(settings.public_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    behind_proxy = bool(settings.trusted_proxies)
    if settings.public_url and url.scheme == "http" and not local:
        yield (
            f"PUBLIC_URL is {settings.public_url}: over plain http everybody on the way reads codes and sessions. "
            "That will do to try things out in a network of your own; with https it will do for people."
        )
    if settings.public_url and settings.production and local:
        yield f"PUBLIC_URL is {settings.public_url}: links in emails lead to the reader's own machine."
    if settings.public_url and local and port != settings.port and not behind_proxy and "PUBLIC_URL" in given:
        yield (
            f"PUBLIC_URL leads to port {port} of this machine and PORT is {settings.port}: right only behind a proxy, "
            "whose address goes into TRUSTED_PROXIES."
        )
    loopback = settings.host in {"127.0.0.1", "::1", "localhost"}
    if settings.public_url and not local and loopback and port == settings.port and not behind_proxy:
        yield (
            f"HOST is {settings.host}, so only this machine itself gets in, and PUBLIC_URL is {settings.public_url}: "
            "set HOST=0.0.0.0, or put a proxy in front and its address into TRUSTED_PROXIES."
        )
    if url.hostname and settings.allowed_hosts and not _answered(url.hostname, settings.allowed_hosts):
        yield (
            f"ALLOWED_HOSTS lacks {url.hostname}, the host of PUBLIC_URL: browsers are turned away, unless a proxy "
            "changes the Host header."
        )
    for network in settings.trusted_proxies:
        if network.prefixlen < _WIDEST:
            yield f"TRUSTED_PROXIES has {network}: nearly everybody may claim to be anybody. Name your proxies only."
    if settings.environment == "development" and url.scheme == "https":
        yield (
            "ENVIRONMENT is development behind https: codes appear in the log and strangers learn who exists. "
            "Set ENVIRONMENT=production where people sign in."
        )
    if settings.production and settings.otp_disclose_errors:
        yield "OTP_DISCLOSE_ERRORS is true in production: strangers learn which tenants and members exist."
    if settings.database_owner_url and not settings.database_url:
        yield "DATABASE_OWNER_URL is set and DATABASE_URL isn't: the embedded server is used, and this one is not."


def _answered(host: str, allowed: tuple[str, ...]) -> bool:
    host = f"[{host}]" if ":" in host else host
    return any(
        name in {"*", host} or (name.startswith("*.") and host.endswith(name.removeprefix("*"))) for name in allowed
    )


def _mail(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    if settings.smtp_host and "SMTP_ENABLED" not in given:
        yield "SMTP_HOST is set and SMTP_ENABLED isn't: no email is sent. Set SMTP_ENABLED=true."
    secured = settings.smtp_use_tls or settings.smtp_use_ssl
    near = settings.smtp_host in {"127.0.0.1", "::1", "localhost"}
    if settings.smtp_enabled and settings.smtp_password and not secured and not near:
        yield (
            "SMTP_PASSWORD goes to SMTP_HOST without TLS, for everybody on the way to read: set SMTP_USE_TLS=true or "
            "SMTP_USE_SSL=true."
        )


def _messages(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    for channel in _CHANNELS:
        name = channel.upper()
        chosen = given.get(f"{name}_PROVIDER")
        if chosen and channel not in settings.providers and f"{name}_ENABLED" not in given:
            yield f"{name}_PROVIDER is {chosen} and {name}_ENABLED isn't set: nothing is sent. Set {name}_ENABLED=true."
    used = set(chain.from_iterable(settings.providers.values()))
    asked = {name for channel in _CHANNELS for name in getattr(settings, f"{channel}_provider")}
    for vendor in _VENDORS:
        owned = sorted(name for name in settings.credentials if name.startswith(f"{vendor}_"))
        if owned and vendor.lower() not in used | asked:
            yield f"{owned[0]} is set and no channel uses {vendor.lower()}: name it in SMS_PROVIDER, if you want it."
    real = {channel for channel in _CHANNELS if set(settings.providers.get(channel, ())) - {"console"}}
    if real and not settings.sms_allowed_countries:
        shown = " and ".join({"sms": "SMS", "whatsapp": "WhatsApp messages"}[channel] for channel in sorted(real))
        yield (
            f"SMS_ALLOWED_COUNTRIES is not set: {shown} go to every country, and fraudsters who earn by each message "
            "make you pay. Name the countries of your people, such as SMS_ALLOWED_COUNTRIES=GB,IE."
        )


def _numbers(settings: Settings) -> Iterator[str]:
    """In production the shortest ones are faults (app.settings.checks)."""
    if not settings.production:
        yield from too_short(settings)
    if settings.otp_resend_cooldown_seconds >= settings.otp_ttl_seconds:
        yield "OTP_RESEND_COOLDOWN_SECONDS is as long as OTP_TTL_SECONDS: a code is over before it can be sent again."
    if settings.otp_ip_hourly_limit < settings.otp_hourly_limit:
        yield (
            "OTP_IP_HOURLY_LIMIT is below OTP_HOURLY_LIMIT: a whole office behind one address gets fewer codes than "
            "one person may."
        )
    if settings.fallback_after_seconds >= settings.otp_ttl_seconds:
        yield "FALLBACK_AFTER_SECONDS is as long as OTP_TTL_SECONDS: the next channel is tried when the code is over."


def too_short(settings: Settings) -> Iterator[str]:
    """Times in which nobody can do what they are for."""
    for name, what in (
        ("jwt_access_ttl_seconds", "whoever signs in has to refresh all the time"),
        ("jwt_refresh_ttl_seconds", "people are signed out again at once"),
        ("otp_ttl_seconds", "a code is over before it has arrived"),
        ("otp_registration_ttl_seconds", "a code is over before it has arrived"),
    ):
        seconds = getattr(settings, name)
        if seconds < _SHORT_SECONDS:
            yield f"{name.upper()} is {seconds}: {what}. It is in seconds; at least {_SHORT_SECONDS} make sense."
    if settings.jwt_refresh_ttl_seconds < settings.jwt_access_ttl_seconds:
        yield (
            f"JWT_REFRESH_TTL_SECONDS ({settings.jwt_refresh_ttl_seconds}) is less than JWT_ACCESS_TTL_SECONDS "
            f"({settings.jwt_access_ttl_seconds}): sessions end before their first access token would."
        )


def _secrets(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    parts = [part.strip() for part in given.get("SECRET_KEYS", "").split(",") if part.strip()]
    if len(parts) > len(settings.secret_keys) and "SECRET_KEYS" in given:
        yield "SECRET_KEYS has the same secret twice: it counts once, and nothing has been replaced by it."
    if "," in given.get("SECRET_KEY", ""):
        yield "SECRET_KEY has a comma and is one secret with it: a ring of several is called SECRET_KEYS."
