"""What members do with their own account: another email or phone, another password, a consent taken back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from app.audit.log import Actor, Client
from app.auth.asking import Issued, Realm, Wish
from app.auth.challenges import Challenges, Proof
from app.auth.passwords import Passwords, check_new
from app.auth.sessions import LiveSession, Sessions
from app.errors import CodeExpired, FieldError, Forbidden, InvalidRequest, InvalidToken, NotFound
from app.members import changes, effects
from app.members.model import SELECTED, Member
from app.settings import Settings
from app.storage.db import Database, Row, repeatable
from app.tenants.rules import normalise_email, normalise_phone

# Changing a contact or the password takes a sign-in younger than this, as changing second factors does.
RECENT: Final = timedelta(minutes=10)

_USE: Final = """
UPDATE challenges SET ended_at = $3, end_reason = 'used', salt = NULL, digest = NULL
WHERE tenant_id = $1 AND id = $2 AND generation = $4 AND purpose = 'contact' AND subject_id = $5 AND NOT decoy
  AND ended_at IS NULL AND expires_at > $3
"""
_CLAIM: Final = "DELETE FROM claims WHERE tenant_id = $1 AND id = $2 RETURNING email, phone_number"
_UPDATE_HASH: Final = """
UPDATE members SET password_hash = $3, version = version + 1, updated_at = greatest($4, updated_at)
WHERE tenant_id = $1 AND id = $2
"""
# What was theirs already and is proven only now is no change of the member.
_NOTE_PROVEN: Final = "SELECT fn.note_proven($1, $2, $3, $4)"
_READ: Final = f"SELECT {SELECTED} FROM fn.own_member($1, $2)"
_CONSENTS: Final = """
SELECT id, document, version, given_at, withdrawn_at FROM consents
WHERE tenant_id = $1 AND member_id = $2 ORDER BY given_at, id
"""
_WITHDRAW: Final = """
UPDATE consents SET withdrawn_at = coalesce(withdrawn_at, $4) WHERE tenant_id = $1 AND member_id = $2 AND id = $3
RETURNING document, version, withdrawn_at
"""


class OwnAccount:
    """For whoever is signed in as a member; everybody else is `Forbidden`."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        challenges: Challenges,
        sessions: Sessions,
        passwords: Passwords,
        clock: Callable[[], datetime],
        wake_worker: Callable[[], None],
    ) -> None:
        self._db = db
        self._challenges = challenges
        self._sessions = sessions
        self._passwords = passwords
        self._clock = clock
        self._wake_worker = wake_worker
        self._channels = frozenset(settings.providers)

    async def member(self, session: LiveSession) -> Member:
        """Who is signed in, as stored by now. One round trip. Raises `Forbidden`, `InvalidToken`."""
        _check_member(session)
        row = await self._db.row(_READ, session.tenant_id, session.subject.id)
        if row is None:
            raise InvalidToken
        return Member.of(row)

    async def claim_contact(
        self,
        session: LiveSession,
        client: Client,
        *,
        email: str | None = None,
        phone_number: str | None = None,
        locale: str = "en",
    ) -> Issued:
        """Sends a code to the address the member wants to have. Nothing is different until `confirm_contact`.

        An address that another member has gets the same answer, and its owner is told. Raises `InvalidRequest`,
        `RateLimited`, `Forbidden` when the sign-in is not recent.
        """
        self._check_recent(session)
        if (email is None) == (phone_number is None):
            raise InvalidRequest(FieldError("/email", "Send either email or phone_number."))
        wish = Wish(
            normalise_email(email) if email is not None else None,
            normalise_phone(phone_number) if phone_number is not None else None,
            locale=locale,
            purpose="contact",
            claim={"member": str(session.subject.id)},
        )
        await self._challenges.admit(client)
        issued = await self._challenges.issue(Realm.of(session.tenant_slug), wish, client)
        assert issued is not None  # noqa: S101 - a claim always needs its code
        return issued

    async def confirm_contact(self, session: LiveSession, challenge_id: str, code: str, client: Client) -> Member:
        """Makes the address the member's: other codes are void, other sessions end by policy, both addresses are told.

        Raises what `Challenges.prove` does.
        """
        _check_member(session)
        realm = Realm.of(session.tenant_slug)
        proof = await self._challenges.prove(realm, challenge_id, code, client)
        async with self._db.tenant(session.tenant_id) as connection:
            before = await self._holder(connection, session)
            claim = await _use_up(connection, session, proof)
            contact = "email" if claim["email"] else "phone_number"
            edited = changes.edited(before, {contact: claim[contact]}, None)
            after = await changes.save(
                connection,
                proof.at,
                before,
                _proven(edited, contact, proof.at),
                Actor("member", session.subject.id),
                client,
                self._channels,
                keep=session.session_id,
            )
            way = "email" if contact == "email" else "sms"
            await connection.execute(_NOTE_PROVEN, proof.at, after.tenant_id, after.id, way)
        # A request that still read the old address may have committed while we were at it.
        async with self._db.tenant(session.tenant_id) as connection:
            await effects.void_codes(connection, proof.at, session.tenant_id, session.subject.id)
        self._sessions.forget(session)
        self._wake_worker()
        return after

    @repeatable
    async def set_password(self, session: LiveSession, password: str, client: Client) -> None:
        """Sets or changes the password: open codes are void, all other sessions end, devices are forgotten.

        Raises `InvalidRequest`, `Forbidden` when the sign-in is not recent.
        """
        self._check_recent(session)
        chosen = check_new(password, session.subject.name, session.email, session.phone_number)
        hashed = await self._passwords.hash(chosen)
        now = self._clock()
        async with self._db.tenant(session.tenant_id) as connection:
            member = await self._holder(connection, session)
            actor = Actor("member", member.id)
            await connection.execute(_UPDATE_HASH, member.tenant_id, member.id, hashed, now)
            data: dict[str, Any] = {
                "codes_voided": await effects.void_codes(connection, now, member.tenant_id, member.id),
                "sessions_ended": await effects.end_sessions(
                    connection,
                    now,
                    member.tenant_id,
                    member.id,
                    "password-changed",
                    session.session_id,
                    actor=actor,
                    client=client,
                ),
            }
            await effects.notify(connection, now, member, {"template": "password_changed"}, self._channels)
            await changes.log(connection, now, member, "member.password_changed", actor, client, data)
        self._wake_worker()

    async def consents(self, session: LiveSession) -> Sequence[Row]:
        """What the member agreed to, oldest first."""
        _check_member(session)
        async with self._db.tenant(session.tenant_id) as connection:
            rows: Sequence[Row] = await connection.fetch(_CONSENTS, session.tenant_id, session.subject.id)
            return rows

    @repeatable
    async def withdraw_consent(self, session: LiveSession, consent_id: UUID, client: Client) -> None:
        """Takes a consent back; when it was given stays known. Raises `NotFound`."""
        _check_member(session)
        now = self._clock()
        async with self._db.tenant(session.tenant_id) as connection:
            member = await self._holder(connection, session)
            row = await connection.fetchrow(_WITHDRAW, member.tenant_id, member.id, consent_id, now)
            if row is None:
                raise NotFound("There is no such consent of yours.")
            if row["withdrawn_at"] == now:
                data = {"document": row["document"], "version": row["version"]}
                actor = Actor("member", member.id)
                await changes.log(connection, now, member, "consent.withdrawn", actor, client, data)

    async def _holder(self, connection: asyncpg.Connection, session: LiveSession) -> Member:
        """The member, held. Raises `InvalidToken` when they were suspended or erased meanwhile."""
        member = await changes.locked(connection, session.tenant_id, session.subject.id)
        if member is None or member.status != "active":
            raise InvalidToken
        return member

    def is_recent(self, session: LiveSession) -> bool:
        """Whether this session may change contacts and the password: a page says so before anything is typed."""
        try:
            self._check_recent(session)
        except Forbidden:
            return False
        return True

    def _check_recent(self, session: LiveSession) -> None:
        _check_member(session)
        if self._clock() - session.authenticated_at > RECENT:
            raise Forbidden("Sign in again: this can be changed within 10 minutes of a sign-in.")
        # Whoever got hold of a remembered device has proven nothing yet.
        if set(session.methods) <= {"device"}:
            raise Forbidden("Sign in again with a code: this can't be changed from a remembered device alone.")


def _check_member(session: LiveSession) -> None:
    if session.subject.kind != "member":
        raise Forbidden("This is for members; an organisation's own contacts are changed by its administrators.")


async def _use_up(connection: asyncpg.Connection, session: LiveSession, proof: Proof) -> Row:
    """The claim that the code proves, used up, once. Raises `CodeExpired`."""
    tag: str = await connection.execute(
        _USE,
        session.tenant_id,
        proof.challenge_id,
        proof.at,
        proof.counted["generation"],
        session.subject.id,
    )
    claim: Row | None = await connection.fetchrow(_CLAIM, session.tenant_id, proof.challenge_id)
    if tag != "UPDATE 1" or claim is None:
        raise CodeExpired
    return claim


def _proven(member: Member, contact: str, at: datetime) -> Member:
    return replace(member, email_verified_at=at) if contact == "email" else replace(member, phone_verified_at=at)
