"""Whatever is handed to the log, no code, no token and no full contact comes out."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app import logs
from app.errors import ConfigurationError
from app.settings import Settings, load

JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
REFRESH = "Zk3vJ0c2mVQ9yT7nB1xR5sL8wD4gH6aPqEoUiYtCzNk"


def settings(**environ: str) -> Settings:
    return load({"SECRET_KEY": "any"} | environ, dotenv=None)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def out() -> io.StringIO:
    """JSON logs of this test, from DEBUG up."""
    stream = io.StringIO()
    logs.configure(settings(LOG_FORMAT="json", LOG_LEVEL="DEBUG"), stream)
    return stream


def entry(out: io.StringIO) -> dict[str, object]:
    (line,) = out.getvalue().splitlines()
    parsed: dict[str, object] = json.loads(line)
    return parsed


def test_known_fields_are_written_and_others_only_named(out: io.StringIO) -> None:
    """A field that nobody vetted is dropped; that it was there can be seen, its value can't."""
    structlog.get_logger().info("verified", tenant="demo", attempts_left=4, code="123456", password="hunter2")
    found = entry(out)
    assert (found["event"], found["level"], found["tenant"], found["attempts_left"]) == ("verified", "info", "demo", 4)
    assert found["dropped"] == ["code", "password"]
    assert "123456" not in out.getvalue()
    assert "hunter2" not in out.getvalue()


def test_contacts_and_addresses_are_masked(out: io.StringIO) -> None:
    """Contact and IP have fields of their own, always masked."""
    structlog.get_logger().info("sent", contact="oskar@example.com", ip="203.0.113.9")
    found = entry(out)
    assert (found["contact"], found["ip"]) == ("o***@example.com", "203.0.113.0/24")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("mail to oskar@example.com bounced", "mail to o***@example.com bounced"),
        ("call +447700900123 now", "call +44*****0123 now"),
        (f"Bearer {JWT}", "Bearer [hidden]"),
        (f"refresh_token={REFRESH}", "refresh_token=[hidden]"),
        ("code 123456, or 12345678.", "code [hidden], or [hidden]."),
        ("?code=123456&x", "?code=[hidden]&x"),
        ("00447700900123", "[hidden]"),
        ("postgresql://web:hunter2@db:5432/x", "postgresql://[hidden]@db:5432/x"),
        ("listening on port 8000", "listening on port 8000"),
        ("took 12345 rounds, version 1.2.3", "took 12345 rounds, version 1.2.3"),
    ],
)
def test_texts_are_scrubbed(text: str, written: str) -> None:
    """What looks like a contact, a token, a credential or a code is masked; other words stay."""
    assert logs.scrub(text) == written


@given(
    st.from_regex(r"[0-9]{6,10}", fullmatch=True), st.sampled_from(["{}", "code={}", "({})", "a {}.", "x-{}", '"{}"'])
)
def test_no_code_passes_the_scrubber(code: str, sentence: str) -> None:
    """Any run of 6 to 10 digits that stands for itself is hidden."""
    assert code not in logs.scrub(sentence.format(code))


@given(st.text(max_size=300))
def test_scrubbing_takes_any_text(text: str) -> None:
    """The scrubber never raises, and its own output is left alone."""
    once = logs.scrub(text)
    assert "@" not in once or logs.scrub(once).count("@") == once.count("@")


def test_long_texts_are_scrubbed_in_linear_time() -> None:
    """A page of text without any contact costs milliseconds: nobody stalls the loop by making us log it."""
    import time  # noqa: PLC0415 - CPU time is what this test is about

    started = time.process_time()
    logs.scrub("a+" * 50_000 + "@")
    assert time.process_time() - started < 2


def test_plain_fields_are_checked_for_contacts_too(out: io.StringIO) -> None:
    """A contact that strays into an allowed field is masked there as well; numbers stay numbers, fractions short."""
    structlog.get_logger().info("x", route="/t/oskar@example.com", duration_ms=1.23456789, count=3, tenant=None)
    found = entry(out)
    assert (found["route"], found["duration_ms"], found["count"], found["tenant"]) == (
        "/t/o***@example.com",
        1.235,
        3,
        None,
    )


def test_no_time_looks_like_a_code(out: io.StringIO) -> None:
    """Times are in UTC with milliseconds: whoever scans logs for six digits finds none by chance."""
    structlog.get_logger().info("x")
    time = str(entry(out)["timestamp"])
    assert time.endswith("Z")
    assert len(time.partition(".")[2]) == len("123Z")


def test_tracebacks_show_no_locals_and_no_contact(out: io.StringIO) -> None:
    """An exception tells where it came from; its message is scrubbed and local variables are left out."""
    try:
        password = "hunter2"
        raise LookupError(f"Key (email)=({'oskar'}@example.com) of code {120_000 + 3456} {len(password)}")
    except LookupError:
        structlog.get_logger().exception("failed", error="for +447700900123")
    text = out.getvalue()
    assert "Traceback" in text
    assert "(o***@example.com) of code [hidden] 7" in text
    for secret in ("oskar@example.com", "123456", "7700900123"):
        assert secret not in text


