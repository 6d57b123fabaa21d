"""How a contact or an address may appear outside its own column: logs, audit, pages, answers.

Pure and total: any string gets an answer, none raises, and masking a mask changes nothing.
"""

import ipaddress
import re
from typing import Final

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

_HIDDEN: Final = "***"
# Five stars whatever the length: how long the number is would narrow it down.
_HIDDEN_DIGITS: Final = "*****"
_SHOWN_DIGITS: Final = 4
_E164: Final = re.compile(r"\+([0-9]{3,15})")
_MASKED_PHONE: Final = re.compile(r"\+[0-9]{0,3}\*{5}[0-9]{0,4}")


def mask_email(address: str) -> str:
    """`oskar@example.com` becomes `o***@example.com`. A one-letter local part is hidden whole."""
    local, at, domain = address.rpartition("@")
    if not at:
        return _HIDDEN
    first = local[0] if len(local) > 1 and local[0] != "*" else ""
    return f"{first}{_HIDDEN}@{domain}"


def mask_phone(number: str) -> str:
    """`+447700901234` becomes `+44*****1234`.

    The last four digits show only where at least as many stay hidden; what isn't E.164 is hidden whole.
    """
    if _MASKED_PHONE.fullmatch(number):
        return number
    match = _E164.fullmatch(number)
    if match is None:
        return _HIDDEN
    country = _country_code(match[1])
    national = match[1][len(country) :]
    shown = national[-_SHOWN_DIGITS:] if len(national) >= 2 * _SHOWN_DIGITS else ""
    return f"+{country}{_HIDDEN_DIGITS}{shown}"


def mask_contact(value: str) -> str:
    """Mask an email address or a phone number, whichever it is; anything else is hidden whole."""
    return mask_email(value) if "@" in value else mask_phone(value)


def mask_ip(address: str) -> str:
    """`203.0.113.9` becomes `203.0.113.0/24`; IPv6 is cut to its site, /48. `unknown` if it is no address."""
    try:
        ip = ipaddress.ip_interface(address).ip
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ipaddress.IPv4Network((int(ip), 24), strict=False))
    return str(ipaddress.IPv6Network((int(ip), 48), strict=False))


def _country_code(digits: str) -> str:
    """Country calling codes are prefix-free (ITU-T E.164), so the first match is the only one."""
    return next((digits[:n] for n in (1, 2, 3) if int(digits[:n]) in COUNTRY_CODE_TO_REGION_CODE), "")
