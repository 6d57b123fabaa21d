"""Known devices: a client that has signed in before keeps a signed token and gets a quota lane of its own.

A stranger who burns a recipient's hourly codes then keeps no known device out. The token proves nothing about who
holds it beyond that: it opens no session. It is signed for one slug: elsewhere its holder is a stranger, so that
devices collected at one tenant don't lift the limit of an address for all the others. Pure functions; which devices
still count is the database's to say.
"""

import hmac
import struct
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from app.keys import KeyRing, Keys, base64url, keyed_hash

LIFETIME: Final = timedelta(days=180)

_LAYOUT: Final = struct.Struct(">16s16s6s32s")
_PREFIX: Final = "ghd_"


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """What a device token names. Whether it still counts is the database's to say."""

    tenant_id: UUID
    device_id: UUID


def device_token(keys: Keys, slug: str, tenant_id: UUID, device_id: UUID) -> str:
    """The signed token of a device: computed, so nothing of it is stored."""
    mac = _mac(keys, slug, tenant_id, device_id)
    packed = _LAYOUT.pack(tenant_id.bytes, device_id.bytes, bytes.fromhex(keys.id), mac)
    return _PREFIX + base64url(packed)


def read_device_token(ring: KeyRing, slug: str, token: str | None) -> KnownDevice | None:
    """The device a token names, or None for anything we didn't sign for this slug: a stranger is no error."""
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
    return known


def _mac(keys: Keys, slug: str, tenant_id: UUID, device_id: UUID) -> bytes:
    return keyed_hash(keys.cookie, "device", slug.encode(), tenant_id.bytes, device_id.bytes)
