"""Settings: read once, all faults together, production refuses what is only convenient."""

import multiprocessing
import stat
from dataclasses import FrozenInstanceError, fields
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigurationError
from app.settings import Settings, load
from app.settings.checks import weakness
from app.settings.loading import documented

KEY = "mB3v0qXh7cYtR1pZsK9wLd2fNjGa4eUo8iTbVxCy"
PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": KEY,
    "PUBLIC_URL": "https://login.example.com",
    "SMTP_ENABLED": "true",
    "SMTP_HOST": "mail.example.com",
    "SMTP_FROM_EMAIL": "codes@example.com",
}


def settings(**environ: str) -> Settings:
    return load({"SECRET_KEY": KEY} | environ, dotenv=None)


def faults(environ: dict[str, str], dotenv: Path | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(environ, dotenv=dotenv)
    return caught.value.faults


def fault(**environ: str) -> str:
    (only,) = faults({"SECRET_KEY": KEY} | environ)
    return only


def test_defaults_are_the_documented_ones() -> None:
    """With a key alone, everything has the default that the contract names."""
    found = settings()
    assert (found.environment, found.port, found.public_url) == ("development", 8000, "http://localhost:8000")
    assert (found.otp_length, found.otp_ttl_seconds, found.otp_registration_ttl_seconds) == (6, 600, 900)
    assert (found.otp_max_attempts, found.otp_hourly_limit, found.otp_known_device_hourly_limit) == (5, 3, 3)
    assert (found.otp_resend_cooldown_seconds, found.otp_ip_hourly_limit) == (60, 300)
    assert (found.jwt_access_ttl_seconds, found.jwt_refresh_ttl_seconds) == (900, 604_800)
    assert (found.smtp_enabled, found.smtp_port, found.smtp_use_tls, found.smtp_timeout_seconds) == (
        False,
        587,
        True,
        10,
    )
    assert found.otp_disclose_errors
    assert found.admin_email == "admin@example.com"
    assert found.secret_keys == (KEY.encode(),)


def test_defaults_follow_other_settings() -> None:
    """A default that depends on another setting follows it, and yields to an explicit value."""
    assert settings(PORT="9001").public_url == "http://localhost:9001"
    assert settings(PUBLIC_URL="https://a.example/").jwt_issuer == "https://a.example"
    ssl = settings(SMTP_USE_SSL="true")
    assert (ssl.smtp_port, ssl.smtp_use_tls) == (465, False)
    assert settings(SMTP_USE_SSL="1", SMTP_PORT="2465").smtp_port == 2465
    assert settings(ENVIRONMENT="test").otp_disclose_errors is False
    real = load(PRODUCTION, dotenv=None)
    assert (real.otp_disclose_errors, real.log_format, real.admin_email) == (False, "json", None)


def test_values_are_typed() -> None:
    """Text becomes the declared type: numbers, truth values, lists, networks, paths, canonical URLs."""
    found = settings(
        SMTP_ENABLED="Yes",
        SMTP_HOST="mail",
        SMTP_FROM_EMAIL="codes@example.com",
        TRUSTED_PROXIES="10.0.0.1/8, 2001:db8::/32",
        CORS_ORIGINS="https://App.example.com/,http://localhost:3000",
        RETURN_URLS="https://app.example.com/in, myapp://in",
        SMS_PROVIDER="vonage,console",
        VONAGE_API_KEY="k",
        VONAGE_API_SECRET="s",
        VONAGE_FROM="Acme",
        VONAGE_API_URL="https://proxy.example.com/vonage/",
        SMS_ALLOWED_COUNTRIES="gb, ch,gb",
        DATA_DIR="/srv/gatehouse",
        DATABASE_URL="postgres://web:pw@db/gatehouse",
        REDIS_URL="valkey://cache:6379/0",
        LOG_LEVEL="debug",
        OTP_LENGTH="8",
    )
    assert found.smtp_enabled is True
    assert found.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert found.cors_origins == ("https://app.example.com", "http://localhost:3000")
    assert found.return_urls == ("https://app.example.com/in", "myapp://in")
    assert found.sms_provider == ("vonage", "console")
    assert found.sms_allowed_countries == ("GB", "CH")
    assert found.data_dir == Path("/srv/gatehouse")
    assert found.database_url == "postgresql://web:pw@db/gatehouse"
    assert found.redis_url == "redis://cache:6379/0"
    assert (found.log_level, found.otp_length) == ("DEBUG", 8)
    assert found.credentials == {
        "VONAGE_API_KEY": "k",
        "VONAGE_API_SECRET": "s",
        "VONAGE_API_URL": "https://proxy.example.com/vonage",
        "VONAGE_FROM": "Acme",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENVIRONMENT", "staging"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "8_000"),
        ("PORT", "\u0668\u0660\u0660\u0660"),
        ("OTP_LENGTH", "7"),
        ("OTP_TTL_SECONDS", "601"),
        ("OTP_MAX_ATTEMPTS", "6"),
        ("OTP_RESEND_COOLDOWN_SECONDS", "-1"),
        ("SMTP_USE_TLS", "maybe"),
        ("PUBLIC_URL", "login.example.com"),
        ("PUBLIC_URL", "https://login.example.com/path"),
        ("PUBLIC_URL", "https://login.example.com:99999"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://[::1"),
        ("RETURN_URLS", "javascript://alert"),
        ("RETURN_URLS", "/signed-in"),
        ("TRUSTED_PROXIES", "*"),
        ("SMS_ALLOWED_COUNTRIES", "GBR"),
        ("SMS_PROVIDER", "../twilio"),
        ("ADMIN_EMAIL", "a@x, b@y"),
        ("SMTP_FROM_NAME", "Acme\nBcc: x"),
        ("TWILIO_API_URL", "ftp://proxy"),
    ],
)
def test_bad_value_is_named(name: str, value: str) -> None:
    """A value that doesn't fit is one fault: the setting's name, what it must be, what it was."""
    sentence = fault(**{name: value})
    assert sentence.startswith(f"{name} must be ")
    assert repr(value) in sentence


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_fault_never_quotes_a_secret(name: str) -> None:
    """A URL with a password is a secret: the fault names the setting only."""
    assert "hunter2" not in fault(**{name: "mysql://root:hunter2@db/x"})


def test_secrets_are_in_no_repr() -> None:
    """What a debugger or a traceback prints of the settings holds no secret."""
    found = settings(
        SMTP_USERNAME="u",
        SMTP_PASSWORD="hunter2",
        DATABASE_URL="postgresql://web:hunter2@db/x",
        DATABASE_OWNER_URL="postgresql://own:hunter2@db/x",
        REDIS_URL="redis://:hunter2@cache",
        TWILIO_AUTH_TOKEN="hunter2",
    )
    assert "hunter2" not in repr(found)
    assert KEY not in repr(found)
    assert found.smtp_password == "hunter2"


def test_every_fault_is_reported_at_once() -> None:
    """One start tells everything that is wrong, and nothing that only follows from it."""
    found = faults({"ENVIRONMENT": "production", "PORT": "x", "SMTP_ENABLED": "true", "SMTP_FROM_EMAIL": "nobody"})
    names = [sentence.split()[0] for sentence in found]
    assert sorted(names) == ["PORT", "PUBLIC_URL", "SECRET_KEY", "SMTP_FROM_EMAIL", "SMTP_HOST"]


def test_settings_are_frozen() -> None:
    """Nobody changes a setting while the process lives."""
    with pytest.raises(FrozenInstanceError):
        settings().port = 1  # type: ignore[misc]  # the point of the test


def test_empty_counts_as_unset(tmp_path: Path) -> None:
    """An empty variable neither hides the file's value nor replaces a default."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=9000\nHOST=\n")
    found = load({"SECRET_KEY": KEY, "PORT": "", "LOG_LEVEL": " "}, dotenv=dotenv)
    assert (found.port, found.host, found.log_level) == (9000, "127.0.0.1", "INFO")


def test_environment_wins_over_dotenv(tmp_path: Path) -> None:
    """What the process is told counts more than what lies in the directory; `$` means itself."""
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"export PORT=9000\nHOST='0.0.0.0' # all\nSECRET_KEY=${{HOME}}{KEY}\nTEST_REDIS_URL=redis://x\n")
    found = load({"PORT": "9001", "HOME": "/home/us"}, dotenv=dotenv)
    assert (found.port, found.host) == (9001, "0.0.0.0")  # noqa: S104 - a value, no socket
    assert found.secret_keys == (f"${{HOME}}{KEY}".encode(),)


def test_dotenv_faults_are_named(tmp_path: Path) -> None:
    """A typing mistake in the file is answered with the nearest name, a broken line with its number alone."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("SMTP_HOTS=mail\nXYZZY=1\nMAIL_SERVER=mail\n'hunter2\n")
    found = faults({"SECRET_KEY": KEY}, dotenv)
    assert f"SMTP_HOTS in {dotenv} is not a setting of Gatehouse: did you mean SMTP_HOST?" in found
    assert f"XYZZY in {dotenv} is not a setting of Gatehouse: take it out." in found
    assert "MAIL_SERVER is not a setting of Gatehouse: use SMTP_HOST." in found
    assert f"{dotenv} line 4 is not NAME=value." in found
    assert len(found) == 4


def test_dotenv_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    """A file in another encoding stops the start with a sentence, not with a traceback."""
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"SMTP_FROM_NAME=B\xfccher\n")
    assert faults({"SECRET_KEY": KEY}, dotenv)[0].startswith(f"{dotenv} can't be read: ")


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        ("MAIL_SERVER", "SMTP_HOST"),
        ("MAIL_WHATEVER", "SMTP_"),
        ("EMAIL_HOST", "SMTP_HOST"),
        ("SMTP_FROM", "SMTP_FROM_EMAIL"),
        ("REDIS_HOST", "REDIS_URL"),
        ("REDIS_PORT", "REDIS_URL"),
        ("DB_HOST", "DATABASE_URL"),
        ("JWT_SECRET_KEY", "SECRET_KEY"),
        ("SECRET", "SECRET_KEY"),
        ("SMS_API_KEY", "SMS_PROVIDER"),
    ],
)
def test_foreign_name_is_answered_with_ours(foreign: str, ours: str) -> None:
    """Who sets what another system calls it is told our name; the value isn't repeated."""
    (sentence,) = faults({foreign: "hunter2"})
    assert sentence.startswith(f"{foreign} is not a setting of Gatehouse")
    assert ours in sentence
    assert "hunter2" not in sentence


