"""Names that other systems give to our settings, so that none is silently ignored."""

import difflib
from collections.abc import Collection, Mapping
from typing import Final

_NAMES: Final = {
    "ENVIRONMENT": "APP_ENV FLASK_ENV DJANGO_ENV",
    "SECRET_KEY": "SECRET SECRETKEY APP_SECRET APP_KEY JWT_SECRET JWT_SECRET_KEY JWT_KEY"
    " FLASK_SECRET_KEY DJANGO_SECRET_KEY SESSION_SECRET",
    "PUBLIC_URL": "BASE_URL APP_URL SITE_URL",
    "DATABASE_URL": "DB_HOST DB_PORT DB_NAME DB_USER DB_PASSWORD DB_URL DATABASE_HOST DATABASE_PASSWORD"
    " POSTGRES_HOST POSTGRES_PORT POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB POSTGRES_URL POSTGRES_DSN"
    " SQLALCHEMY_DATABASE_URI SQLALCHEMY_DATABASE_URL",
    "REDIS_URL": "REDIS_HOST REDIS_PORT REDIS_DB REDIS_PASSWORD VALKEY_HOST VALKEY_PORT VALKEY_URL",
    "CORS_ORIGINS": "CORS_ALLOWED_ORIGINS CORS_ALLOW_ORIGINS ALLOWED_ORIGINS",
    "JWT_ISSUER": "JWT_ISS",
    "JWT_AUDIENCE": "JWT_AUD",
    "JWT_ACCESS_TTL_SECONDS": "ACCESS_TOKEN_EXPIRE_MINUTES JWT_ACCESS_TOKEN_EXPIRES JWT_EXPIRES_IN",
    "JWT_REFRESH_TTL_SECONDS": "REFRESH_TOKEN_EXPIRE_DAYS JWT_REFRESH_TOKEN_EXPIRES",
    "OTP_LENGTH": "OTP_CODE_LENGTH OTP_DIGITS",
    "OTP_TTL_SECONDS": "OTP_TTL OTP_EXPIRY OTP_EXPIRY_MINUTES OTP_EXPIRY_SECONDS OTP_EXPIRE_MINUTES"
    " OTP_EXPIRATION_MINUTES OTP_VALIDITY_MINUTES",
    "OTP_MAX_ATTEMPTS": "MAX_OTP_ATTEMPTS OTP_MAX_RETRIES",
    "OTP_HOURLY_LIMIT": "OTP_RATE_LIMIT MAX_OTP_PER_HOUR OTP_MAX_PER_HOUR OTP_RATE_LIMIT_PER_HOUR",
    "OTP_RESEND_COOLDOWN_SECONDS": "OTP_COOLDOWN OTP_RESEND_COOLDOWN OTP_COOLDOWN_SECONDS",
    "SMTP_ENABLED": "MAIL_ENABLED EMAIL_ENABLED",
    "SMTP_HOST": "MAIL_SERVER MAIL_HOST EMAIL_HOST SMTP_SERVER",
    "SMTP_PORT": "MAIL_PORT EMAIL_PORT",
    "SMTP_USERNAME": "MAIL_USERNAME MAIL_USER EMAIL_HOST_USER EMAIL_USER SMTP_USER SMTP_LOGIN",
    "SMTP_PASSWORD": "MAIL_PASSWORD MAIL_PASS EMAIL_HOST_PASSWORD EMAIL_PASSWORD SMTP_PASS",
    "SMTP_FROM_EMAIL": "MAIL_FROM MAIL_FROM_ADDRESS MAIL_DEFAULT_SENDER DEFAULT_FROM_EMAIL EMAIL_FROM"
    " FROM_EMAIL SMTP_FROM SMTP_SENDER",
    "SMTP_FROM_NAME": "MAIL_FROM_NAME EMAIL_FROM_NAME",
    "SMTP_USE_TLS": "MAIL_USE_TLS MAIL_STARTTLS EMAIL_USE_TLS SMTP_TLS SMTP_STARTTLS",
    "SMTP_USE_SSL": "MAIL_USE_SSL MAIL_SSL_TLS EMAIL_USE_SSL SMTP_SSL",
    "SMTP_TIMEOUT_SECONDS": "MAIL_TIMEOUT EMAIL_TIMEOUT SMTP_TIMEOUT",
    "SMS_ENABLED": "ENABLE_SMS",
    "TWILIO_ACCOUNT_SID": "TWILIO_SID",
    "TWILIO_AUTH_TOKEN": "TWILIO_TOKEN",
    "TWILIO_FROM": "TWILIO_PHONE_NUMBER TWILIO_FROM_NUMBER",
    "AWS_REGION": "AWS_REGION_NAME",
}
_RIGHT_NAME: Final = {foreign: ours for ours, names in _NAMES.items() for foreign in names.split()}
_SHORTEST_MISSPELT: Final = 8
_GENERIC_SMS: Final = frozenset({"SMS_API_KEY", "SMS_API_SECRET", "SMS_API_URL", "SMS_SENDER_ID", "SMS_FROM"})


