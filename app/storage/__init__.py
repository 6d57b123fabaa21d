"""Where everything is kept: PostgreSQL for what must last, Valkey or Redis for what may be lost."""

from typing import Final
from uuid import UUID

# The reserved tenant under which admins sign in. Its slug is not one: no caller can name it.
SYSTEM_TENANT: Final = UUID("00000000-0000-0000-0000-000000000001")
SYSTEM_SLUG: Final = "_system"
