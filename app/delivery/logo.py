"""What may be a tenant's logo. Pure: bytes in, what they are out.

Only formats without scripts, links or other documents inside, so no SVG. The type is read from the bytes; names and
headers that came with them say nothing.
"""

from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 64 * 1024
# 64 KiB can unpack to gigapixels in whoever looks at it.
MAX_PIXELS: Final = 2048

_PNG: Final = b"\x89PNG\r\n\x1a\n"
# JPEG's markers: those that start a frame (and so tell its size), but for three of the same range with other meanings.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_SCAN: Final = 0xDA


@dataclass(frozen=True, slots=True)
class Image:
    """What an image says about itself; pixels."""

    media_type: str
    width: int
    height: int


def inspect(data: bytes) -> Image:
    """What image this is. Raises `ValueError` with a sentence for whoever chose it."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"The logo has {len(data) // 1024 + 1} KiB; at most {MAX_BYTES // 1024} KiB are allowed.")
    try:
        image = _read(data)
    except IndexError:
        image = None
    if image is None:
        raise ValueError("The logo must be a whole PNG, JPEG or WebP image.")
    if not (1 <= image.width <= MAX_PIXELS and 1 <= image.height <= MAX_PIXELS):
        raise ValueError(f"The logo is {image.width} x {image.height} pixels; at most {MAX_PIXELS} each are allowed.")
    return image


def _read(data: bytes) -> Image | None:
    """Raises `IndexError` where the data ends too early."""
    if data.startswith(_PNG) and data[12:16] == b"IHDR":
        return Image("image/png", _big(data, 16, 4), _big(data, 20, 4))
    if data.startswith(b"\xff\xd8\xff"):
        size = _jpeg_size(data)
        return Image("image/jpeg", *size) if size else None
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        size = _webp_size(data)
        return Image("image/webp", *size) if size else None
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at] == 0xFF:  # noqa: PLR2004 - every marker begins so
        marker = data[at + 1]
        if marker in _FRAMES:
            return _big(data, at + 7, 2), _big(data, at + 5, 2)
        if marker == _SCAN:
            return None
        at += 2 if marker in _STANDALONE else 2 + _big(data, at + 2, 2)
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Of a lossy, a lossless or an extended file (RFC 9649)."""
    match data[12:16]:
        case b"VP8 " if data[23:26] == b"\x9d\x01\x2a":
            return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
        case b"VP8L" if data[20] == 0x2F:  # noqa: PLR2004 - its signature
            bits = _little(data, 21, 4)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
        case _:
            return None


def _big(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(_bytes(data, at, size), "big")


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(_bytes(data, at, size), "little")


def _bytes(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise IndexError(at)
    return data[at : at + size]
