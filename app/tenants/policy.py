"""A tenant's policy: what may be overridden, in which range, and what then holds. Pure.

An override never loosens the operator's ceiling: the stricter of the two wins, and what "stricter" means
stands here for every key.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from app.errors import FieldError, InvalidRequest

Registration: TypeAlias = Literal["closed", "invite", "open"]
FirstFactor: TypeAlias = Literal["code", "password"]
SecondFactor: TypeAlias = Literal["off", "optional", "required"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The policy in force for a tenant, or, as a ceiling, the loosest one that any tenant may have."""

    code_length: int
    code_ttl_seconds: int
    max_attempts: int
    hourly_limit: int
    per_minute_limit: int
    resend_cooldown_seconds: int
    lock_after_failures: int
    registration: Registration
    first_factor: FirstFactor
    second_factor: SecondFactor
    remember_device_days: int
    end_sessions_on_contact_change: bool
    require_contact: bool


@dataclass(frozen=True, slots=True)
class _Rule:
    """The values a key may take, from the loosest to the strictest, and the one that holds without an override.

    `default` None: the operator's ceiling itself holds.
    """

    choices: range | tuple[object, ...]
    default: object = None

    def admits(self, value: object) -> bool:
        # By type as well: in Python True == 1 and 1.0 == 1, but in JSON they are different things.
        return type(value) is type(self.choices[0]) and value in self.choices

    def stricter(self, one: object, other: object) -> object:
        """Of two values the one nearer to the strict end; one out of range counts as the end it is beyond."""
        return max(one, other, key=self._strictness)

    def _strictness(self, value: Any) -> float:
        if isinstance(self.choices, range):
            return float(value * self.choices.step)
        return self.choices.index(value)

    def __str__(self) -> str:
        if isinstance(self.choices, range):
            low, high = sorted((self.choices[0], self.choices[-1]))
            return f"a whole number from {low} to {high}"
        names = [str(choice).lower() for choice in self.choices]
        return f"{', '.join(names[:-1])} or {names[-1]}"


def _at_most(high: int, *, low: int, default: int | None = None) -> _Rule:
    """The smaller, the stricter."""
    return _Rule(range(high, low - 1, -1), default)


def _at_least(low: int, *, high: int) -> _Rule:
    """The larger, the stricter."""
    return _Rule(range(low, high + 1))


_RULES: Final = {
    "code_length": _Rule((6, 8)),
    "code_ttl_seconds": _at_most(600, low=60),
    "max_attempts": _at_most(5, low=1),
    "hourly_limit": _at_most(10, low=1),
    "per_minute_limit": _at_most(10, low=1),
    "resend_cooldown_seconds": _at_least(0, high=300),
    # NIST SP 800-63B-4, section 3.2.2: no more than 100 failures in a row.
    "lock_after_failures": _at_most(100, low=1),
    "registration": _Rule(("open", "invite", "closed"), default="closed"),
    # A password comes before the code and not instead of it, so it adds to what must be known.
    "first_factor": _Rule(("code", "password"), default="code"),
    "second_factor": _Rule(("off", "optional", "required"), default="optional"),
    "remember_device_days": _at_most(90, low=0, default=0),
    "end_sessions_on_contact_change": _Rule((False, True), default=True),
    "require_contact": _Rule((False, True), default=False),
}
POLICY_KEYS: Final = tuple(_RULES)


def pointer(*keys: str) -> str:
    """The JSON Pointer to a member, whatever characters its name has (RFC 6901, section 3)."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def operator_policy(
    *,
    code_length: int,
    code_ttl_seconds: int,
    max_attempts: int,
    hourly_limit: int,
    resend_cooldown_seconds: int,
) -> Policy:
    """The operator's ceiling. Keys that no setting speaks of have their loosest value."""
    loosest: dict[str, Any] = {key: rule.choices[0] for key, rule in _RULES.items()}
    given = {
        "code_length": code_length,
        "code_ttl_seconds": code_ttl_seconds,
        "max_attempts": max_attempts,
        "hourly_limit": hourly_limit,
        "resend_cooldown_seconds": resend_cooldown_seconds,
    }
    return Policy(**(loosest | given))


def effective_policy(ceiling: Policy, overrides: Mapping[str, object]) -> Policy:
    """What holds for a tenant with these overrides (as `parse_policy` returns them; None is no override)."""
    effective: dict[str, Any] = {}
    for key, rule in _RULES.items():
        limit = getattr(ceiling, key)
        wish = overrides.get(key)
        if wish is None:
            wish = rule.default
        effective[key] = limit if wish is None else rule.stricter(limit, wish)
    return Policy(**effective)


def parse_policy(overrides: Mapping[str, object]) -> dict[str, object]:
    """Overrides as they came in JSON, checked; None stays, and means: clear this key.

    Raises InvalidRequest with every fault, pointing at `/policy/<key>`.
    """
    faults = []
    for key, value in overrides.items():
        if key not in _RULES:
            known = ", ".join(_RULES)
            faults.append(FieldError(pointer("policy", key), f"There is no such policy; known are {known}."))
        elif value is not None and not _RULES[key].admits(value):
            faults.append(FieldError(pointer("policy", key), f"{key} must be {_RULES[key]}."))
    if faults:
        raise InvalidRequest(*faults)
    return dict(overrides)


def merge_policy(current: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """The overrides after a change: None takes a key out (RFC 7396), what isn't named stays."""
    merged = {**current, **changes}
    return {key: merged[key] for key in _RULES if merged.get(key) is not None}


def parse_policy_assignments(assignments: Iterable[str]) -> dict[str, object]:
    """`max_attempts=3` from a command line, checked like `parse_policy`; `hourly_limit=` clears (None).

    Raises InvalidRequest with every fault.
    """
    overrides: dict[str, object] = {}
    malformed = []
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if separator:
            overrides[key.strip()] = _from_text(text.strip())
        else:
            malformed.append(FieldError("/policy", f"{assignment!r} is not KEY=VALUE."))
    try:
        parsed = parse_policy(overrides)
    except InvalidRequest as error:
        raise InvalidRequest(*malformed, *error.errors) from None
    if malformed:
        raise InvalidRequest(*malformed)
    return parsed


def _from_text(text: str) -> object:
    """No policy takes a number or a truth value as text, so the text alone tells the type."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    return {"": None, "true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text)