def test_neighbours_variables_are_no_fault() -> None:
    """Another system's name does no harm once ours is given, nor does what Kubernetes injects for a service."""
    found = settings(REDIS_URL="redis://cache", REDIS_HOST="other", POSTGRES_PORT="tcp://10.0.0.7:5432", PATH="/bin")
    assert found.redis_url == "redis://cache"


def test_every_foreign_name_leads_to_a_setting_that_exists() -> None:
    """An answer that names a setting we don't have would be worse than none."""
    from app.settings.foreign import _RIGHT_NAME  # noqa: PLC0415 - the table is nobody else's business

    known = {variable.name for variable in documented()}
    assert set(_RIGHT_NAME.values()) <= known
    assert not set(_RIGHT_NAME) & known


def test_smtp_needs_server_and_sender() -> None:
    """Mail that can't be sent is found at the start, not at the first sign-in."""
    found = faults({"SECRET_KEY": KEY, "SMTP_ENABLED": "true", "SMTP_USERNAME": "u"})
    assert [sentence.split()[0] for sentence in found] == ["SMTP_HOST", "SMTP_FROM_EMAIL", "SMTP_PASSWORD"]
    assert fault(SMTP_PASSWORD="p").startswith("SMTP_USERNAME is missing")


def test_starttls_and_ssl_exclude_each_other() -> None:
    """Both switched on can only be a misunderstanding."""
    assert "exclude each other" in fault(SMTP_USE_TLS="true", SMTP_USE_SSL="true")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"SMTP_FROM_EMAIL": "codes@mail.acme.example"}, "mail.acme.example"),
        ({"SMTP_FROM_EMAIL": "codes@bücher.example"}, "xn--bcher-kva.example"),
        ({"SMTP_FROM_EMAIL": "codes@acme.example", "SMTP_EHLO_NAME": "Out.Acme.Example."}, "out.acme.example"),
        ({"PUBLIC_URL": "https://login.acme.example"}, "login.acme.example"),
        ({"PUBLIC_URL": "http://192.0.2.7:8000"}, "[192.0.2.7]"),
        ({"PUBLIC_URL": "http://[2001:db8::7]:8000"}, "[IPv6:2001:db8::7]"),
        ({}, "[127.0.0.1]"),
    ],
)
def test_mail_servers_are_greeted_by_a_whole_name(given: dict[str, str], name: str) -> None:
    """The sender's domain, else our own host; a machine without a name says its address (RFC 5321)."""
    assert settings(**given).smtp_ehlo_name == name


