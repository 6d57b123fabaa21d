"""Tries of one message: one line of the story for all that one provider put off for one reason. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from app.audit.story import Happening

_OVER: Final = frozenset(
    {"delivery.sent", "delivery.delivered", "delivery.failed", "delivery.expired", "delivery.void"}
)


def fold(happenings: Sequence[Happening]) -> list[Happening]:
    """The same story, newest first, where the last of several tries stands for all of them.

    Its data says how many `tries` there were, `since` when, and whether the message is `over`: nothing is tried any
    more.
    """
    over = {h.message for h in happenings if h.what in _OVER and h.message}
    tries: dict[object, list[Happening]] = {}
    for happening in happenings:
        if key := _key(happening):
            tries.setdefault(key, []).append(happening)
    story = []
    for happening in happenings:
        same = tries.get(_key(happening))
        if same is None:
            story.append(happening)
        elif happening is same[0]:
            told: dict[str, object] = {"over": happening.message in over}
            if len(same) > 1:
                told |= {"tries": len(same), "since": same[-1].at}
            story.append(replace(happening, data=told))
    return story


def _key(happening: Happening) -> object:
    """What tries have in common; None for everything else."""
    if happening.what != "delivery.queued" or happening.message is None or happening.provider is None:
        return None
    return happening.message, happening.provider, happening.error_class
