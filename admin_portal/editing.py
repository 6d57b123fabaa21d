"""Editing in place, alike for tenants and members: what a form says it showed, and what two people changed at once.

A form sends each field as it was shown (`before_*`) beside what was typed: so a real conflict can be told from a change
of something else, and drawn with yours, theirs and before.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from admin_portal.views import actor
from app.errors import InvalidRequest
from app.tenants.history import Change
from app.web.forms import Form

# How many changes back somebody is looked for who changed the same; further back nobody leaves a form open.
LOOK_BACK: Final = 50


def version_of(form: Form) -> int:
    """The version that the form showed. Raises `InvalidRequest`: saving without it could undo anybody's change."""
    text = form.get("version", "")
    if not (text.isascii() and text.isdigit() and len(text) < len(str(2**31))):
        raise InvalidRequest(detail="The page was not complete. Load it again.")
    return int(text)


def plain(value: Any) -> str:
    """A field as a form sends it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(value)
    return value or ""


def untouched(stored: object, form: Form, names: Iterable[str]) -> bool:
    """Whether the fields still are as this form showed them."""
    return all(form.get(f"before_{name}") == plain(getattr(stored, name)) for name in names)


def theirs(changes: Iterable[Change], stored: Any, form: Form, names: Iterable[str]) -> dict[str, object]:
    """Who changed what this form shows otherwise, and when, for the same page; `changes` are newest first.

    Others may have changed other fields since, and have nothing to do with it.
    """
    contested = {name for name in names if not untouched(stored, form, [name])}
    found = next((c for c in changes if not contested.isdisjoint(part["field"] for part in c.changes)), None)
    return {
        "theirs_by": actor(found) if found else "Somebody",
        "theirs_at": found.at if found else stored.updated_at,
    }


def conflicting(
    stored: object, form: Form, typed: Mapping[str, Any], names: Iterable[str], labels: Mapping[str, str]
) -> Sequence[dict[str, str]]:
    """The fields for the page that asks which of two changes shall be."""
    return [
        {
            "name": name,
            "label": labels[name],
            "before": form.get(f"before_{name}", ""),
            "theirs": plain(getattr(stored, name)),
            "yours": plain(typed[name]),
        }
        for name in names
    ]
