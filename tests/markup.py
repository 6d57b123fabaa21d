"""Whether a page is HTML as the standard has it, as far as templates get it wrong: nesting, ids, references.

`PAGES=directory` in the environment keeps each page that is looked at, for a full validator to read (vnu).
"""

import os
import re
from collections import Counter
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Final


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_VOID: Final = _tags("area base br col embed hr img input link meta source track wbr")
_BLOCKS: Final = _tags(
    "address article aside blockquote details dialog div dl fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr "
    "main nav ol p pre section table ul"
)
_PHRASES_ONLY: Final = _tags("b button code dt em h1 h2 h3 h4 h5 h6 i kbd label p small span strong time")
_CHILDREN: Final = {
    "ul": {"li"},
    "ol": {"li"},
    "dl": {"div", "dt", "dd"},
    "table": {"caption", "colgroup", "thead", "tbody", "tfoot", "tr"},
    "tr": {"th", "td"},
    "select": {"option", "optgroup", "hr"},
}
# At most milliseconds: HTML standard, 2.3.5.7.
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:\d\d)")
_REFERENCES: Final = ("for", "aria-labelledby", "aria-describedby", "aria-controls")


def faults(html: str) -> list[str]:
    """One sentence for each fault; an empty list is a pass."""
    if directory := os.environ.get("PAGES"):
        Path(directory, f"{sha256(html.encode()).hexdigest()[:16]}.html").write_text(html, encoding="utf-8")
    page = _Page()
    page.feed(html)
    page.close()
    found = page.faults + [f"<{tag}> is never closed" for tag in page.open]
    found += [f"id {name} is there {times} times" for name, times in page.ids.items() if times > 1]
    found += [f"{attribute} names {name}, which isn't there" for attribute, name in page.named if name not in page.ids]
    return found


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.ids: Counter[str] = Counter()
        self.named: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        parent = self.open[-1] if self.open else ""
        if parent in _CHILDREN and tag not in _CHILDREN[parent]:
            self.faults.append(f"<{tag}> directly in <{parent}>")
        # Inside an SVG other rules hold.
        if tag in _BLOCKS and "svg" not in self.open:
            self.faults += [f"<{tag}> in <{outer}>" for outer in self.open if outer in _PHRASES_ONLY]
        if tag in {"a", "button"}:
            self.faults += [f"<{tag}> in <{outer}>" for outer in self.open if outer in {"a", "button"}]
        doubled = [name for name, times in Counter(name for name, _ in attrs).items() if times > 1]
        self.faults += [f"<{tag}> has {name} twice" for name in doubled]
        for name, value in attrs:
            if name == "datetime" and not _MOMENT.fullmatch(value or ""):
                self.faults.append(f"{value} is no moment that HTML knows")
            elif name == "id":
                self.ids[value or ""] += 1
            elif name in _REFERENCES:
                self.named += [(name, part) for part in (value or "").split()]
            elif name == "href" and (value or "").startswith("#"):
                self.named.append((name, (value or "")[1:]))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID or not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes <{self.open[-1] if self.open else 'nothing'}>")
        if tag in self.open:
            while self.open.pop() != tag:
                pass
