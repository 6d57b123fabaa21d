"""The `gatehouse` command as its users run it: a process of its own, on real stores."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from app.cli import seed
from app.cli.services import services
from app.settings import Settings, load
from app.storage.migrate import upgrade
from app.storage.redis import FORGOTTEN_PROXY
from app.tenants.search import Filters
from app.web.forwarded import advice
from tests.stores import StoresOfTests

_SECONDS: Final = 60


class Shell:
    """Runs `gatehouse` with one environment, in a directory without a `.env`."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
        self._environment = kept | environment
        self._directory = directory

    def __call__(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: PLW1510 - the exit code is what is tested
            [str(Path(sys.executable).with_name("gatehouse")), *args],
            env=self._environment | environment,
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )

    def json(self, *args: str) -> Any:
        """What a command that must succeed prints."""
        done = self(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a process the tests' own settings and stores."""
    assert settings.database_url
    assert settings.database_owner_url
    assert settings.redis_url
    return {
        "ENVIRONMENT": "development",
        "DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.database_url,
        "DATABASE_OWNER_URL": settings.database_owner_url,
        "REDIS_URL": settings.redis_url,
        "LOG_FORMAT": "json",
    }


@pytest.fixture
def gatehouse(environment: dict[str, str], tmp_path: Path) -> Shell:
    return Shell(environment, tmp_path)


@pytest.fixture
def slug() -> str:
    return f"cli-{uuid4().hex[:10]}"


def refused(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line on stderr that a refusal is; nothing on stdout, no traceback."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("gatehouse: error: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_tenant_is_added_changed_shown_and_listed(gatehouse: Shell, slug: str) -> None:
    """Every field can be set; an empty value clears; JSON is the contract's own."""
    added = gatehouse.json(
        "tenant", "add", slug, "--name", "Grün & Söhne", "--email", "Ops@Acme.Example", "--phone", "+44 7700 900123",
        "--method", "sms", "--fallback", "email,whatsapp", "--policy", "max_attempts=3", "--policy", "hourly_limit=2",
        "--locale", "de-CH", "--timezone", "Europe/Zurich",
    )  # fmt: skip
    assert list(added) == [
        "slug", "name", "status", "email", "phone_number", "otp_delivery_method", "fallback_methods", "locale",
        "timezone", "policy", "version", "created_at", "updated_at",
    ]  # fmt: skip
    assert added["created_at"].endswith("Z")
    changed = gatehouse.json(
        "tenant", "set", slug, "--phone", "", "--method", "", "--fallback", "", "--policy", "hourly_limit=",
        "--locale", "",
    )  # fmt: skip
    assert {name: value for name, value in changed.items() if added[name] != value and name != "updated_at"} == {
        "phone_number": None,
        "otp_delivery_method": "email",
        "fallback_methods": [],
        "locale": "en",
        "policy": {"max_attempts": 3},
        "version": 2,
    }
    assert gatehouse.json("tenant", "show", slug) == changed
    assert gatehouse.json("tenant", "list", "--search", slug) == [changed]
    shown = gatehouse("tenant", "list", "--search", slug)
    assert shown.stdout.splitlines()[0].split() == ["SLUG", "NAME", "STATUS", "METHOD", "EMAIL", "PHONE"]
    assert "Grün & Söhne" in shown.stdout


def test_suspend_and_resume(gatehouse: Shell, slug: str) -> None:
    """Both answer with the tenant; the reason is shown."""
    gatehouse.json("tenant", "add", slug, "--name", "Acme", "--email", "ops@acme.example")
    suspended = gatehouse("tenant", "suspend", slug, "--reason", "unpaid since May")
    assert "suspended (unpaid since May)" in suspended.stdout
    assert gatehouse.json("tenant", "list", "--search", slug, "--status", "suspended")[0]["slug"] == slug
    assert gatehouse.json("tenant", "resume", slug)["status"] == "active"


def test_a_tenant_without_contact_is_pointed_out(gatehouse: Shell, slug: str) -> None:
    """It can be added, and whoever adds or shows it is told what is missing."""
    added = gatehouse("tenant", "add", slug, "--name", "Acme")
    assert added.returncode == 0
    assert "Tenant contact information missing" in added.stderr
    assert gatehouse.json("tenant", "list", "--search", slug, "--contact-missing")[0]["slug"] == slug
    assert gatehouse.json("tenant", "list", "--search", slug, "--failing") == []


def test_a_list_says_when_it_is_cut(gatehouse: Shell, slug: str) -> None:
    """Beyond --limit there is a word about it, and none without need."""
    for n in range(2):
        gatehouse.json("tenant", "add", f"{slug}-{n}", "--name", "Acme")
    cut = gatehouse("tenant", "list", "--search", slug, "--limit", "1")
    assert len(cut.stdout.splitlines()) == 2
    assert "more than these 1" in cut.stderr
    assert gatehouse("tenant", "list", "--search", slug, "--limit", "2").stderr == ""


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["tenant", "add", "Bad_Slug", "--name", "x"], "slug: "),
        (["tenant", "add", "good"], "--name"),
        (["tenant", "set", "{slug}", "--email", "a@x.example, b@y.example"], "email: "),
        (["tenant", "set", "{slug}", "--name", "A\r\nBcc: b", "--phone", "12"], "name: "),
        (["tenant", "set", "{slug}", "--policy", "max_attempts=99"], "policy.max_attempts: "),
        (["tenant", "set", "{slug}", "--policy", "surprise"], "policy: "),
        (["tenant", "set", "{slug}", "--method", "sms"], "phone_number"),
        (["tenant", "set", "{slug}", "--timezone", "Mars/Olympus"], "timezone: "),
        (["tenant", "set", "{slug}"], "Nothing to set"),
        (["tenant", "set", "{slug}", "--surprise", "x"], "--surprise"),
        (["tenant", "add", "{slug}", "--name", "Again"], "already"),
        (["tenant", "show", "nobody-has-this"], "nobody-has-this"),
        (["tenant", "show", "_system"], "slug: "),
        (["tenant", "show", "x\nTraceback"], "slug: "),
        (["tenant", "list", "--sort", "email"], "sort: "),
        (["tenant", "list", "--limit", "none"], "--limit"),
        (["tenant", "shwo"], "shwo"),
        (["surprise"], "surprise"),
        (["admin", "add", "nobody"], "email: "),
        (["admin", "add", "a@x.example", "--role", "king"], "role: "),
        (["api-key", "add", "ci", "--role", "king"], "role: "),
        (["api-key", "revoke", "1"], "UUID"),
        (["send-test", "{slug}", "--channel", "pigeon"], "channel: "),
        (["send-test", "{slug}", "--channel", "push"], "push"),
    ],
)
def test_bad_input_is_one_clear_line(
    gatehouse: Shell, slug: str, request: pytest.FixtureRequest, args: list[str], told: str
) -> None:
    """Whatever is typed wrong: exit code 2, one line that names it."""
    if "{slug}" in args:
        gatehouse("tenant", "add", slug, "--name", "Acme", "--email", "ops@acme.example")
    assert told in refused(gatehouse(*(arg.replace("{slug}", slug) for arg in args)), 2)


