"""Notices of a changed contact, which go to the old and the new address: one line of the story for each change."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from app.audit.story import BY, CONTACT_OF, Happening

_WENT_OUT: Final = frozenset({"delivery.sent", "delivery.delivered"})


def gather(happenings: Sequence[Happening]) -> list[Happening]:
    """The same story, newest first, where one `notice.told` stands for all notices of a change that went out.

    It has the moment of the newest of them; its data says `to` whom, as the change has the addresses, masked. What
    didn't go out stays as it is, and so does a notice whose change isn't among the happenings.
    """
    changes = _changes(happenings)
    story, told = [], set()
    for place, happening in enumerate(happenings):
        change = changes.get(place)
        if change is None:
            story.append(happening)
        elif change not in told:
            told.add(change)
            notices = [happenings[notice] for notice, of in changes.items() if of == change]
            story.append(replace(happening, what="notice.told", data={"to": list(_to(notices, happenings[change]))}))
    return story


def _changes(happenings: Iterable[Happening]) -> dict[int, int]:
    """By the place of each notice that went out, the place of the change that it tells of: the last before it."""
    found: dict[int, int] = {}
    waiting: list[tuple[int, str]] = []
    for place, happening in enumerate(happenings):
        if happening.kind == "notice" and happening.what in _WENT_OUT:
            waiting.append((place, CONTACT_OF.get(happening.channel or "", "")))
        elif happening.what == "tenant.changed":
            changed = {change["field"] for change in happening.data.get("changes", ())}
            found |= {notice: place for notice, field in waiting if field in changed}
            waiting = [(notice, field) for notice, field in waiting if field not in changed]
    return found


def _to(notices: Iterable[Happening], change: Happening) -> Iterable[str]:
    """Who was told, by channel. Which of two addresses a notice went to is not kept, so only both are named."""
    sent = Counter(notice.channel or "" for notice in notices if notice.what == "delivery.sent")
    for channel, count in sent.items():
        (changed,) = [c for c in change.data["changes"] if c["field"] == CONTACT_OF[channel]]
        addresses = [address for address in (changed["before"], changed["after"]) if address]
        whom = " and ".join(addresses) if count >= len(addresses) else f"{count} of {len(addresses)} addresses"
        yield f"{whom} {BY[channel]}"
