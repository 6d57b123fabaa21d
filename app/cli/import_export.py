"""`gatehouse tenant import` and `gatehouse tenant export`."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import BinaryIO, Final

import click

from app.cli.output import one_line, print_json
from app.cli.services import OPERATOR, SHELL, Services, with_services
from app.errors import FieldError, InvalidRequest
from app.sheets import BOM, SIZE_LIMIT
from app.tenants.import_export import Format, Report
from app.tenants.search import Filters
from app.tenants.table import MOST_TOLD, FileRow, read_csv, read_json_lines

_FAILED: Final = 1
# As click names it.
_STDOUT: Final = "<stdout>"
_READERS: Final = {"csv": read_csv, "jsonl": read_json_lines}
_BY_SUFFIX: Final[dict[str, Format]] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_format_option = click.option(
    "--format", "format_", type=click.Choice(list(_READERS)), help="Otherwise the file's name tells, else csv."
)


@click.command("import")
@click.argument("file", type=click.File("rb"))
@_format_option
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and list every fault.")
@click.option("--as-is", is_flag=True, help="Take text as it is that looks wrongly decoded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_(file: BinaryIO, format_: Format | None, dry_run: bool, as_is: bool, as_json: bool) -> int:
    """Add and change tenants from a CSV or JSON Lines FILE, all or nothing; - reads stdin.

    The header of a CSV has the fields' names: slug, name, email, phone_number, otp_delivery_method, fallback_methods,
    locale, timezone, policy. An empty cell clears. A dry run with faults ends with exit code 1.
    """
    # One byte more than is allowed is enough to refuse it.
    body = file.read(SIZE_LIMIT + 1)
    read = _READERS[format_ or _format_of(file.name)]
    report = with_services(lambda s: _import(s, read(body, as_is=as_is), dry_run=dry_run))
    if as_json:
        print_json(_as_json(report))
    else:
        _show(report)
    return _FAILED if report.faults else 0


@click.command("export")
@click.argument("file", type=click.File("wb", atomic=True), default="-")
@_format_option
@click.option("--search", default="", help="Part of a name, slug, email or phone number.")
@click.option("--status", help="active or suspended.")
@click.option("--method", help="email, sms, whatsapp or push.")
@click.option("--contact-missing", is_flag=True, default=None, help="Only those no code can be sent to.")
@click.option("--failing", is_flag=True, default=None, help="Only those whose contact a provider called bad.")
def export(
    file: BinaryIO,
    format_: Format | None,
    search: str,
    status: str | None,
    method: str | None,
    contact_missing: bool | None,
    failing: bool | None,
) -> None:
    """Write tenants as CSV or JSON Lines to FILE, or to stdout. What was exported can be imported again.

    A CSV file begins with a byte order mark, for spreadsheets; stdout, for programs, doesn't.
    """
    filters = Filters(
        contacts=True,
        search=search,
        status=status,
        method=method,
        contact_missing=contact_missing,
        failing=failing,
    )
    form = format_ or _format_of(file.name)

    async def work(services: Services) -> None:
        chunks = await services.files.export(filters, form, actor=OPERATOR, client=SHELL)
        if form == "csv" and file.name != _STDOUT:
            file.write(BOM)
        async for chunk in chunks:
            file.write(chunk)

    with_services(work)


async def _import(services: Services, rows: Iterator[FileRow], *, dry_run: bool) -> Report:
    if dry_run:
        return await services.files.check(rows)
    try:
        return await services.files.load(rows, actor=OPERATOR, client=SHELL)
    except InvalidRequest as error:
        raise _first_fault(error) from None


def _first_fault(error: InvalidRequest) -> InvalidRequest:
    """One line about a file that may have thousands of faults."""
    first, *others = error.errors
    if not others:
        return InvalidRequest(first)
    detail = f"{first.detail} {len(others)} more faults: --dry-run lists them. Nothing was imported."
    return InvalidRequest(FieldError(first.pointer, detail))


def _format_of(name: str) -> Format:
    return _BY_SUFFIX.get(PurePath(str(name)).suffix.lower(), "csv")


def _show(report: Report) -> None:
    for fault in report.faults:
        print(f"row {fault.row}: {f'{fault.field}: ' if fault.field else ''}{one_line(fault.detail)}")
    if len(report.faults) == MOST_TOLD:
        print(f"These are the first {MOST_TOLD} faults.")
    counts = ", ".join(f"{count} {outcome}" for outcome, count in report.counts.items() if count) or "no rows"
    print(f"{'Imported' if report.applied else 'Nothing was imported. It would be'}: {counts}.")


def _as_json(report: Report) -> dict[str, object]:
    return {
        "applied": report.applied,
        **report.counts,
        "rows": [
            {"row": row.number, "slug": row.slug, "outcome": row.outcome, "fields": list(row.fields)}
            for row in report.rows
        ],
        "errors": [{"row": fault.row, "field": fault.field, "detail": fault.detail} for fault in report.faults],
    }
