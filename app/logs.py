"""Structured logs that hold no code, no token and no full address.

Two nets, one behind the other: only fields on an allow-list are written at all (a dropped one is named, its
value never shown), and in every text that is written, whatever looks like a contact, a token or a code is
masked. Libraries that use the standard `logging` go through the same nets. Everything is written to stderr;
stdout belongs to the commands' answers.
"""

import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Final, Protocol, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, ProcessorReturnValue, WrappedLogger

from app.errors import ConfigurationError
from app.masking import mask_contact, mask_email, mask_ip, mask_phone
from app.settings import Settings

# Words, numbers and ids that can't hold what a person typed.
# fmt: off
PLAIN_FIELDS: Final = frozenset(
    {
        "admin_id", "api_key_id", "attempt", "attempts", "attempts_left", "batch", "challenge_id",
        "channel", "checkpoint", "code_length", "component", "count", "database", "delivery_id", "dropped",
        "duration_ms", "embedded", "environment", "error_class", "expires_in", "family_id",
        "generation", "host", "key_id", "kind", "lag_seconds", "level", "limit", "logger",
        "member_id", "method", "outbox_id", "pid", "policy", "port", "process", "provider",
        "provider_message_id", "purpose", "redis", "request_id", "retry_after",
        "revision", "role", "route", "seconds", "server", "session_id", "setting", "signal",
        "state", "status", "subject_kind", "tenant", "tenant_id", "timestamp", "version", "worker",
    }
)
# fmt: on
# Set for the processes below `gatehouse run`.
TOLD: Final = "GATEHOUSE_SETTINGS_TOLD"
TEXT_FIELDS: Final = frozenset({"event", "exception", "error", "detail", "reason", "url"})
MASKED_FIELDS: Final = {"contact": mask_contact, "ip": mask_ip}

# The local part is bounded (RFC 5321: 64 octets), or long texts without an @ would take quadratic time.
_CONTACTS: Final = re.compile(
    r"""(?P<token>\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?)
      | (?P<credentials>://[^\s/@]+@)
      | (?P<email>[^\s@<>()\[\]{}"'`=,;:/]{1,64}@[^\s@<>()\[\]{}"'`=,;:/]+)
      | (?P<phone>\+[0-9]{7,15}(?![0-9]))""",
    re.VERBOSE,
)
# Codes have 6 to 10 digits, phone numbers up to 15; 40 characters of base64url or hex hold a key or a hash.
_SECRETS: Final = re.compile(r"(?<!\w)[0-9]{6,15}(?!\w)|(?<![\w-])(?=[\w-]*[0-9])[\w-]{40,}(?![\w-])")
# Below WARNING these libraries tell message bodies, SQL parameters and query strings.
_TALKATIVE: Final = ("alembic", "aiosmtplib", "botocore", "httpcore", "httpx", "mail", "sqlalchemy", "urllib3")


class Stream(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> object: ...  # noqa: D102 - as files have it
    def flush(self) -> object: ...  # noqa: D102
    def isatty(self) -> bool: ...  # noqa: D102


class _Stderr:
    """Stderr as it is at the moment of writing: loggers live longer than a redirection of it."""

    def write(self, text: str, /) -> object:
        return sys.stderr.write(text)

    def flush(self) -> object:
        return sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


STDERR: Final[Stream] = _Stderr()


def configure(settings: Settings, stream: Stream = STDERR) -> None:
    """Set up the logs of this process. Called once by each composition root, before anything is logged."""
    level = logging.getLevelNamesMapping()[settings.log_level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_time,
            structlog.processors.format_exc_info,
            redact,
            *_rendering(settings, stream),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", stream)),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for handler in root.handlers[:]:
        # Anything else that writes to the console would pass by the nets.
        if type(handler) in {_Forward, logging.StreamHandler}:
            root.removeHandler(handler)
    root.addHandler(_Forward())
    root.setLevel(max(level, logging.INFO))
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its lines hold query strings; Gatehouse writes a line of its own for each request.
    logging.getLogger("uvicorn.access").disabled = True


def tell_settings(settings: Settings) -> None:
    """Says at the start what of the settings can't be as it was meant. Below `gatehouse run`, that has said it."""
    for sentence in settings.warnings if TOLD not in os.environ else ():
        structlog.get_logger().warning("A setting needs a look", detail=sentence)


def reveal_code_in_development_log(
    settings: Settings, code: str, *, tenant: str, channel: str, contact: str, stream: Stream = STDERR
) -> None:
    """Write one line with the code itself, past all redaction: a developer needs no mail server to sign in.

    Raises ConfigurationError in production, whatever the caller believed.
    """
    if settings.production:
        raise ConfigurationError(["ENVIRONMENT is production: a code is never written to the log."])
    event = f"Sign-in code {code} for {tenant} by {channel} to {mask_contact(contact)} (development only)"
    line: ProcessorReturnValue = {"event": event, "level": "info"}
    for processor in (_add_time, *_rendering(settings, stream)):
        line = processor(None, "info", cast("EventDict", line))
    stream.write(f"{line!s}\n")
    stream.flush()


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The processor that keeps what is allowed, masks contacts, and names in `dropped` what it left out."""
    kept: EventDict = {}
    dropped: list[str] = []
    for name, value in event.items():
        if name in PLAIN_FIELDS:
            kept[name] = _plain(value)
        elif name in TEXT_FIELDS:
            kept[name] = scrub(str(value))
        elif name in MASKED_FIELDS:
            kept[name] = None if value is None else MASKED_FIELDS[name](str(value))
        else:
            dropped.append(name)
    if dropped:
        kept["dropped"] = dropped
    return kept


def scrub(text: str) -> str:
    """The text with every contact, token, credential and run of 6 to 10 digits masked."""
    return _SECRETS.sub("[hidden]", _mask_contacts(text))


def _mask_contacts(text: str) -> str:
    # Nearly every text is free of all three, and this runs on every line.
    if "@" in text or "+" in text or "eyJ" in text:
        return _CONTACTS.sub(_mask_match, text)
    return text


def _mask_match(match: re.Match[str]) -> str:
    found = match[0]
    match match.lastgroup:
        case "email":
            return mask_email(found)
        case "phone":
            return mask_phone(found)
        case "credentials":
            return "://[hidden]@"
        case _:
            return "[hidden]"


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        # A long fraction is noise, and would look like a code to whoever scans the log for one.
        return round(value, 3)
    return _mask_contacts(str(value))


def _add_time(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """UTC to the millisecond: six digits of microseconds would look like a code."""
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event


def _one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters, so that nobody's input forges a line or moves the cursor (CWE-117).

    A traceback keeps its lines, each behind a bar that no entry starts with.
    """
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = (
                "\n".join(f"  | {_printable(line)}" for line in value.splitlines())
                if name == "exception"
                else _printable(value)
            )
    return event


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _rendering(settings: Settings, stream: Stream) -> tuple[Processor, ...]:
    if settings.log_format == "json":
        return (structlog.processors.JSONRenderer(),)  # escapes whatever isn't printable ASCII
    plain = structlog.dev.plain_traceback
    return (_one_line, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain))


class _Forward(logging.Handler):
    """Hands the records of libraries to structlog, so that they pass the same nets."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments that don't fit are the library's mistake
            message = str(record.msg)
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        structlog.get_logger().log(level, message, logger=record.name, exc_info=record.exc_info)
