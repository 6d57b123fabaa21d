"""Known devices: a client that has signed in before keeps a signed token and gets a quota lane of its own.

A stranger who burns a recipient's hourly codes then keeps no known device out. The token proves nothing about who
holds it beyond that: it opens no session. It is signed for one slug and until the end of its device's life, which its
id tells; elsewhere and later its holder is a stranger. Pure functions; whose device it is, and whether it still counts,
is the database's to say, and until then it lifts no limit (`limits.Admission`).
"""

import hmac
import secrets
import struct
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from app.keys import KeyRing, Keys, base64url, keyed_hash

LIFETIME: Final = timedelta(days=180)

# RFC 9562: a UUID of this version begins with its time, 48 bits of milliseconds.
_BY_TIME: Final = 7
_LAYOUT: Final = struct.Struct(">16s16s6s32s")
_PREFIX: Final = "ghd_"


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """What a device token names. Whether it still counts is the database's to say."""

    tenant_id: UUID
    device_id: UUID


def new_device_id(now: datetime) -> UUID:
    """Random, and tells when it was made: with it the token that names it carries its end."""
    milliseconds = int(now.timestamp() * 1000)
    bits = milliseconds << 80 | _BY_TIME << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return UUID(int=bits)


def _expired(device_id: UUID, now: datetime) -> bool:
    """False for an id of before, which doesn't tell: such a device counts as long as its row says."""
    if device_id.version != _BY_TIME:
        return False
    made = datetime.fromtimestamp((device_id.int >> 80) / 1000, UTC)
    return now >= made + LIFETIME


def device_token(keys: Keys, slug: str, tenant_id: UUID, device_id: UUID) -> str:
    """The signed token of a device: computed, so nothing of it is stored."""
    mac = _mac(keys, slug, tenant_id, device_id)
    packed = _LAYOUT.pack(tenant_id.bytes, device_id.bytes, bytes.fromhex(keys.id), mac)
    return _PREFIX + base64url(packed)


def read_device_token(ring: KeyRing, slug: str, token: str | None, now: datetime) -> KnownDevice | None:
    """The device a token names, or None for anything we didn't sign for this slug and this time: a stranger is no
    error.
    """
    if token is None or not token.startswith(_PREFIX) or not token.isascii():
        return None
    body = token.removeprefix(_PREFIX)
    try:
        tenant, device, key_id, mac = _LAYOUT.unpack(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, struct.error):
        return None
    keys = ring.find(key_id.hex())
    known = KnownDevice(UUID(bytes=tenant), UUID(bytes=device))
    if keys is None or not hmac.compare_digest(mac, _mac(keys, slug, known.tenant_id, known.device_id)):
        return None
    return None if _expired(known.device_id, now) else known


def _mac(keys: Keys, slug: str, tenant_id: UUID, device_id: UUID) -> bytes:
    return keyed_hash(keys.cookie, "device", slug.encode(), tenant_id.bytes, device_id.bytes)
