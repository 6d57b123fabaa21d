"""What was refused before anybody was known, by tenant, address and hour: read by staff. `app.auth.door` counts it."""

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.audit.listing import Page
from app.cursors import Moment, Number, read_cursor, show_cursor
from app.errors import FieldError, InvalidRequest
from app.storage.db import Database

# What is limited together, and what those see who may not see contacts (`app.masking.mask_ip`).
_NETWORKS: Final = {4: 32, 6: 64}
_MASKED: Final = {4: 24, 6: 48}

# Every reason that is counted, in the words of somebody who does support.
REASONS: Final = {
    "address": "Too many codes asked for from one network",
    "unknown-name": "Code asked for at a name that nobody has",
    "malformed-name": "Code asked for at what can't be a name",
    "password-flood": "Too many passwords to check at once",
    "checks": "Too many codes and links entered from one network",
    "status": "State of codes asked for too often from one network",
    "refresh": "Too many sessions renewed from one network",
    "pages": "Too many pages opened from one network",
    "logos": "Too many logos loaded from one network",
    "callbacks": "Too many reports from one provider's network",
    "bad-keys": "Too many API keys that aren't valid from one network",
    "api-key": "One API key used too often",
}

_LIST: Final = """
SELECT d.id, d.hour, d.reason, nullif(d.network, '::/0') AS network, t.slug AS tenant, nullif(d.slug, '') AS name,
       d.count, d.first_at, d.last_at
FROM door_refusals d LEFT JOIN tenants t ON t.id = d.tenant_id
WHERE ($1::text IS NULL OR t.slug = $1 OR d.slug = $1)
  AND ($2::text IS NULL OR d.network <<= $2::text::inet)
  AND ($3::text IS NULL OR d.reason = $3)
  AND ($4::timestamptz IS NULL OR d.last_at >= $4 AND d.hour > $4 - interval '1 hour')
  AND ($5::timestamptz IS NULL OR d.first_at < $5 AND d.hour < $5)
  AND ($6::timestamptz IS NULL OR (d.hour, d.id) < ($6, $7))
ORDER BY d.hour DESC, d.id DESC LIMIT $8
"""


@dataclass(frozen=True, slots=True)
class RefusedFilters:
    """Which ones: of a tenant's slug, or of a name that nobody has; from an address or a network; for one reason;
    between `start` and `end`. Without `exact` an address stands for its whole masked network.
    """

    slug: str | None = None
    address: str | None = None
    reason: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    exact: bool = False


async def read_refused(db: Database, filters: RefusedFilters, *, cursor: str | None, limit: int) -> Page:
    """A page of counters, the newest hour first. Raises `InvalidRequest` for what is no address, reason or cursor of
    this list, and `Unavailable`.
    """
    if filters.reason is not None and filters.reason not in REASONS:
        raise InvalidRequest(FieldError("/reason", f"Name one of {', '.join(REASONS)}."))
    network = None if filters.address is None else _network(filters.address, _NETWORKS if filters.exact else _MASKED)
    hour, number = (None, None) if cursor is None else read_cursor(cursor, tuple[Moment, Number])
    asked = (filters.slug, network, filters.reason, filters.start, filters.end)
    async with db.every_tenant() as connection:
        rows = await connection.fetch(_LIST, *asked, hour, number, limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(rows[:limit], show_cursor((last["hour"], last["id"])) if last else None)


def _network(text: str, longest: dict[int, int]) -> str:
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise InvalidRequest(
            FieldError("/address", "This is no address and no network, such as 203.0.113.9 or 203.0.113.0/24.")
        ) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None:
        network = ipaddress.ip_network(mapped)
    length = longest[network.version]
    return str(network.supernet(new_prefix=length) if network.prefixlen > length else network)
