"""Words that tenants write themselves, with `{{ names }}` in them. Pure.

They are filled in by Jinja2's sandbox, but only what `check` let through: text and plain names. It reads them by one
regular expression instead of Jinja's parser, which goes a level deeper for each bracket and so can be made to fail.
No calls, attributes, filters or loops: there is nothing to break out with and nothing that takes long.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

_ENVIRONMENT: Final = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_PLACEHOLDER: Final = re.compile(r"\{\{-?\s*([A-Za-z_][A-Za-z0-9_]*)\s*-?\}\}")
_FILLED: Final = "\0"  # no text has one
# What begins something else in Jinja's eyes: an expression (also with a brace before a placeholder), a statement, a
# comment.
_BEGINNINGS: Final = re.compile(r"\{[{%#\0]")


def check(source: str, *, names: Collection[str], needed: str | None = None) -> None:
    """Raises `ValueError`, with a sentence for whoever wrote it, unless this is text with some of `names` in it.

    `needed` must be there, once. Takes time in proportion to the length, whatever is in it.
    """
    spelled = ", ".join(f"{{{{ {name} }}}}" for name in names)
    rest = _PLACEHOLDER.sub(_FILLED, source)
    if begun := _BEGINNINGS.search(rest):
        if begun[0] == "{{" and "}}" not in rest[begun.start() :]:
            raise ValueError(f"This can't be read: a {{{{ has no }}}}. Placeholders are {spelled}.")
        raise ValueError(f"Only text and {spelled} are allowed here.")
    used = _PLACEHOLDER.findall(source)
    if unknown := next((name for name in used if name not in names), None):
        raise ValueError(f"There is no placeholder {unknown}; there are {spelled}.")
    if needed is not None and used.count(needed) != 1:
        raise ValueError(f"{{{{ {needed} }}}} must be in it, once.")


def fill(source: str, values: Mapping[str, object]) -> str:
    """The words with the values put in, unescaped. The source has passed `check`."""
    return _compiled(source).render(values)


@lru_cache(maxsize=512)
def _compiled(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)