@pytest.mark.parametrize("command", [["tenant", "list"], ["migrate"], ["admin", "list"]])
def test_a_store_that_is_away_is_one_line_without_its_password(gatehouse: Shell, command: list[str]) -> None:
    """Exit code 1, and the password in the URL stays there."""
    away = "postgresql://someone:hunter2-hunter2@127.0.0.1:9/gatehouse"
    told = refused(gatehouse(*command, DATABASE_URL=away, DATABASE_OWNER_URL=away), 1)
    assert "hunter2" not in told


async def test_a_database_without_tables_says_what_to_do(
    gatehouse: Shell, stores: StoresOfTests, worker_id: str
) -> None:
    """An outside database is migrated when somebody says so, not by surprise; doctor tells the same."""
    name = f"cli_{worker_id}"
    await stores.create_database(name)
    outside = {"DATABASE_URL": stores.app_url_for(name), "DATABASE_OWNER_URL": stores.owner_url_for(name)}
    told = refused(await asyncio.to_thread(gatehouse, "tenant", "list", **outside), 1)
    assert "gatehouse migrate" in told
    checked = await asyncio.to_thread(gatehouse, "doctor", **outside)
    assert checked.returncode == 1
    assert "gatehouse migrate" in checked.stdout

    migrated = await asyncio.to_thread(gatehouse, "migrate", **outside)
    assert migrated.returncode == 0, migrated.stderr
    listed = await asyncio.to_thread(gatehouse, "tenant", "list", "--json", **outside)
    assert json.loads(listed.stdout) == []
    assert (await asyncio.to_thread(gatehouse, "doctor", **outside)).returncode == 0
    await stores.drop_database(name)


