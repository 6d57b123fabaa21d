"""CSV as spreadsheets read and write it (RFC 4180 is one of many ways). Pure: bytes in, rows out, and back.

Rows are read one by one, each bounded before it is kept: what others send costs little more memory than its bytes.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TextIO

from app.errors import FieldError, InvalidRequest, PayloadTooLarge

SIZE_LIMIT: Final = 10 * 1024 * 1024
# So that spreadsheets see UTF-8.
BOM: Final = "\ufeff".encode()

_LONGEST_ROW: Final = 64 * 1024
# As many as a spreadsheet has, empty ones included.
_MOST_RECORDS: Final = 1_048_576
_ENCODINGS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_SEPARATOR: Final = re.compile(r'"?sep=(?P<mark>[,;\t|])"?\s*', re.IGNORECASE)
_BETWEEN_WORDS: Final = re.compile(r"[\s_-]+")
# What a spreadsheet takes for a formula (OWASP, "CSV injection"). Quoted even where it was quoted before: so a text
# that begins with a quote comes back as it was.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_BEYOND_ASCII: Final = re.compile("[^\0-\x7f]{2,}")
_FOREIGN: Final = ("mac_roman", "cp850", "cp437")
# What Western text has beyond ASCII. A single sign of any other script can be a coincidence, two can't.
_WESTERN: Final = re.compile("[\u00a0-\u017f\u2010-\u203a\u20ac\u2122]+")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A header as fields' names, and the rows below it that aren't empty, numbered as a spreadsheet does."""

    number: int
    names: Sequence[str]
    rows: Iterator[tuple[int, Sequence[str]]]


def read(body: bytes) -> Sheet:
    """UTF-8 or UTF-16; cells between commas, semicolons or tabs, or what a `sep=` line names.

    Empty rows, and empty cells beyond the header, count for nothing. Raises `PayloadTooLarge`, and `InvalidRequest`,
    also while rows are read, for what is no such file.
    """
    rows = _rows(body)
    number, names = next(rows, (1, []))
    names = [_BETWEEN_WORDS.sub("_", name.strip().lower()) for name in names]
    while names and not names[-1]:
        names.pop()
    return Sheet(number, names, ((row, _fitted(cells, len(names))) for row, cells in rows))


def lines(body: bytes) -> Iterator[tuple[int, str | None]]:
    """The numbered lines of a text file that aren't empty; None stands for one that is too long. Raises as `read`."""
    text = _text(body)
    number, whole = 0, True
    while line := _line(text):
        number += whole
        ended = line.endswith(("\n", "\r"))
        if not whole:
            whole = ended
        elif ended or len(line) <= _LONGEST_ROW:
            if line.strip():
                yield number, line
        else:
            whole = False
            yield number, None
        if number > _MOST_RECORDS:
            raise _too_many()


def write(rows: Sequence[Sequence[str]]) -> bytes:
    """Rows as bytes, without a byte order mark."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def guarded(text: str) -> str:
    """The text so that no spreadsheet takes it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """The reverse."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def doubt(text: str) -> str | None:
    """What to ask about text that was written in one encoding and read in another; None where it looks right."""
    if text.isascii():
        return None
    if "\ufffd" in text:
        return "Characters of this text were lost (\ufffd) before it came here."
    meant = _BEYOND_ASCII.sub(lambda run: _meant(run[0]), text)
    return f"This text was decoded wrongly somewhere: is “{meant}” meant?" if meant != text else None


def _meant(run: str) -> str:
    # Windows-1252 with the bytes that have no sign in it.
    written = [b"".join(bytes([ord(c)]) if ord(c) < 256 else c.encode("cp1252", "replace") for c in run)]  # noqa: PLR2004
    for encoding in _FOREIGN:
        with suppress(UnicodeEncodeError):
            written.append(run.encode(encoding))
    for raw in written:
        with suppress(UnicodeDecodeError):
            meant = raw.decode()
            if not meant.isascii() and (len(meant) > 1 or _WESTERN.fullmatch(meant) or len(raw) > 2):  # noqa: PLR2004
                return meant
    return run


def _rows(body: bytes) -> Iterator[tuple[int, list[str]]]:
    text = _text(body)
    head, number, taken = _line(text), 0, 0
    separator = _SEPARATOR.fullmatch(head)
    if separator:
        head = _line(text)
    while head and not head.strip() and number < _MOST_RECORDS:
        head, number = _line(text), number + 1
    mark = separator["mark"] if separator else max(",;\t", key=head.count)

    def fed() -> Iterator[str]:
        nonlocal taken
        line = head
        while line:
            taken += len(line)
            if taken > _LONGEST_ROW:
                detail = f"This row is longer than {_LONGEST_ROW // 1024} KiB; a quote may be missing its pair."
                raise InvalidRequest(FieldError(f"/{number + 1}", detail))
            yield line
            line = _line(text)

    records = csv.reader(fed(), delimiter=mark, strict=True)
    try:
        for cells in records:
            number, taken = number + 1, 0
            if number > _MOST_RECORDS:
                raise _too_many()
            if any(map(str.strip, cells)):
                yield number, cells
    except csv.Error as error:
        raise InvalidRequest(FieldError(f"/{number + 1}", f"This is not CSV: {error}.")) from None


def _fitted(cells: list[str], width: int) -> Sequence[str]:
    while len(cells) > width and not cells[-1].strip():
        cells.pop()
    return cells


def _text(body: bytes) -> TextIO:
    if len(body) > SIZE_LIMIT:
        raise PayloadTooLarge(f"A file has at most {SIZE_LIMIT // 2**20} MiB.")
    return io.TextIOWrapper(io.BytesIO(body), _encoding(body[:4]), newline="")


def _encoding(start: bytes) -> str:
    for mark, encoding in _ENCODINGS:
        if start.startswith(mark):
            return encoding
    # A header is ASCII: every other byte of it is zero.
    if len(start) > 1 and not start[1] and start[0]:
        return "utf-16-le"
    return "utf-16-be" if len(start) > 1 and not start[0] and start[1] else "utf-8"


def _line(text: TextIO) -> str:
    try:
        return text.readline(_LONGEST_ROW + 1)
    except UnicodeDecodeError:
        raise InvalidRequest(FieldError("", "The file is not in UTF-8. Save it as “CSV UTF-8”.")) from None


def _too_many() -> PayloadTooLarge:
    return PayloadTooLarge(f"A file has at most {_MOST_RECORDS:,} rows, empty ones included.")
