"""Words that tenants write themselves, with `{{ names }}` in them. Pure.

They are templates of Jinja2's sandbox, and only of its smallest part: text and plain names. No calls, attributes,
filters or loops, so there is nothing to break out with and nothing that takes long.
"""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

_ENVIRONMENT: Final = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_ALLOWED: Final = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name)


def check(source: str, *, names: Collection[str], needed: str | None = None) -> None:
    """Raises `ValueError`, with a sentence for whoever wrote it, unless this is text with some of `names` in it.

    `needed` must be there, once.
    """
    spelled = ", ".join(f"{{{{ {name} }}}}" for name in names)
    try:
        parsed = _ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"This can't be read: {error.message} Placeholders are {spelled}.") from None
    if not all(isinstance(node, _ALLOWED) for node in [parsed, *parsed.find_all(nodes.Node)]):
        raise ValueError(f"Only text and {spelled} are allowed here.")
    used = [node.name for node in parsed.find_all(nodes.Name)]
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