def test_a_wrong_configuration_names_every_setting(gatehouse: Shell) -> None:
    """All faults at once, exit code 1."""
    done = gatehouse("tenant", "list", PORT="http", OTP_LENGTH="7")
    assert done.returncode == 1
    assert "PORT" in done.stderr
    assert "OTP_LENGTH" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_looks_at_everything(gatehouse: Shell) -> None:
    """On healthy stores nothing fails; each thing is named once, as a table or as JSON."""
    checks = gatehouse.json("doctor")
    assert [check["check"] for check in checks] == [
        "settings", "database", "role", "clock", "schema", "isolation", "worker", "valkey", "providers", "smtp",
    ]  # fmt: skip
    assert {check["state"] for check in checks} <= {"ok", "warning"}
    assert gatehouse("doctor").stdout.splitlines()[0].split() == ["CHECK", "STATE", "DETAIL"]


@pytest.mark.parametrize(
    ("environment_change", "check"),
    [
        ({"DATABASE_URL": "postgresql://someone:hunter2-hunter2@127.0.0.1:9/x"}, "database"),
        (
            {"SMTP_ENABLED": "true", "SMTP_HOST": "127.0.0.1", "SMTP_PORT": "9", "SMTP_FROM_EMAIL": "a@x.example"},
            "smtp",
        ),
        ({"SMS_ENABLED": "true", "SMS_PROVIDER": "twillio"}, "providers"),
        ({"PORT": "http"}, "settings"),
    ],
)
def test_doctor_fails_on_what_is_broken(gatehouse: Shell, environment_change: dict[str, str], check: str) -> None:
    """The broken thing fails, the exit code says so, and no password is shown."""
    done = gatehouse("doctor", "--json", **environment_change)
    assert done.returncode == 1
    assert [found["check"] for found in json.loads(done.stdout) if found["state"] == "failed"] == [check]
    assert "hunter2" not in done.stdout + done.stderr


def test_doctor_warns_that_valkey_is_away(gatehouse: Shell) -> None:
    """Sign-in works without it, so that is no failure."""
    done = gatehouse("doctor", "--json", REDIS_URL="redis://127.0.0.1:9")
    assert done.returncode == 0
    assert {found["check"]: found["state"] for found in json.loads(done.stdout)}["valkey"] == "warning"


@pytest.mark.parametrize(("countries", "state"), [("", "warning"), ("GB,DE", "ok")])
def test_doctor_warns_of_sms_to_every_country(gatehouse: Shell, countries: str, state: str) -> None:
    """Nobody knows better than the operator where the people are; nobody else pays for what goes elsewhere."""
    sns = {"SMS_ENABLED": "true", "SMS_PROVIDER": "sns", "AWS_REGION": "eu-west-1"}
    done = gatehouse("doctor", "--json", **sns, SMS_ALLOWED_COUNTRIES=countries)
    assert done.returncode == 0
    assert {found["check"]: found["state"] for found in json.loads(done.stdout)}["providers"] == state


