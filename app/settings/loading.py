"""From the environment and `.env` to Settings, or to every fault at once."""

import difflib
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from dotenv.parser import parse_stream

from app.errors import ConfigurationError
from app.settings import checks, foreign, warnings
from app.settings.directory import unsafe
from app.settings.model import Derived, Settings, Variable, variables
from app.settings.providers import CREDENTIALS

KEY_FILE: Final = "secret.key"
SECRET_KEY: Final = Variable(
    "SECRET_KEY",
    str,
    None,
    "The one secret: at least 32 random bytes. Unset outside production: one is made and kept in DATA_DIR.",
    secret=True,
)
# Read by the tests alone, but a developer keeps them in the same file.
_FOR_TESTS: Final = frozenset({"TEST_DATABASE_URL", "TEST_REDIS_URL"})


def load(environ: Mapping[str, str] | None = None, *, dotenv: Path | None = Path(".env")) -> Settings:
    """Read the settings from the environment, and from `.env` what the environment leaves unset.

    An empty value counts as unset. Outside production a missing SECRET_KEY is created once in DATA_DIR.
    Raises ConfigurationError with every fault there is, not just the first.
    """
    environ = os.environ if environ is None else environ
    from_file, faults, repeated = _read_dotenv(dotenv)
    given = {name: text for name, value in (from_file | _filled(environ)).items() if (text := value.strip())}
    only_there = {name: value for name, value in environ.items() if name not in from_file}
    faults += foreign.faults(only_there, given)
    faults += foreign.misspelt(only_there, given, _known())
    settings, quoted = _settings(given, faults)
    # A setting that can't be read stands at its default here; what would follow from that is no news.
    unreadable = {fault.split()[0] for fault in faults}
    faults += [fault for fault in checks.faults(settings) if fault.split()[0] not in unreadable]
    if not (faults or settings.secret_keys):
        settings, faults = _with_kept_key(settings)
    if faults:
        raise ConfigurationError(faults)
    return replace(settings, warnings=(*quoted, *repeated, *warnings.warnings(settings, given)))


def documented() -> tuple[Variable, ...]:
    """Every variable there is, in the order the documentation shows them."""
    declared = variables()
    ring = next(index for index, variable in enumerate(declared) if variable.name == "SECRET_KEYS")
    return (*declared[:ring], SECRET_KEY, *declared[ring:], *CREDENTIALS)


def _filled(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if value}


def _known() -> frozenset[str]:
    return frozenset(variable.name for variable in documented()) | _FOR_TESTS


def _read_dotenv(path: Path | None) -> tuple[dict[str, str], list[str], list[str]]:
    """The variables of the file, its faults and warnings. A `$` means itself: secrets may hold one."""
    if path is None or not path.is_file():
        return {}, [], []
    try:
        bindings = list(parse_stream(StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{path} can't be read: {error}."], []
    # The line's number only: its text may be a secret.
    faults = [f"{path} line {b.original.line} is not NAME=value." for b in bindings if b.error]
    values = {b.key: b.value for b in bindings if b.key and b.value}
    known = _known()
    faults += [_unknown(name, path, known) for name in values if name not in known]
    lines: dict[str, list[int]] = {}
    for binding in bindings:
        if binding.key and binding.value:
            lines.setdefault(binding.key, []).append(binding.original.line)
    repeated = [
        f"{name} stands in lines {', '.join(map(str, at))} of {path}: the last one counts."
        for name, at in lines.items()
        if len(at) > 1
    ]
    return values, faults, repeated


def _unknown(name: str, path: Path, known: Iterable[str]) -> str:
    if answer := foreign.answer(name):
        return answer[1]
    nearest = difflib.get_close_matches(name.upper().removeprefix("GATEHOUSE_"), sorted(known), n=1)
    advice = f"did you mean {nearest[0]}?" if nearest else "take it out."
    return f"{name} in {path} is not a setting of Gatehouse: {advice}"


def _settings(given: Mapping[str, str], faults: list[str]) -> tuple[Settings, list[str]]:
    """Settings with every value that can be read, and the default for every other; adds to `faults`.

    Also answers with what there is to say about quotation marks.
    """
    quoted: list[str] = []
    values: dict[str, Any] = {}
    for variable in variables():
        default = variable.default.of(values) if isinstance(variable.default, Derived) else variable.default
        values[variable.name.lower()] = _read(variable, given, default, faults, quoted)
    if SECRET_KEY.name in given:
        if values["secret_keys"]:
            faults.append("SECRET_KEY and SECRET_KEYS are both set: keep one of them.")
        key = _read(SECRET_KEY, given, "", faults, quoted)
        values["secret_keys"] = (key.encode(),)
    credentials = {v.name: value for v in CREDENTIALS if (value := _read(v, given, None, faults, quoted)) is not None}
    return Settings(**values, credentials=MappingProxyType(credentials)), quoted


def _read(variable: Variable, given: Mapping[str, str], default: Any, faults: list[str], quoted: list[str]) -> Any:
    if variable.name not in given:
        return default
    text = given[variable.name]
    bare = _unquoted(text)
    if bare != text and not variable.secret:
        # `docker run --env-file` and systemd's `Environment=` keep the marks that a shell would take away.
        text = bare
    try:
        try:
            value = variable.parse(text)
        except ValueError:
            if bare == text:
                raise
            return variable.parse(bare)
    except ValueError as error:
        shown = "" if variable.secret else f", not {text[:80]!r}"
        faults.append(f"{variable.name} {error}{shown}.")
        return default
    if bare != text:
        quoted.append(f"{variable.name} begins and ends with a quotation mark, which is taken as a part of the secret.")
    return value


def _unquoted(text: str) -> str:
    """Without the quotation marks around it, and the spaces within them."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].strip()
    return text


def _with_kept_key(settings: Settings) -> tuple[Settings, list[str]]:
    """The settings with the key kept in DATA_DIR, so that sign-ins survive a restart in development."""
    try:
        key = _kept_key(settings.data_dir)
    except OSError as error:
        return settings, [f"DATA_DIR can't keep the development key: {error}."]
    return replace(settings, secret_keys=(key,)), []


def _kept_key(directory: Path) -> bytes:
    """Read the key file, made first if it is not there. Processes that race to make it end up with one key.

    Raises OSError where the directory or the file can't be made or read.
    """
    path = directory / KEY_FILE
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if reason := unsafe(directory):
        raise OSError(reason.rstrip("."))
    if not path.exists():
        draft = directory / f"{KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(48))
            # A link appears whole or not at all, and only for the first: the others read what that one wrote.
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    key = path.read_bytes().strip()
    if checks.weakness(key):
        raise OSError(f"{path} holds no key; delete it, and everybody has to sign in anew")
    return key
