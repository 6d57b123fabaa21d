"""What must hold between settings, and what production insists on. Pure."""

from collections.abc import Iterator
from typing import Final

from app.settings import parsing
from app.settings.model import MOST_CODES_AN_HOUR, Settings
from app.settings.providers import REQUIRED
from app.settings.warnings import too_short

_SSL_PORT: Final = 465
_STARTTLS_PORTS: Final = frozenset({25, 587})
_KEY_BYTES: Final = 32
_DISTINCT_BYTES: Final = 10
_TOKEN_CHARACTERS: Final = 32
_PLACEHOLDERS: Final = (
    b"changeme",
    b"change-me",
    b"change_me",
    b"secret",
    b"password",
    b"example",
    b"insecure",
)
MAKE_A_KEY: Final = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'."


def faults(settings: Settings) -> Iterator[str]:
    """One sentence for each contradiction, the setting's name first."""
    yield from _smtp(settings)
    yield from _smtp_port(settings)
    yield from _dkim(settings)
    yield from _credentials(settings)
    if settings.production:
        yield from _production(settings)


def _smtp(settings: Settings) -> Iterator[str]:
    if settings.smtp_use_tls and settings.smtp_use_ssl:
        yield "SMTP_USE_TLS and SMTP_USE_SSL exclude each other: STARTTLS is for port 587, SSL for port 465."
    if settings.smtp_enabled and not settings.smtp_host:
        yield "SMTP_HOST is missing: SMTP_ENABLED=true needs a server."
    if settings.smtp_enabled and not settings.smtp_from_email:
        yield "SMTP_FROM_EMAIL is missing: SMTP_ENABLED=true needs a sender."
    if settings.smtp_username and not settings.smtp_password:
        yield "SMTP_PASSWORD is missing: SMTP_USERNAME is set."
    if settings.smtp_password and not settings.smtp_username:
        yield "SMTP_USERNAME is missing: SMTP_PASSWORD is set."


def _smtp_port(settings: Settings) -> Iterator[str]:
    """Either way round the two would wait for each other to speak first, until a timeout."""
    if not settings.smtp_enabled or (settings.smtp_use_tls and settings.smtp_use_ssl):
        return
    if settings.smtp_port == _SSL_PORT and not settings.smtp_use_ssl:
        yield f"SMTP_PORT is {_SSL_PORT}, where TLS comes with the first byte: set SMTP_USE_SSL=true, or SMTP_PORT=587."
    if settings.smtp_port in _STARTTLS_PORTS and settings.smtp_use_ssl:
        yield (
            f"SMTP_PORT is {settings.smtp_port}, where TLS begins with STARTTLS: set SMTP_USE_TLS=true in place of "
            f"SMTP_USE_SSL, or SMTP_PORT={_SSL_PORT}."
        )


def _dkim(settings: Settings) -> Iterator[str]:
    names = ("dkim_domain", "dkim_selector", "dkim_private_key_file")
    if any(getattr(settings, name) for name in names):
        for name in names:
            if not getattr(settings, name):
                yield f"{name.upper()} is missing: DKIM needs all three of its settings."
    sender = (settings.smtp_from_email or "").lower().rpartition("@")[2]
    domain = settings.dkim_domain
    if sender and domain and sender != domain and not sender.endswith(f".{domain}"):
        yield (
            f"DKIM_DOMAIN must be {sender}, the domain of SMTP_FROM_EMAIL, or one above it: "
            "receivers count no other signature (DMARC)."
        )


def _credentials(settings: Settings) -> Iterator[str]:
    missing = {
        name: provider
        for channel, providers in settings.providers.items()
        for provider in providers
        for name in REQUIRED.get((channel, provider), ())
        if name not in settings.credentials
    }
    for name, provider in missing.items():
        yield f"{name} is missing: the provider {provider} needs it."


def _production(settings: Settings) -> Iterator[str]:
    yield from _keys(settings)
    yield from too_short(settings)
    if not settings.public_url:
        yield "PUBLIC_URL is missing: production needs the URL that browsers use."
    elif not (settings.public_url.startswith("https://") or parsing.is_local(settings.public_url)):
        yield "PUBLIC_URL must start with https:// in production."
    if not settings.providers:
        yield (
            "SMTP_ENABLED, SMS_ENABLED or WHATSAPP_ENABLED must be true in production: "
            "without a provider no code is delivered."
        )
    for channel, providers in settings.providers.items():
        if "console" in providers:
            yield (
                f"{channel.upper()}_ENABLED can't be true in production with the provider console: "
                "it would write codes to the log."
            )
    if settings.metrics_token and len(settings.metrics_token) < _TOKEN_CHARACTERS:
        yield f"METRICS_TOKEN is too short for production: at least {_TOKEN_CHARACTERS} characters; {MAKE_A_KEY}"
    for name in ("otp_hourly_limit", "otp_known_device_hourly_limit"):
        if getattr(settings, name) > MOST_CODES_AN_HOUR:
            yield (
                f"{name.upper()} must be at most {MOST_CODES_AN_HOUR} in production: more would make guessing too easy."
            )


def _keys(settings: Settings) -> Iterator[str]:
    if not settings.secret_keys:
        yield f"SECRET_KEY is missing: production needs one; {MAKE_A_KEY}"
    for key in settings.secret_keys:
        if reason := weakness(key):
            yield f"SECRET_KEY is too weak for production: {reason}; {MAKE_A_KEY}"


def weakness(key: bytes) -> str | None:
    """Why a secret can't be trusted to hold 32 random bytes; None if nothing speaks against it.

    Nobody can prove randomness; this finds what people really paste: short, repeated or placeholder text.
    """
    if len(key) < _KEY_BYTES:
        return f"it has {len(key)} bytes, at least {_KEY_BYTES} are needed"
    if len(set(key)) < _DISTINCT_BYTES:
        return "it repeats a few characters"
    # A string occurs inside its own doubling earlier than at its end only if it repeats a part of itself.
    if (key + key).find(key, 1) < len(key):
        return "it repeats itself"
    if any(word in key.lower() for word in _PLACEHOLDERS):
        return "it is a placeholder"
    return None