@pytest.mark.parametrize(
    ("change", "check", "state", "told"),
    [
        ({"PUBLIC_URL": "http://portal.lan"}, "settings", "warning", "PUBLIC_URL is http://portal.lan"),
        ({"PUBLIC_URL": "http://portal.lan/x"}, "settings", "failed", "write http://portal.lan"),
        ({"ALLOWED_HOSTS": "https://portal.lan"}, "settings", "failed", "ALLOWED_HOSTS must be names of hosts"),
        ({"JWT_ACCESS_TTL_SECONDS": "5"}, "settings", "warning", "JWT_ACCESS_TTL_SECONDS is 5"),
        ({"OTP_LENGHT": "8"}, "settings", "failed", "did you mean OTP_LENGTH?"),
        ({"SMTP_HOST": "mail.example"}, "settings", "warning", "SMTP_ENABLED=true"),
        ({"DEFAULT_TENANT": "nobody-has-this"}, "default tenant", "warning", "no such tenant"),
    ],
)
def test_doctor_names_what_cannot_work(
    gatehouse: Shell, change: dict[str, str], check: str, state: str, told: str
) -> None:
    """Each with its setting and with what to do; only what stops the start is a failure."""
    done = gatehouse("doctor", "--json", **change)
    assert done.returncode == (1 if state == "failed" else 0)
    (found,) = [found for found in json.loads(done.stdout) if told in found["detail"]]
    assert (found["check"], found["state"]) == (check, state)


def test_doctor_names_a_data_directory_that_others_may_change(gatehouse: Shell, tmp_path: Path) -> None:
    """The embedded servers don't start on it; doctor says so and what to do."""
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(0o770)
    embedded = {"DATA_DIR": str(directory), "DATABASE_URL": "", "REDIS_URL": "", "DATABASE_OWNER_URL": ""}
    done = gatehouse("doctor", "--json", **embedded, SECRET_KEY="k" * 32)
    assert done.returncode == 1
    (found,) = [found for found in json.loads(done.stdout) if found["state"] == "failed"]
    assert "every user of its group" in found["detail"]
    assert "chmod o-w,g-w" in found["detail"]


async def test_doctor_names_a_forgotten_proxy(gatehouse: Shell, settings: Settings) -> None:
    """What a web process noticed, as long as it goes on."""
    client = Redis.from_url(settings.redis_url or "")
    await client.set(FORGOTTEN_PROXY, advice("10.0.0.7"), ex=60)
    done = await asyncio.to_thread(gatehouse, "doctor", "--json")
    await client.delete(FORGOTTEN_PROXY)
    await client.aclose()
    found = {found["check"]: found for found in json.loads(done.stdout)}
    assert found["proxies"]["state"] == "warning"
    assert "TRUSTED_PROXIES=10.0.0.7" in found["proxies"]["detail"]


@pytest.mark.parametrize(
    ("damage", "mend", "check", "told"),
    [
        (
            "REVOKE INSERT ON challenges FROM gatehouse_app",
            "GRANT INSERT ON challenges TO gatehouse_app",
            "rights",
            "insert on challenges",
        ),
        (
            "ALTER DATABASE {name} SET default_transaction_read_only = on",
            "ALTER DATABASE {name} RESET default_transaction_read_only",
            "writing",
            "read-only",
        ),
    ],
)
async def test_doctor_names_a_database_that_cannot_be_written(
    gatehouse: Shell, environment: dict[str, str], damage: str, mend: str, check: str, told: str
) -> None:
    """A lost right and a read-only server are failures with a name."""
    connection = await asyncpg.connect(environment["DATABASE_OWNER_URL"])
    name = await connection.fetchval("SELECT current_database()")
    try:
        await connection.execute(damage.format(name=name))
        done = await asyncio.to_thread(gatehouse, "doctor", "--json")
    finally:
        await connection.execute(mend.format(name=name))
        await connection.close()
    assert done.returncode == 1
    failed = {found["check"]: found["detail"] for found in json.loads(done.stdout) if found["state"] == "failed"}
    assert failed.keys() == {check}
    assert told in failed[check]


