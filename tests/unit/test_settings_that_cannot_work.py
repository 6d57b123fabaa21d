"""Settings that can't work are made to work, refused with what to do, or said at every start. One line a case.

(See `docs/settings.md`.) A reader who meets another one adds a line to the table it belongs to.
"""

from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.settings import Settings, load

KEY = "mB3v0qXh7cYtR1pZsK9wLd2fNjGa4eUo8iTbVxCy"
PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": KEY,
    "PUBLIC_URL": "https://login.example.com",
    "SMTP_ENABLED": "true",
    "SMTP_HOST": "mail.example.com",
    "SMTP_FROM_EMAIL": "codes@example.com",
}
TWILIO = {
    "SMS_PROVIDER": "twilio",
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "t",
    "TWILIO_FROM": "+15005550006",
    "TWILIO_WHATSAPP_FROM": "+15005550006",
}


def settings(**environ: str) -> Settings:
    """Settings of a developer's machine with some variables set."""
    return load({"SECRET_KEY": KEY, **environ}, dotenv=None)


def faults(environ: dict[str, str], dotenv: Path | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        load({"SECRET_KEY": KEY, **environ}, dotenv=dotenv)
    return refused.value.faults


WORK = [
    ("PUBLIC_URL", "http://portal.lan", "http://portal.lan"),
    ("PUBLIC_URL", "HTTP://Portal.LAN:8000/", "http://portal.lan:8000"),
    ("PUBLIC_URL", "https://login.example.com:443", "https://login.example.com"),
    ("PUBLIC_URL", "http://login.example.com:80/", "http://login.example.com"),
    ("PUBLIC_URL", "https://login.example.com:8443", "https://login.example.com:8443"),
    ("PUBLIC_URL", "https://login.example.com:", "https://login.example.com"),
    ("PUBLIC_URL", "https://büro.example", "https://xn--bro-hoa.example"),
    ("PUBLIC_URL", "https://BÜRO.example.", "https://xn--bro-hoa.example"),
    ("PUBLIC_URL", "https://xn--bro-hoa.example", "https://xn--bro-hoa.example"),
    ("PUBLIC_URL", "http://[0:0:0:0:0:0:0:1]:8000", "http://[::1]:8000"),
    ("PUBLIC_URL", '"https://login.example.com"', "https://login.example.com"),
    ("PUBLIC_URL", "  https://login.example.com  ", "https://login.example.com"),
    (
        "CORS_ORIGINS",
        "https://App.example.com:443/, http://büro.example",
        ("https://app.example.com", "http://xn--bro-hoa.example"),
    ),
    (
        "ALLOWED_HOSTS",
        "Login.Example.com:8000,.example.org,*.Büro.example",
        ("login.example.com", "*.example.org", "*.xn--bro-hoa.example"),
    ),
    ("ALLOWED_HOSTS", "[::1]:8000", ("[::1]",)),
    ("RETURN_URLS", "HTTPS://App.example.com:443/in", ("https://app.example.com/in",)),
    ("HOST", "[::1]", "::1"),
    ("HOST", "'0.0.0.0'", "0.0.0.0"),  # noqa: S104 - a value, no socket
    ("PORT", '"9000"', 9000),
    ("PORT", "9000\r", 9000),
    ("OTP_DISCLOSE_ERRORS", "'false'", False),
    ("SMTP_HOST", "[2001:db8::1]", "2001:db8::1"),
    ("DEFAULT_TENANT", "acme", "acme"),
    ("DATABASE_URL", '"postgresql://web:pw@db/gatehouse"', "postgresql://web:pw@db/gatehouse"),
    ("DATABASE_URL", "POSTGRES://web:pw@db/gatehouse", "postgresql://web:pw@db/gatehouse"),
    (
        "DATABASE_URL",
        "postgresql://web:pw@one:5432,two:5433/gatehouse",
        "postgresql://web:pw@one:5432,two:5433/gatehouse",
    ),
]


@pytest.mark.parametrize(("name", "value", "meant"), WORK)
def test_what_is_obviously_meant_works(name: str, value: str, meant: object) -> None:
    """Case, a usual port, a final slash, Unicode, quotation marks: one meaning, one spelling inside."""
    assert getattr(settings(**{name: value}), name.lower()) == meant


REFUSED = [
    ("PUBLIC_URL", "login.example.com", "write https://login.example.com"),
    ("PUBLIC_URL", "//login.example.com", "write https://login.example.com"),
    ("PUBLIC_URL", "https://login.example.com/portal", "write https://login.example.com"),
    ("PUBLIC_URL", "https://login.example.com/?next=1", "write https://login.example.com"),
    ("PUBLIC_URL", "https://login.example.com#top", "write https://login.example.com"),
    ("PUBLIC_URL", "https://ada:pw@login.example.com", "write https://login.example.com"),
    ("PUBLIC_URL", "ftp://login.example.com", "an origin such as"),
    ("PUBLIC_URL", "http://0.0.0.0:8000", "an origin such as"),
    ("PUBLIC_URL", "http://[::]:8000", "an origin such as"),
    ("PUBLIC_URL", "http://*:8000", "an origin such as"),
    ("PUBLIC_URL", "https://a.example,https://b.example", "an origin such as"),
    ("PUBLIC_URL", "https://login.example.com:0", "an origin such as"),
    ("PUBLIC_URL", "https://login example.com", "an origin such as"),
    ("PUBLIC_URL", "https://256.1.1.1", "an origin such as"),
    ("PUBLIC_URL", "https://-login.example", "an origin such as"),
    ("PUBLIC_URL", "https://\u2603\u200d.example", "an origin such as"),
    ("ALLOWED_HOSTS", "https://portal.example.com", "write portal.example.com"),
    ("ALLOWED_HOSTS", "https://portal.example.com:8443/", "write portal.example.com"),
    ("ALLOWED_HOSTS", "portal.example.com/login", "write portal.example.com"),
    ("ALLOWED_HOSTS", "portal.*", "names of hosts"),
    ("ALLOWED_HOSTS", "*portal.example.com", "names of hosts"),
    ("ALLOWED_HOSTS", "a.example b.example", "names of hosts"),
    ("ALLOWED_HOSTS", "0.0.0.0", "names of hosts"),  # noqa: S104 - a value, no socket
    ("CORS_ORIGINS", "https://app.example.com/app", "write https://app.example.com"),
    ("CORS_ORIGINS", "app.example.com", "write https://app.example.com"),
    ("CORS_ORIGINS", "null", "an origin such as"),
    ("CORS_ORIGINS", "https://*.example.com", "an origin such as"),
    ("RETURN_URLS", "https://app.example.com/*", "* means nothing"),
    ("RETURN_URLS", "https://*.example.com", "* means nothing"),
    ("RETURN_URLS", "app.example.com", "an absolute URL"),
    ("RETURN_URLS", "https://a:b@app.example.com/in", "an absolute URL"),
    ("TRUSTED_PROXIES", "proxy.internal", "addresses or networks"),
    ("TRUSTED_PROXIES", "10.0.0.0/33", "addresses or networks"),
    ("TRUSTED_PROXIES", "10.0.0.0-10.0.0.9", "addresses or networks"),
    ("HOST", "http://0.0.0.0", "the port goes to PORT"),
    ("HOST", "0.0.0.0:8000", "the port goes to PORT"),
    ("HOST", "*", "write 0.0.0.0"),
    ("SMTP_HOST", "smtp://mail.example.com", "without a scheme"),
    ("SMTP_HOST", "mail.example.com:587", "the port has a setting of its own"),
    ("SMTP_HOST", "mail.example.com # ours", "of a server alone"),
    ("SMTP_FROM_EMAIL", "Acme <codes@example.com>", "one email address"),
    ("SMTP_FROM_EMAIL", "codes", "one email address"),
    ("ADMIN_EMAIL", "ada", "one email address"),
    ("DEFAULT_TENANT", "Acme Ltd", "a slug"),
    ("DEFAULT_TENANT", "-acme", "a slug"),
    ("DEFAULT_TENANT", "/t/acme", "a slug"),
    ("PORT", "8000 # web", "a whole number"),
    ("JWT_ACCESS_TTL_SECONDS", "15m", "a whole number"),
    ("SMS_ALLOWED_COUNTRIES", "UK", "write GB"),
    ("SMS_ALLOWED_COUNTRIES", "GB,XX", "ISO 3166-1"),
    ("SMS_ALLOWED_COUNTRIES", "+44", "ISO 3166-1"),
    ("REDIS_URL", "redis://cache:port/0", "a URL that starts with"),
    ("DATABASE_URL", "postgresql://web:pw@db:0/x", "a URL that starts with"),
]


@pytest.mark.parametrize(("name", "value", "told"), REFUSED)
def test_what_cannot_work_is_refused_with_what_to_do(name: str, value: str, told: str) -> None:
    """One sentence that names the setting and, where it can be guessed, the right spelling."""
    (sentence,) = faults({name: value})
    assert sentence.startswith(f"{name} must be ")
    assert told in sentence


CONTRADICTIONS = [
    ({"SMTP_USE_SSL": "true", "SMTP_USE_TLS": "true"}, "SMTP_USE_TLS", "exclude each other"),
    ({"SMTP_PORT": "465"}, "SMTP_PORT", "SMTP_USE_SSL=true"),
    ({"SMTP_PORT": "465", "SMTP_USE_TLS": "false"}, "SMTP_PORT", "SMTP_USE_SSL=true"),
    ({"SMTP_PORT": "587", "SMTP_USE_SSL": "true"}, "SMTP_PORT", "SMTP_PORT=465"),
    ({"SMTP_PORT": "25", "SMTP_USE_SSL": "true"}, "SMTP_PORT", "SMTP_USE_TLS=true"),
    ({"JWT_ACCESS_TTL_SECONDS": "5"}, "JWT_ACCESS_TTL_SECONDS", "in seconds"),
    ({"JWT_REFRESH_TTL_SECONDS": "7"}, "JWT_REFRESH_TTL_SECONDS", "in seconds"),
    ({"JWT_REFRESH_TTL_SECONDS": "600"}, "JWT_REFRESH_TTL_SECONDS", "less than JWT_ACCESS_TTL_SECONDS"),
    ({"OTP_TTL_SECONDS": "10"}, "OTP_TTL_SECONDS", "before it has arrived"),
    ({"OTP_REGISTRATION_TTL_SECONDS": "15"}, "OTP_REGISTRATION_TTL_SECONDS", "before it has arrived"),
    ({"PUBLIC_URL": "http://portal.lan"}, "PUBLIC_URL", "https://"),
    ({"SMS_ENABLED": "true", "SMS_PROVIDER": "twilio"}, "TWILIO_ACCOUNT_SID", "missing"),
]


@pytest.mark.parametrize(("change", "name", "told"), CONTRADICTIONS)
def test_what_contradicts_itself_stops_production(change: dict[str, str], name: str, told: str) -> None:
    """Each by its name, and with what to set instead."""
    sentences = faults(PRODUCTION | change)
    assert any(sentence.startswith(name) and told in sentence for sentence in sentences), sentences


def test_all_of_it_is_told_at_once() -> None:
    """Whoever mends one thing after the other starts six times."""
    change = {"ALLOWED_HOSTS": "https://a.example", "DEFAULT_TENANT": "A b", "SMTP_PORT": "465", "OTP_LENGHT": "8"}
    names = [sentence.split()[0] for sentence in faults(PRODUCTION | change | {"JWT_ACCESS_TTL_SECONDS": "5"})]
    assert sorted(names) == ["ALLOWED_HOSTS", "DEFAULT_TENANT", "JWT_ACCESS_TTL_SECONDS", "OTP_LENGHT", "SMTP_PORT"]


WARNED = [
    ({"PUBLIC_URL": "http://portal.lan"}, "PUBLIC_URL", "over plain http"),
    ({"PUBLIC_URL": "http://portal.lan:8000"}, "HOST", "HOST=0.0.0.0"),
    ({"PUBLIC_URL": "http://localhost"}, "PUBLIC_URL", "leads to port 80"),
    ({"PUBLIC_URL": "https://login.example.com"}, "ENVIRONMENT", "ENVIRONMENT=production"),
    (
        {"PUBLIC_URL": "http://localhost:8000", **{k: v for k, v in PRODUCTION.items() if k != "PUBLIC_URL"}},
        "PUBLIC_URL",
        "reader's own machine",
    ),
    ({"PUBLIC_URL": "http://a.example", "ALLOWED_HOSTS": "b.example"}, "ALLOWED_HOSTS", "lacks a.example"),
    ({"TRUSTED_PROXIES": "0.0.0.0/0"}, "TRUSTED_PROXIES", "anybody"),
    ({"TRUSTED_PROXIES": "::/0"}, "TRUSTED_PROXIES", "anybody"),
    (PRODUCTION | {"OTP_DISCLOSE_ERRORS": "true"}, "OTP_DISCLOSE_ERRORS", "strangers"),
    ({"DATABASE_OWNER_URL": "postgresql://o:p@db/x"}, "DATABASE_OWNER_URL", "DATABASE_URL isn't"),
    ({"SMTP_HOST": "mail.example.com"}, "SMTP_HOST", "SMTP_ENABLED=true"),
    (
        PRODUCTION | {"SMTP_USE_TLS": "false", "SMTP_USERNAME": "u", "SMTP_PASSWORD": "p"},
        "SMTP_PASSWORD",
        "without TLS",
    ),
    (PRODUCTION | TWILIO, "SMS_PROVIDER", "SMS_ENABLED=true"),
    (PRODUCTION | {"WHATSAPP_PROVIDER": "meta"}, "WHATSAPP_PROVIDER", "WHATSAPP_ENABLED=true"),
    (PRODUCTION | {"VONAGE_API_KEY": "k"}, "VONAGE_API_KEY", "no channel uses vonage"),
    (PRODUCTION | TWILIO | {"SMS_ENABLED": "true"}, "SMS_ALLOWED_COUNTRIES", "SMS go to every country"),
    (
        PRODUCTION | TWILIO | {"WHATSAPP_ENABLED": "true", "WHATSAPP_PROVIDER": "twilio"},
        "SMS_ALLOWED_COUNTRIES",
        "WhatsApp messages go to every country",
    ),
    ({"JWT_ACCESS_TTL_SECONDS": "5"}, "JWT_ACCESS_TTL_SECONDS", "in seconds"),
    ({"JWT_REFRESH_TTL_SECONDS": "600"}, "JWT_REFRESH_TTL_SECONDS", "less than"),
    ({"OTP_TTL_SECONDS": "60", "OTP_RESEND_COOLDOWN_SECONDS": "60"}, "OTP_RESEND_COOLDOWN_SECONDS", "over before"),
    ({"OTP_IP_HOURLY_LIMIT": "2"}, "OTP_IP_HOURLY_LIMIT", "below OTP_HOURLY_LIMIT"),
    ({"OTP_TTL_SECONDS": "60", "FALLBACK_AFTER_SECONDS": "60"}, "FALLBACK_AFTER_SECONDS", "the code is over"),
    ({"SECRET_KEY": "", "SECRET_KEYS": f"{KEY}, {KEY}"}, "SECRET_KEYS", "same secret twice"),
    ({"SECRET_KEY": f"{KEY},{KEY[::-1]}"}, "SECRET_KEY", "comma"),
    ({"SECRET_KEY": f'"{KEY}"'}, "SECRET_KEY", "quotation mark"),
    (PRODUCTION | {"SMTP_USERNAME": "u", "SMTP_PASSWORD": "'p'"}, "SMTP_PASSWORD", "quotation mark"),
]


@pytest.mark.parametrize(("environ", "name", "told"), WARNED)
def test_what_is_hardly_meant_is_said(environ: dict[str, str], name: str, told: str) -> None:
    """It starts, and each start says so; no secret is shown."""
    found = settings(**environ)
    assert [sentence for sentence in found.warnings if sentence.startswith(name) and told in sentence], found.warnings
    assert KEY not in str(found.warnings)


def test_usual_settings_say_nothing() -> None:
    """A warning that always stands there is one that nobody reads."""
    assert settings().warnings == ()
    assert load(PRODUCTION, dotenv=None).warnings == ()
    sms = PRODUCTION | TWILIO | {"SMS_ENABLED": "true", "SMS_ALLOWED_COUNTRIES": "GB,XK"}
    assert load(sms, dotenv=None).warnings == ()
    proxied = PRODUCTION | {"TRUSTED_PROXIES": "10.0.0.0/8", "ALLOWED_HOSTS": "*.example.com"}
    assert load(proxied, dotenv=None).warnings == ()
    assert load(PRODUCTION | {"SMS_PROVIDER": "twilio", "SMS_ENABLED": "false"}, dotenv=None).warnings == ()


def test_a_secret_keeps_its_quotation_marks() -> None:
    """Taking them off would be another key than the data was made with."""
    assert settings(SECRET_KEY=f"'{KEY}'").secret_keys == (f"'{KEY}'".encode(),)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("OTP_LENGHT", "OTP_LENGTH"),
        ("OTP_LENGTHH", "OTP_LENGTH"),
        ("OTP_LENGT", "OTP_LENGTH"),
        ("PUBLIC_URLS", "PUBLIC_URL"),
        ("SMTP_HOTS", "SMTP_HOST"),
        ("otp_length", "OTP_LENGTH"),
        ("Smtp_Host", "SMTP_HOST"),
        ("GATEHOUSE_OTP_LENGTH", "OTP_LENGTH"),
        ("GATEHOUSE_PORT", "PORT"),
        ("TRUSTED_PROXYS", None),
        ("DATABASE_URI", "DATABASE_URL"),
        ("ALLOWED_HOST", "ALLOWED_HOSTS"),
        ("CORS_ORIGIN", "CORS_ORIGINS"),
        ("TWILIO_AUTH_TOKENS", "TWILIO_AUTH_TOKEN"),
        ("HOME", None),
        ("POST", None),
        ("HOSTNAME", None),
        ("XDG_DATA_DIRS", None),
        ("AWS_DEFAULT_REGION", None),
        ("LOG_LEVELLER", None),
    ],
)
def test_a_slip_in_a_name_is_found(typed: str, meant: str | None, tmp_path: Path) -> None:
    """In the environment only what can hardly be anything else is refused; neighbours have names, too."""
    if meant is None:
        assert settings(**{typed: "8"}).warnings == ()
    else:
        assert faults({typed: "8"}) == [f"{typed} is not a setting of Gatehouse: did you mean {meant}?"]


def test_a_neighbour_of_almost_our_name_is_left_alone() -> None:
    """Where ours is given the other is somebody else's; so is what Kubernetes injects."""
    assert settings(OTP_LENGTH="8", OTP_LENGHT="6").otp_length == 8
    assert settings(GATEHOUSE_PORT="tcp://10.0.0.7:8000").port == 8000


def test_what_windows_and_copying_do_to_a_file(tmp_path: Path) -> None:
    """A byte order mark is none of the first name; a name that stands twice is said; another case is answered."""
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"\xef\xbb\xbfPORT=9000\r\nOTP_LENGTH=6\r\nOTP_LENGTH=8\r\n")
    found = load({"SECRET_KEY": KEY}, dotenv=dotenv)
    assert (found.port, found.otp_length) == (9000, 8)
    assert found.warnings == (f"OTP_LENGTH stands in lines 2, 3 of {dotenv}: the last one counts.",)
    dotenv.write_text("otp_length=8\nGATEHOUSE_PORT=9000\n")
    assert [sentence.rpartition(" ")[2] for sentence in faults({}, dotenv)] == ["OTP_LENGTH?", "PORT?"]
