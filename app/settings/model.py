"""Every setting: its type, how its text is read, its default, and a sentence. Nothing is read here.

`.env.example` and `docs/settings.md` are generated from this file (`python -m app.settings`).
"""

# ruff: noqa: RUF009 - `setting` returns dataclasses.field(): no default is shared
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

from app.settings import parsing
from app.settings.parsing import Network, boolean, listed, one_of, text, whole

Environment: TypeAlias = Literal["development", "production", "test"]
LogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat: TypeAlias = Literal["console", "json"]
T = TypeVar("T")

_POSTGRES: Final = parsing.url(
    {"postgresql": "postgresql", "postgres": "postgresql", "postgresql+asyncpg": "postgresql"}
)
_REDIS: Final = parsing.url(
    {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
)
_EMAIL: Final[Callable[[str], str | None]] = parsing.email
# Policies of tenants go no higher (see app.tenants.policy); operators may, outside production.
MOST_CODES_AN_HOUR: Final = 10
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Derived(Generic[T]):
    """A default that depends on the settings declared above it; `shown` tells how, for the reader."""

    shown: str
    of: Callable[[Mapping[str, Any]], T]


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable, as the loader and the documentation need it."""

    name: str
    parse: Callable[[str], Any]
    default: Any
    sentence: str
    secret: bool


def setting(parse: Callable[[str], T], default: T | Derived[T], sentence: str, *, secret: bool = False) -> T:
    """Declare a field of Settings. A secret is left out of every repr and error."""
    metadata = {"parse": parse, "default": default, "sentence": sentence, "secret": secret}
    return cast("T", field(repr=not secret, metadata=metadata))


def _in_production(yes: T, no: T, shown: str) -> Derived[T]:
    return Derived(shown, lambda known: yes if known["environment"] == "production" else no)


def _in_development(yes: T, no: T, shown: str) -> Derived[T]:
    return Derived(shown, lambda known: yes if known["environment"] == "development" else no)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a process, valid as a whole. Made by `load`; never changed afterwards."""

    environment: Environment = setting(
        one_of("development", "production", "test"),
        "development",
        "What this installation is for; production refuses everything that is only convenient.",
    )
    data_dir: Path = setting(
        parsing.directory,
        Path(".data"),
        "Where embedded servers and the development key keep their files; nobody else may write to it.",
    )
    secret_keys: tuple[bytes, ...] = setting(
        listed(lambda value: text(value).encode()),
        (),
        "The ring of secrets while one is being replaced, separated by commas: the first signs, all verify.",
        secret=True,
    )
    admin_email: str | None = setting(
        _EMAIL,
        Derived(
            "admin@example.com outside production",
            lambda known: None if known["environment"] == "production" else "admin@example.com",
        ),
        "Email of the first owner, made on the first run.",
    )

    database_url: str | None = setting(
        _POSTGRES,
        None,
        "PostgreSQL 15 or later, as a role neither superuser nor BYPASSRLS; unset: one is started for you.",
        secret=True,
    )
    database_owner_url: str | None = setting(
        _POSTGRES,
        None,
        "The same database as the role that owns the tables; used by migrations only.",
        secret=True,
    )
    redis_url: str | None = setting(
        _REDIS, None, "Redis 7, Valkey 8 or later; unset: one is started for you.", secret=True
    )

    host: str = setting(parsing.listen_host, "127.0.0.1", "Address to listen on.")
    port: int = setting(whole(1, 65_535), 8000, "Port to listen on.")
    web_workers: int = setting(whole(1, 256), 1, "Number of web processes.")
    public_url: str = setting(
        parsing.origin,
        Derived(
            "http://localhost:{PORT}; required in production",
            lambda known: "" if known["environment"] == "production" else f"http://localhost:{known['port']}",
        ),
        "Where browsers reach Gatehouse; links are built from it, never from the Host header.",
    )
    allowed_hosts: tuple[str, ...] = setting(
        listed(parsing.host_pattern), (), "Names in Host headers that are answered, separated by commas; unset: any."
    )
    trusted_proxies: tuple[Network, ...] = setting(
        listed(parsing.network),
        (),
        "Addresses or networks whose X-Forwarded-* headers are believed; unset: none.",
    )
    cors_origins: tuple[str, ...] = setting(
        listed(parsing.origin),
        (),
        "Origins of front ends that may call the API from a browser, separated by commas.",
    )
    return_urls: tuple[str, ...] = setting(
        listed(parsing.return_url), (), "URLs a browser may be sent to after sign-in, separated by commas."
    )
    default_tenant: str | None = setting(parsing.slug, None, "Slug of the tenant that /login takes when it names none.")

    log_level: LogLevel = setting(one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "Least level that is logged.")
    log_format: LogFormat = setting(
        one_of("console", "json"),
        _in_production("json", "console", "json in production, otherwise console"),
        "Lines for people or JSON for machines; always on stderr.",
    )
    metrics_token: str | None = setting(
        text,
        None,
        "Bearer token that opens /metrics from anywhere; unset: in production only this machine may read it.",
        secret=True,
    )

    jwt_issuer: str = setting(
        text, Derived("PUBLIC_URL", lambda known: str(known["public_url"])), "The iss claim of access tokens."
    )
    jwt_audience: str = setting(text, "gatehouse", "The aud claim of access tokens.")
    jwt_access_ttl_seconds: int = setting(whole(1, 3600), 900, "Seconds an access token is valid.")
    jwt_refresh_ttl_seconds: int = setting(
        whole(1, 90 * _DAY),
        7 * _DAY,
        "Seconds from a sign-in until its session ends, however often it is refreshed.",
    )

    otp_length: int = setting(one_of(6, 8), 6, "Digits of a code; under attack it is 8 anyway.")
    otp_ttl_seconds: int = setting(whole(1, 600), 600, "Seconds a sign-in code is valid.")
    otp_registration_ttl_seconds: int = setting(whole(1, 900), 900, "Seconds a code of a registration is valid.")
    otp_max_attempts: int = setting(whole(1, 5), 5, "Wrong codes that end a challenge.")
    otp_hourly_limit: int = setting(
        whole(1, 1000),
        3,
        f"Codes a recipient gets in any 60 minutes; in production at most {MOST_CODES_AN_HOUR}.",
    )
    otp_known_device_hourly_limit: int = setting(
        whole(1, 1000),
        3,
        "The same for each device that has signed in before, and twice as many for all of a recipient's together; "
        f"in production at most {MOST_CODES_AN_HOUR}.",
    )
    otp_resend_cooldown_seconds: int = setting(whole(0, 300), 60, "Seconds between two codes of one challenge.")
    otp_ip_hourly_limit: int = setting(
        whole(1, 1_000_000),
        300,
        "Codes that can be asked for from one address (IPv6: one /64) in an hour; offices share one.",
    )
    otp_disclose_errors: bool = setting(
        boolean,
        _in_development(True, False, "true in development, otherwise false"),
        "Tell strangers whether a tenant exists and why it gets no code.",
    )

    email_internal_domains: bool = setting(
        boolean, True, "Take addresses of internal domains, such as .local, .lan, .internal, .corp and .home.arpa."
    )
    smtp_enabled: bool = setting(boolean, False, "Send email over SMTP; when off, development shows codes in its log.")
    smtp_host: str | None = setting(parsing.server_host, None, "Name or address of the SMTP server.")
    smtp_use_ssl: bool = setting(boolean, False, "TLS from the first byte (port 465).")
    smtp_use_tls: bool = setting(
        boolean,
        Derived("true, unless SMTP_USE_SSL is", lambda known: not known["smtp_use_ssl"]),
        "STARTTLS before anything else is said (port 587).",
    )
    smtp_port: int = setting(
        whole(1, 65_535),
        Derived("587, or 465 with SMTP_USE_SSL", lambda known: 465 if known["smtp_use_ssl"] else 587),
        "Port of the SMTP server.",
    )
    smtp_username: str | None = setting(text, None, "Account at the SMTP server, where it wants one.")
    smtp_password: str | None = setting(text, None, "Its password.", secret=True)
    smtp_from_email: str | None = setting(parsing.email, None, "Sender address of every email.")
    smtp_from_name: str = setting(text, "Gatehouse", "Sender name of every email.")
    smtp_ehlo_name: str = setting(
        parsing.host_name,
        Derived(
            "the domain of SMTP_FROM_EMAIL, else the host of PUBLIC_URL",
            lambda known: parsing.greeting_name(known["smtp_from_email"], known["public_url"]),
        ),
        "The name that mail servers are greeted with (EHLO).",
    )
    smtp_timeout_seconds: int = setting(
        whole(1, 60), 10, "Seconds to wait for each answer of the SMTP server; three times that for the one to a mail."
    )
    dkim_domain: str | None = setting(
        parsing.domain, None, "Sign emails for this domain (DKIM), where the SMTP server doesn't: that of the sender."
    )
    dkim_selector: str | None = setting(
        parsing.domain, None, "Name of the DKIM key: its public half is in the DNS at {DKIM_SELECTOR}._domainkey."
    )
    dkim_private_key_file: Path | None = setting(
        parsing.directory, None, "File with the private DKIM key: RSA, 2048 bits, in PEM."
    )

    sms_enabled: bool = setting(
        boolean, _in_development(True, False, "true in development, otherwise false"), "Offer codes by SMS."
    )
    sms_provider: tuple[str, ...] = setting(
        listed(parsing.provider),
        ("console",),
        "twilio, sns, msg91, gupshup, vonage, console; several: tried in order.",
    )
    sms_allowed_countries: tuple[str, ...] = setting(
        listed(parsing.region),
        (),
        "Countries SMS and WhatsApp messages go to, as ISO codes separated by commas; unset: any, and a warning.",
    )
    sms_daily_cap: int = setting(whole(0, 100_000_000), 10_000, "SMS sent in a day (UTC); 0: no cap.")
    sms_minute_limit: int = setting(whole(0, 1_000_000), 600, "SMS sent in a minute, the rest waits; 0: no limit.")
    sms_prefix_hourly_limit: int = setting(
        whole(0, 1_000_000),
        50,
        "SMS, and as many WhatsApp messages, sent in an hour to numbers that differ in their last four digits only; "
        "0: no limit.",
    )
    sms_number_hourly_limit: int = setting(
        whole(0, 1000),
        10,
        "SMS, and as many WhatsApp messages, sent to one number in an hour, by all tenants together; 0: no limit.",
    )
    sms_entered_percent_alarm: int = setting(
        whole(0, 100), 20, "Alarm when less than this percentage of the codes sent by SMS is entered; 0: never."
    )
    sms_safety_dry_run: bool = setting(
        boolean, False, "Only report what the SMS_ and WHATSAPP_ limits and countries would refuse."
    )
    whatsapp_enabled: bool = setting(
        boolean,
        _in_development(True, False, "true in development, otherwise false"),
        "Offer codes by WhatsApp.",
    )
    whatsapp_provider: tuple[str, ...] = setting(
        listed(parsing.provider), ("console",), "meta, twilio, gupshup, console; several: tried in order."
    )
    whatsapp_daily_cap: int = setting(
        whole(0, 100_000_000), 10_000, "WhatsApp messages sent in a day (UTC); 0: no cap."
    )
    push_enabled: bool = setting(boolean, False, "Offer codes as push notifications.")
    fallback_after_seconds: int = setting(
        whole(5, 300), 30, "Seconds without a sign of delivery until the next channel is tried."
    )

    # What can't be as it was meant, but is no reason not to start (app.settings.warnings): one sentence each.
    warnings: tuple[str, ...] = field(default=(), repr=False)

    # What the providers need, by the variable's name (see app.settings.providers); those unset are absent.
    credentials: Mapping[str, str] = field(repr=False, hash=False)

    @property
    def production(self) -> bool:
        """Whether the stricter rules of production apply."""
        return self.environment == "production"

    @property
    def providers(self) -> dict[str, tuple[str, ...]]:
        """The channels that are switched on, each with its providers in the order they are tried."""
        offered = {
            "email": ("smtp",) if self.smtp_enabled else () if self.production else ("console",),
            "sms": self.sms_provider if self.sms_enabled else (),
            "whatsapp": self.whatsapp_provider if self.whatsapp_enabled else (),
            "push": ("console",) if self.push_enabled else (),
        }
        return {channel: providers for channel, providers in offered.items() if providers}


def variables() -> tuple[Variable, ...]:
    """The variables of every declared setting, in order; the providers' credentials are not among them."""
    return tuple(Variable(name=f.name.upper(), **f.metadata) for f in fields(Settings) if f.metadata)
