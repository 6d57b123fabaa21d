"""DKIM signatures (RFC 6376), for installations whose mail server doesn't sign.

Written here because this runs for every mail: OpenSSL signs in half a millisecond, the usual library, in pure Python,
takes ten. It checks the result in the tests. Both canonicalizations are `relaxed`, so that servers on the way may fold
headers anew. RSA only: large mailbox providers don't verify Ed25519 (RFC 8463).
"""

import base64
import hashlib
import re
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.errors import ConfigurationError

# What a reader sees or answers to. From is signed once more than it is there, so that no second one can be added
# (RFC 6376, 8.15).
_SIGNED: Final = (
    b"from",
    b"to",
    b"reply-to",
    b"subject",
    b"date",
    b"message-id",
    b"auto-submitted",
    b"mime-version",
    b"content-type",
)
_ONCE_MORE: Final = (b"from", b"reply-to", b"subject")
# RFC 8301, 3.2: verifiers must not accept shorter ones.
_RSA_BITS: Final = 1024
_BLANKS: Final = re.compile(rb"[ \t]+")
_LINE_ENDS: Final = re.compile(rb"[ \t]+(?=\r\n)")
_FOLDED: Final = re.compile(rb"\r\n(?=[ \t])")
_SIGNATURE_LINE: Final = 70


class Signer:
    """Signs with one key for one domain; the public key stands in the DNS at `{selector}._domainkey.{domain}`."""

    def __init__(self, domain: str, selector: str, pem: bytes) -> None:
        """Raises `ConfigurationError` for what is no RSA key of 1024 bits or more."""
        self._key = _read_key(pem)
        self._names = f"d={domain}; s={selector}"

    @classmethod
    def from_file(cls, domain: str, selector: str, path: Path) -> "Signer":
        """With the key in a PEM file. Raises `ConfigurationError`."""
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise ConfigurationError([f"DKIM_PRIVATE_KEY_FILE can't be read: {error.strerror}."]) from None
        return cls(domain, selector, pem)

    def sign(self, mail: bytes, date: datetime) -> bytes:
        """The mail with its signature in front. `date` is when it was asked for, so every copy is the same."""
        head, _, body = mail.partition(b"\r\n\r\n")
        headers = [_relaxed(field) for field in _FOLDED.sub(b"", head).split(b"\r\n")]
        by_name = {field.partition(b":")[0]: field for field in headers}
        names = [name for name in _SIGNED if name in by_name]
        listed = b":".join([*names, *_ONCE_MORE]).decode()
        body_hash = base64.b64encode(hashlib.sha256(_relaxed_body(body)).digest()).decode()
        lines = [
            f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; {self._names};",
            f" t={int(date.timestamp())}; h={listed};",
            f" bh={body_hash};",
            " b=",
        ]
        unsigned = "\r\n".join(lines).encode("ascii")
        signed = b"".join(by_name[name] + b"\r\n" for name in names) + _relaxed(_FOLDED.sub(b"", unsigned))
        signature = base64.b64encode(self._key.sign(signed, PKCS1v15(), SHA256()))
        chunks = [signature[at : at + _SIGNATURE_LINE] for at in range(0, len(signature), _SIGNATURE_LINE)]
        return unsigned + b"\r\n ".join(chunks) + b"\r\n" + mail


def _read_key(pem: bytes) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey) or key.key_size < _RSA_BITS:
        raise ConfigurationError([f"DKIM_PRIVATE_KEY_FILE must hold an RSA key of {_RSA_BITS} bits or more, in PEM."])
    return key


def _relaxed(field: bytes) -> bytes:
    """An unfolded header field: name in lower case, runs of blanks as one (RFC 6376, 3.4.2)."""
    name, _, value = field.partition(b":")
    return name.strip().lower() + b":" + _BLANKS.sub(b" ", value).strip(b" ")


def _relaxed_body(body: bytes) -> bytes:
    """Runs of blanks as one, none at the ends of lines, no empty lines at the end (RFC 6376, 3.4.4)."""
    text = _BLANKS.sub(b" ", _LINE_ENDS.sub(b"", body)).rstrip(b"\r\n")
    return text + b"\r\n" if text else b""