def answer(name: str) -> tuple[str, str] | None:
    """The setting that is meant by a foreign name, and the sentence that says so; None for any other name."""
    if name in _RIGHT_NAME:
        ours = _RIGHT_NAME[name]
        return ours, f"{name} is not a setting of Gatehouse: use {ours}."
    if name in _GENERIC_SMS:
        return "SMS_PROVIDER", (
            f"{name} is not a setting of Gatehouse: choose SMS_PROVIDER and set that provider's own names, "
            "for example TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and TWILIO_FROM."
        )
    if name.startswith("MAIL_"):
        return "SMTP_HOST", f"{name} is not a setting of Gatehouse: those for mail start with SMTP_."
    return None


def faults(environ: Mapping[str, str], given: Mapping[str, str]) -> list[str]:
    """Foreign names in the process environment whose right name is not given.

    Where the right one is given, the foreign one may belong to a neighbour. Kubernetes injects `REDIS_PORT=tcp://…`
    for a service called redis; such values are nobody's mistake.
    """
    return [
        found[1]
        for name, value in sorted(environ.items())
        if value and not value.startswith("tcp://") and (found := answer(name)) and found[0] not in given
    ]


def misspelt(environ: Mapping[str, str], given: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Names in the process environment that are ours but for a slip, an extra prefix or their case.

    As with foreign names, where the right one is given the other may be a neighbour's.
    """
    found = []
    for name, value in sorted(environ.items()):
        if not value or name in known or value.startswith("tcp://") or answer(name):
            continue
        meant = _meant(name, known)
        if meant and meant not in given:
            found.append(f"{name} is not a setting of Gatehouse: did you mean {meant}?")
    return found


def _meant(name: str, known: Collection[str]) -> str | None:
    upper = name.upper()
    bare = upper.removeprefix("GATEHOUSE_")
    if bare in known and "_" in name:
        return bare
    # Short names are near to many others: HOST and HOME, PORT and POST.
    if len(name) < _SHORTEST_MISSPELT or "_" not in name:
        return None
    return next(
        (ours for ours in difflib.get_close_matches(upper, known, n=3, cutoff=0.8) if _one_slip(upper, ours)), None
    )


def _one_slip(typed: str, meant: str) -> bool:
    """Whether one letter was left out, added, changed or swapped with its neighbour."""
    if len(typed) > len(meant):
        typed, meant = meant, typed
    start = next((n for n, (a, b) in enumerate(zip(typed, meant, strict=False)) if a != b), len(typed))
    if len(typed) < len(meant):
        return typed[start:] == meant[start + 1 :]
    swapped = typed[start : start + 2] == meant[start : start + 2][::-1] and typed[start + 2 :] == meant[start + 2 :]
    return typed[start + 1 :] == meant[start + 1 :] or swapped