async def test_doctor_sees_a_role_that_gets_past_the_guards(
    gatehouse: Shell, stores: StoresOfTests, environment: dict[str, str]
) -> None:
    """A table on which row-level security isn't forced, and SQL functions of another version, are failures."""
    connection = await asyncpg.connect(environment["DATABASE_OWNER_URL"])
    try:
        functions = await connection.fetchval("SELECT obj_description('fn'::regnamespace)")
        await connection.execute("ALTER TABLE quota NO FORCE ROW LEVEL SECURITY; COMMENT ON SCHEMA fn IS 'older'")
        done = await asyncio.to_thread(gatehouse, "doctor", "--json")
    finally:
        await connection.execute("ALTER TABLE quota FORCE ROW LEVEL SECURITY")
        await connection.execute(f"COMMENT ON SCHEMA fn IS '{functions}'")
        await connection.close()
    failed = {found["check"]: found["detail"] for found in json.loads(done.stdout) if found["state"] == "failed"}
    assert failed.keys() == {"schema", "isolation"}
    assert "quota" in failed["isolation"]


def test_admins_and_keys(gatehouse: Shell, slug: str) -> None:
    """Added, listed, and of a key nothing but its making shows the secret."""
    email = f"{slug}@company.example"
    assert gatehouse.json("admin", "add", email.upper(), "--name", "Ada")["email"] == email
    assert [admin["role"] for admin in gatehouse.json("admin", "list") if admin["email"] == email] == ["owner"]
    assert email in refused(gatehouse("admin", "add", email), 2)

    made = gatehouse.json("api-key", "add", slug, "--role", "manager")
    assert made["key"].startswith("ghk_")
    listed = gatehouse("api-key", "list", "--json")
    assert made["id"] in listed.stdout
    assert made["key"].rpartition("_")[2] not in listed.stdout
    assert gatehouse("api-key", "revoke", made["id"]).returncode == 0
    assert [key["revoked_at"] is None for key in json.loads(listed.stdout) if key["id"] == made["id"]] == [True]
    assert "no such API key" in refused(gatehouse("api-key", "revoke", made["id"]), 2)


def test_a_test_message_is_sent_without_a_worker(gatehouse: Shell, slug: str) -> None:
    """Where no worker runs, one is started for the message and stopped again; the outcome is told."""
    gatehouse.json("tenant", "add", slug, "--name", "Acme", "--email", "ops@acme.example")
    sent = gatehouse("send-test", slug)
    assert (sent.returncode, sent.stdout) == (0, "The test message was sent by email through console.\n")
    assert "ops@acme.example" not in sent.stderr


def test_a_test_message_that_fails_says_why(gatehouse: Shell, slug: str) -> None:
    """The provider's reason in one line, exit code 1."""
    gatehouse.json("tenant", "add", slug, "--name", "Acme", "--email", "ops@acme.example")
    wrong = {"SMTP_ENABLED": "true", "SMTP_HOST": "127.0.0.1", "SMTP_PORT": "9", "SMTP_FROM_EMAIL": "a@x.example"}
    failed = gatehouse("send-test", slug, "--json", **wrong)
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["state"] in {"failed", "queued"}
    assert failed.stderr.splitlines()[-1].startswith("gatehouse: error: The test message ")


def test_help_and_version_answer_at_once(gatehouse: Shell) -> None:
    """Neither needs settings, stores or the heavy modules."""
    shown = gatehouse("--help", PORT="not even a number")
    assert shown.returncode == 0
    for command in ("run", "web", "worker", "migrate", "doctor", "tenant", "send-test", "admin", "api-key"):
        assert command in shown.stdout
    assert gatehouse("--version").stdout.startswith("gatehouse ")
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "app.cli.main", "--help"], capture_output=True, text=True, check=True
    ).stderr
    for heavy in ("asyncpg", "sqlalchemy", "litestar", "phonenumbers"):
        assert f" {heavy}\n" not in imported, heavy