@pytest.mark.parametrize("bare", ["localhost", "app-7f9c", "two words", "-x.example"])
def test_a_bare_machine_name_is_no_greeting(bare: str) -> None:
    """Servers refuse it, or count it as spam."""
    with pytest.raises(ConfigurationError, match="SMTP_EHLO_NAME"):
        settings(SMTP_EHLO_NAME=bare)


def test_provider_needs_its_credentials() -> None:
    """A provider that is chosen and switched on names what it lacks; one that is switched off doesn't."""
    assert "TWILIO_FROM" in fault(SMS_PROVIDER="twilio", TWILIO_ACCOUNT_SID="AC1", TWILIO_AUTH_TOKEN="t")
    assert settings(SMS_PROVIDER="twilio", SMS_ENABLED="off").providers.get("sms") is None


def test_secret_key_or_ring_not_both() -> None:
    """The ring keeps its order; a key beside it would leave open which one signs."""
    second = KEY[::-1]
    assert load({"SECRET_KEYS": f"{KEY}, {second}"}, dotenv=None).secret_keys == (KEY.encode(), second.encode())
    assert "keep one" in fault(SECRET_KEYS=second)


@pytest.mark.parametrize(
    "weak",
    [
        "short",
        "a" * 64,
        "abacabadabacabaeabacabadabacabafg",
        "abc" * 20,
        "0123456789abcdef" * 3,
        "please-CHANGEME-before-going-live-1234567890",
    ],
)
def test_production_refuses_a_weak_key(weak: str) -> None:
    """Short, repeated and placeholder keys stop the start; the key isn't shown."""
    (sentence,) = faults(PRODUCTION | {"SECRET_KEY": weak})
    assert sentence.startswith("SECRET_KEY is too weak")
    assert weak not in sentence


