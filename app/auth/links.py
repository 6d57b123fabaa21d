"""One-time sign-in links: an admin lets somebody in whose codes don't arrive, or themself when nothing else works."""

import hashlib
import secrets
import struct
from base64 import urlsafe_b64decode
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID, uuid4

from app.audit.log import Actor, Client
from app.auth.sessions import Sessions
from app.auth.signing_in import Outcome
from app.errors import CodeExpired
from app.keys import base64url
from app.storage.db import Database

LIFETIME: Final = timedelta(minutes=10)
_CREATE: Final = "SELECT fn.create_sign_in_link($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_LAYOUT: Final = struct.Struct(">16s16s32s")


class Links:
    """Makes and uses sign-in links. Using one needs a POST: mail scanners follow links, they don't press buttons."""

    def __init__(self, db: Database, sessions: Sessions, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._sessions = sessions
        self._clock = clock

    async def create(
        self, tenant_id: UUID, subject: tuple[Literal["tenant", "member", "admin"], UUID], actor: Actor, client: Client
    ) -> str:
        """A token that signs the subject in once within 10 minutes. Shown once; audited."""
        link_id, secret = uuid4(), secrets.token_bytes(32)
        await self._db.run(
            _CREATE,
            self._clock(),
            tenant_id,
            link_id,
            subject[0],
            subject[1],
            hashlib.sha256(secret).digest(),
            LIFETIME,
            actor.kind,
            actor.id,
            client.as_json(),
        )
        return base64url(_LAYOUT.pack(tenant_id.bytes, link_id.bytes, secret))

    async def use(self, token: str, client: Client) -> Outcome:
        """Begins a browser session, or half of a sign-in: whoever has a second factor needs it here too.

        Raises `CodeExpired` for a link that is used, over or not ours.
        """
        try:
            tenant, link, secret = _LAYOUT.unpack(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        except (ValueError, struct.error):
            raise CodeExpired("This link has expired or was used already.") from None
        signed_in = await self._sessions.begin_by_link(
            self._clock(), UUID(bytes=tenant), UUID(bytes=link), hashlib.sha256(secret).digest(), client
        )
        if signed_in is None:
            raise CodeExpired("This link has expired or was used already.")
        return signed_in