def test_every_command_explains_itself(gatehouse: Shell) -> None:
    """`--help` of each command is there and names its options."""
    for command in ("run", "web", "worker", "migrate", "doctor", "send-test"):
        assert gatehouse(command, "--help").returncode == 0
    assert "--policy KEY=VALUE" in gatehouse("tenant", "set", "--help").stdout


def test_a_reader_that_has_seen_enough_is_no_error(gatehouse: Shell, environment: dict[str, str], slug: str) -> None:
    """`gatehouse tenant list | head -1` ends quietly."""
    gatehouse.json("tenant", "add", slug, "--name", "Acme")
    command = f"{Path(sys.executable).with_name('gatehouse')} tenant list | head -c 1"
    piped = subprocess.run(
        ["sh", "-c", command], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    assert "Traceback" not in piped.stderr
    assert "BrokenPipe" not in piped.stderr


@pytest.fixture
def own_directory() -> Iterator[Path]:
    """A place for embedded stores that, where tests run as root, the servers' own user can enter too."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-cli-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_without_any_store_the_command_brings_its_own(own_directory: Path) -> None:
    """On a clean machine a tenant is added, and is still there for the next command; nothing keeps running."""
    shell = Shell({"DATA_DIR": str(own_directory / "data"), "ENVIRONMENT": "development"}, own_directory)
    added = shell.json("tenant", "add", "acme", "--name", "Acme", "--email", "ops@acme.example")
    assert not (own_directory / "data" / "runtime.json").exists()
    assert shell.json("tenant", "show", "acme") == added


async def test_the_first_run_makes_an_owner_and_a_tenant_to_try(
    stores: StoresOfTests, worker_id: str, tmp_path: Path
) -> None:
    """On an empty development database both are made, once, and told; nothing is added to one in use."""
    name = f"seed_{worker_id}"
    await stores.create_database(name)
    await upgrade(stores.owner_url_for(name), datetime.now(UTC))
    given = {"DATABASE_URL": stores.app_url_for(name), "REDIS_URL": stores.redis_url}
    development = load({"ENVIRONMENT": "test", **given, "DATA_DIR": str(tmp_path)}, dotenv=None)
    development = replace(development, environment="development", admin_email="first@company.example")

    told = await seed.first_run(development)
    assert "first@company.example" in told[0]
    assert "demo" in told[1]
    assert await seed.first_run(development) == []
    async with services(development) as opened:
        assert [(admin.email, admin.role) for admin in await opened.admins.list()] == [
            ("first@company.example", "owner")
        ]
        demo = await opened.tenants.get("demo")
        assert (demo.email, demo.phone_number) == ("demo@example.com", "+447700900123")
    await stores.drop_database(name)


async def test_production_without_an_admin_says_how_to_add_one(
    stores: StoresOfTests, worker_id: str, tmp_path: Path
) -> None:
    """No demo tenant and no guessed address there: a line that tells the command."""
    name = f"seed_{worker_id}"
    await stores.create_database(name)
    await upgrade(stores.owner_url_for(name), datetime.now(UTC))
    given = {"DATABASE_URL": stores.app_url_for(name), "REDIS_URL": stores.redis_url}
    settings = load({"ENVIRONMENT": "test", **given, "DATA_DIR": str(tmp_path)}, dotenv=None)
    told = await seed.first_run(replace(settings, environment="production", admin_email=None))
    assert len(told) == 1
    assert "gatehouse admin add" in told[0]
    async with services(settings) as opened:
        assert await opened.tenants.count(Filters(contacts=False)) == 0
    await stores.drop_database(name)
