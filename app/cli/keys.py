"""`gatehouse keys …`."""

from collections.abc import Sequence
from typing import Final

import click

from app.auth.rotation import KeyUse, key_uses, reencrypt
from app.cli.output import print_json, print_table, warn
from app.cli.services import Services, now, with_services
from app.errors import FieldError, InvalidRequest
from app.keys import KeyRing

_FAILED: Final = 1


@click.group()
def keys() -> None:
    """The secrets that everything is signed, hashed and encrypted with."""


@keys.command()
@click.option("--drop", "drops", multiple=True, metavar="ID", help="Ask whether a key may go; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rotate(drops: Sequence[str], as_json: bool) -> int:
    """Bring what is encrypted under the first secret, and tell which of the others are still needed.

    To change the secret: add the new one last in SECRET_KEYS on every process and restart, then put it first and
    restart again. From then on it signs, and this command tells when an old one may go. Exit code 1 when a key is
    missing that is needed, or one to be dropped is in use.
    """
    changed, uses = with_services(_rotate)
    _check_ids(drops, uses)
    if as_json:
        print_json({"reencrypted": changed, "keys": [_as_json(use) for use in uses]})
    else:
        print_table(["key", "state", "needed by"], map(_row, uses))
        print(f"Encrypted anew: {changed}.")
    return max((_verdict(use, dropped=use.key_id in drops) for use in uses), default=0)


async def _rotate(services: Services) -> tuple[int, Sequence[KeyUse]]:
    ring = KeyRing(services.settings.secret_keys)
    changed = await reencrypt(services.db, ring)
    return changed, await key_uses(services.db, ring, now())


def _check_ids(drops: Sequence[str], uses: Sequence[KeyUse]) -> None:
    unknown = set(drops) - {use.key_id for use in uses if use.present}
    if unknown:
        raise InvalidRequest(FieldError("/drop", f"There is no key {', '.join(sorted(unknown))} in SECRET_KEYS."))


def _verdict(use: KeyUse, *, dropped: bool) -> int:
    if not use.present:
        warn(f"The key {use.key_id} is needed but not in SECRET_KEYS: add its secret back as the last one.")
        return _FAILED
    if dropped and use.first:
        warn(f"The key {use.key_id} can't go: it is the first one, which signs. Put another one first.")
        return _FAILED
    if dropped and use.uses:
        warn(f"The key {use.key_id} can't go yet: it is needed by {_needed_by(use)}.")
        return _FAILED
    if dropped:
        warn(f"Nothing needs the key {use.key_id}: take its secret out of SECRET_KEYS.")
    return 0


def _row(use: KeyUse) -> list[object]:
    return [use.key_id, _state(use), _needed_by(use)]


def _state(use: KeyUse) -> str:
    if not use.present:
        return "missing"
    return "first" if use.first else "verifies"


def _needed_by(use: KeyUse) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in use.uses.items())


def _as_json(use: KeyUse) -> dict[str, object]:
    return {"id": use.key_id, "state": _state(use), "needed_by": dict(use.uses)}
