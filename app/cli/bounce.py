"""`gatehouse bounce`: what a mail server pipes a returned mail to. Its exit code is for that server.

0   read, or nothing we could do anything about: it must not come back
75  the database is away (EX_TEMPFAIL of sysexits.h): the server keeps the mail and tries again
"""

import sys
from typing import BinaryIO, Final

import click

from app.cli.output import warn
from app.cli.services import Services, now, with_services
from app.delivery.bounces import MAX_BYTES, NotABounce, read
from app.delivery.callbacks.posted import Report
from app.delivery.callbacks.reports import Reports
from app.delivery.providers.smtp import Smtp
from app.errors import GatehouseError

_TRY_AGAIN: Final = 75


@click.command()
def bounce() -> int:
    """Read one bounce (a delivery status notification) from standard input.

    Whatever is no bounce of a mail we sent is ignored.
    """
    try:
        report = read(_whole(sys.stdin.buffer))
    except NotABounce as error:
        warn(f"The mail is ignored: {error}.")
        return 0
    if report is None:
        return 0
    try:
        with_services(lambda services: _write(services, report))
    except GatehouseError as error:
        # Settings included: whoever repairs them finds the mail still there, instead of returned to its sender.
        warn(f"The bounce can't be written down now, to be tried again: {error.detail}")
        return _TRY_AGAIN
    return 0


async def _write(services: Services, report: Report) -> None:
    # The worker finds by itself what goes on by another channel, within a second.
    reports = Reports(services.db, services.settings.providers, now, wake_worker=lambda: None)
    await reports.write(Smtp.name, report)


def _whole(mail: BinaryIO) -> bytes:
    """All that is needed to judge it. Read to its end: some servers take a closed pipe for a failure."""
    kept = mail.read(MAX_BYTES + 1)
    while mail.read(MAX_BYTES):
        pass
    return kept