def test_libraries_go_through_the_same_nets(out: io.StringIO) -> None:
    """A record of the standard logging is one more entry, scrubbed, with its logger's name."""
    logging.getLogger("some.library").warning("sent %s to %s", "123456", "oskar@example.com")
    found = entry(out)
    assert found["event"] == "sent [hidden] to o***@example.com"
    assert (found["logger"], found["level"]) == ("some.library", "warning")


def test_libraries_are_no_more_talkative_than_is_safe(out: io.StringIO) -> None:
    """At our DEBUG libraries stay at INFO, and those that tell bodies or parameters at WARNING."""
    logging.getLogger("some.library").debug("wire bytes")
    logging.getLogger("aiosmtplib").info("body")
    logging.getLogger("sqlalchemy.engine").info("[parameters: ...]")
    logging.getLogger("uvicorn.access").critical("GET /?token=x")
    assert out.getvalue() == ""
    structlog.get_logger().debug("ours")
    assert entry(out)["event"] == "ours"


def test_a_librarys_broken_record_is_still_written(out: io.StringIO) -> None:
    """Arguments that don't fit the message, or a level of its own, lose nothing and raise nothing."""
    # Handed over directly: pytest's own handlers would stumble first.
    (forward,) = (handler for handler in logging.getLogger().handlers if type(handler).__module__ == logs.__name__)
    forward.handle(logging.LogRecord("some.library", 35, __file__, 1, "no %d here", ("number",), None))
    found = entry(out)
    assert (found["event"], found["level"]) == ("no %d here", "warning")


def test_configuring_twice_writes_once() -> None:
    """The second call replaces the first, its level included."""
    first, second = io.StringIO(), io.StringIO()
    logs.configure(settings(LOG_FORMAT="json"), first)
    logs.configure(settings(LOG_FORMAT="json", LOG_LEVEL="ERROR"), second)
    logging.getLogger("some.library").error("once")
    logging.getLogger("some.library").warning("below the level")
    assert first.getvalue() == ""
    assert entry(second)["event"] == "once"


def test_console_lines_cannot_be_forged() -> None:
    """A line break or an escape sequence in a value stays inside its line, and a traceback's lines are marked."""
    stream = io.StringIO()
    logs.configure(settings(LOG_FORMAT="console"), stream)
    try:
        raise ValueError("x\n2026-01-01 [info] forged\r\x1b[2J")
    except ValueError:
        structlog.get_logger().exception("a\r\nb\u2028c \x1b[31m", tenant="d\ne")
    first, *rest = stream.getvalue().splitlines()
    assert r"a\r\nb\u2028c \x1b[31m" in first
    assert r"d\ne" in first
    assert rest
    assert all(line.startswith("  | ") for line in rest)
    assert "\x1b" not in stream.getvalue()


def test_json_lines_cannot_be_forged(out: io.StringIO) -> None:
    """One entry is one line of ASCII, whatever is in it."""
    structlog.get_logger().info("a\r\nb\u2028ü", tenant="x\ny")
    assert out.getvalue().isascii()
    assert entry(out)["event"] == "a\r\nb\u2028ü"


def test_context_is_part_of_the_entry(out: io.StringIO) -> None:
    """What a request binds once stands in each of its lines."""
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger().info("x")
    assert entry(out)["request_id"] == "r1"


def test_lines_go_to_stderr_wherever_it_leads(capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout belongs to the answers of commands; a logger outlives a redirection of stderr."""
    logs.configure(settings(LOG_FORMAT="json"))
    log = structlog.get_logger()
    log.info("first")
    real, sys.stderr = sys.stderr, io.StringIO()
    try:
        log.info("second")
        assert "second" in sys.stderr.getvalue()
    finally:
        sys.stderr = real
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "first" in captured.err


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_development_log_shows_the_code_on_one_line(log_format: str) -> None:
    """The one line that may hold a code: with the code as sent, the contact masked."""
    stream = io.StringIO()
    logs.reveal_code_in_development_log(
        settings(LOG_FORMAT=log_format),
        "012345",
        tenant="demo",
        channel="email",
        contact="oskar@example.com",
        stream=stream,
    )
    (line,) = stream.getvalue().splitlines()
    assert "Sign-in code 012345 for demo by email to o***@example.com" in line


def test_production_never_reveals_a_code() -> None:
    """Whatever the caller believed, in production the function refuses and writes nothing."""
    stream = io.StringIO()
    production = load(
        {
            "ENVIRONMENT": "production",
            "SECRET_KEY": "mB3v0qXh7cYtR1pZsK9wLd2fNjGa4eUo8iTbVxCy",
            "PUBLIC_URL": "https://login.example.com",
            "SMTP_ENABLED": "true",
            "SMTP_HOST": "mail.example.com",
            "SMTP_FROM_EMAIL": "codes@example.com",
        },
        dotenv=None,
    )
    with pytest.raises(ConfigurationError):
        logs.reveal_code_in_development_log(
            production, "012345", tenant="demo", channel="email", contact="oskar@example.com", stream=stream
        )
    assert stream.getvalue() == ""