def test_production_refuses_a_short_metrics_token() -> None:
    """Whoever guesses it reads how many sign in; the token isn't shown."""
    (sentence,) = faults(PRODUCTION | {"METRICS_TOKEN": "prometheus"})
    assert sentence.startswith("METRICS_TOKEN is too short")
    assert "prometheus" not in sentence


@given(st.binary(min_size=32, max_size=32))
def test_random_hex_keys_are_strong(raw: bytes) -> None:
    """The check refuses nothing a random generator makes."""
    if len(set(raw)) > 16:
        assert weakness(raw.hex().encode()) is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY"),
        ({"PUBLIC_URL": ""}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "http://login.example.com"}, "PUBLIC_URL"),
        ({"SMTP_ENABLED": "false"}, "SMTP_ENABLED,"),
        ({"SMS_ENABLED": "true"}, "SMS_ENABLED"),
        ({"WHATSAPP_ENABLED": "true", "WHATSAPP_PROVIDER": "console"}, "WHATSAPP_ENABLED"),
        ({"OTP_HOURLY_LIMIT": "11"}, "OTP_HOURLY_LIMIT"),
    ],
)
def test_production_refuses_what_is_only_convenient(change: dict[str, str], name: str) -> None:
    """Each shortcut of development is one clear fault in production."""
    (sentence,) = faults(PRODUCTION | change)
    assert sentence.split()[0] == name


def test_production_may_run_on_the_machine_itself() -> None:
    """An explicit localhost is let through, so that production settings can be tried."""
    assert load(PRODUCTION | {"PUBLIC_URL": "http://localhost:8000"}, dotenv=None).production


def test_providers_are_those_switched_on_in_order() -> None:
    """Development has a console for each channel; production has what is configured and nothing else."""
    assert settings().providers == {"email": ("console",), "sms": ("console",), "whatsapp": ("console",)}
    assert load(PRODUCTION, dotenv=None).providers == {"email": ("smtp",)}


def test_development_key_is_kept_for_the_owner_alone(tmp_path: Path) -> None:
    """Without a key one is made: strong, readable by this user only, the same at the next start."""
    data = tmp_path / "deep" / "data"
    first = load({"DATA_DIR": str(data)}, dotenv=None).secret_keys
    assert load({"DATA_DIR": str(data)}, dotenv=None).secret_keys == first
    assert weakness(first[0]) is None
    assert stat.S_IMODE((data / "secret.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert [entry.name for entry in data.iterdir()] == ["secret.key"]


def _key_of(data: str) -> bytes:
    return load({"DATA_DIR": data}, dotenv=None).secret_keys[0]


def test_processes_that_start_together_agree_on_the_key(tmp_path: Path) -> None:
    """Web and worker may start at the same moment on an empty directory."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        keys = pool.map(_key_of, [str(tmp_path / "data")] * 16, chunksize=1)
    assert len(set(keys)) == 1


def test_damaged_development_key_is_a_fault(tmp_path: Path) -> None:
    """An emptied key file is not silently replaced, and not used."""
    (tmp_path / "secret.key").write_text("")
    (sentence,) = faults({"DATA_DIR": str(tmp_path)})
    assert sentence.startswith("DATA_DIR can't keep the development key")


def test_no_key_is_made_in_production_or_beside_faults(tmp_path: Path) -> None:
    """A refused start leaves nothing behind."""
    faults(PRODUCTION | {"SECRET_KEY": "", "DATA_DIR": str(tmp_path / "a")})
    faults({"PORT": "x", "DATA_DIR": str(tmp_path / "b")})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_read_from_the_process_when_an_environment_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load()` reads the process; `load(mapping)` reads the mapping alone."""
    monkeypatch.setenv("PORT", "9005")
    monkeypatch.setenv("SECRET_KEY", KEY)
    assert load(dotenv=None).port == 9005
    assert settings().port == 8000


def test_each_setting_has_a_sentence() -> None:
    """Every attribute is documented: a name, a type, a default and a sentence."""
    assert {f.name for f in fields(Settings) if not f.metadata} == {"credentials", "warnings"}
    for variable in documented():
        assert variable.sentence.endswith("."), variable.name
