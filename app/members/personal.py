"""What is kept of one person, in every table: read for them, or deleted."""

from typing import Any, Final

import asyncpg

from app.members.model import Member

_OWNED: Final = "tenant_id = $1 AND subject_kind = 'member' AND subject_id = $2"
_OF_MEMBER: Final = "tenant_id = $1 AND member_id = $2"
_READ: Final = {
    "consents": f"""
        SELECT document, version, given_at, host(ip) AS ip, withdrawn_at FROM consents
        WHERE {_OF_MEMBER} ORDER BY given_at""",
    "sessions": f"""
        SELECT kind, methods, device_name, host(ip) AS ip, user_agent, created_at, seen_at, expires_at, ended_at
        FROM sessions WHERE {_OWNED} ORDER BY created_at""",
    "devices": f"""
        SELECT name, host(ip) AS ip, user_agent, created_at, seen_at, expires_at, remembered_at, revoked_at
        FROM devices WHERE {_OWNED} ORDER BY created_at""",
    "factors": f"SELECT kind, created_at, confirmed_at, used_at FROM factors WHERE {_OWNED} ORDER BY created_at",
    "backup_codes": f"SELECT created_at FROM backup_codes WHERE {_OWNED} ORDER BY created_at",
    "challenges": f"""
        SELECT purpose, channel, host(ip) AS ip, user_agent, created_at, sent_at, expires_at, ended_at, end_reason
        FROM challenges WHERE {_OWNED} ORDER BY created_at""",
    "claims": f"""
        SELECT email, phone_number, proven_by, created_at, expires_at FROM claims
        WHERE {_OF_MEMBER} ORDER BY created_at""",
    "half_sign_ins": f"""
        SELECT next, methods, device_name, created_at, expires_at, ended_at FROM half_sign_ins
        WHERE {_OWNED} ORDER BY created_at""",
    "sign_in_links": f"""
        SELECT created_at, expires_at, used_at FROM sign_in_links WHERE {_OWNED} ORDER BY created_at""",
    "contact_health": """
        SELECT channel, since, error_class, error_text FROM contact_health
        WHERE tenant_id = $1 AND subject_id = $2 ORDER BY since""",
    "deliveries": """
        SELECT d.at, d.channel, d.state, d.provider, d.error_class, d.error_text FROM delivery_events d
        WHERE d.tenant_id = $1 AND d.challenge_id IN (
            SELECT e.challenge_id FROM audit_events e WHERE e.tenant_id = $1 AND e.subject_id = $2)
        ORDER BY d.at, d.id""",
    "events": """
        SELECT at, action, source, host(ip) AS ip, user_agent, data FROM audit_events
        WHERE tenant_id = $1 AND subject_id = $2 ORDER BY at, id""",
}
# What is found by the member's challenges goes before these.
_ERASE: Final = (
    """DELETE FROM outbox o USING challenges c
        WHERE o.tenant_id = $1 AND c.tenant_id = $1 AND c.subject_kind = 'member' AND c.subject_id = $2
          AND o.challenge_id = c.id""",
    f"DELETE FROM challenges WHERE {_OWNED}",
    f"DELETE FROM claims WHERE {_OF_MEMBER}",
    "DELETE FROM contact_health WHERE tenant_id = $1 AND subject_id = $2",
    f"DELETE FROM sign_in_links WHERE {_OWNED}",
    f"DELETE FROM half_sign_ins WHERE {_OWNED}",
    f"DELETE FROM sessions WHERE {_OWNED}",
    f"DELETE FROM devices WHERE {_OWNED}",
    f"DELETE FROM factors WHERE {_OWNED}",
    f"DELETE FROM backup_codes WHERE {_OWNED}",
    # Of the person, and of addresses they were asked for at (quota.sql).
    "DELETE FROM quota WHERE tenant_id = $1 AND (recipient_key = uuid_send($2) OR person_key = uuid_send($2))",
    f"DELETE FROM consents WHERE {_OF_MEMBER}",
    "DELETE FROM members WHERE tenant_id = $1 AND id = $2",
)
# One that waits to be sent to an address they had before is found by whom it is about.
_ERASE_NOTICES: Final = """
DELETE FROM outbox WHERE tenant_id = $1 AND (destination = ANY ($2) OR payload ->> 'about' = $3)
"""


async def read(connection: asyncpg.Connection, member: Member) -> dict[str, Any]:
    """The person and what belongs to them, as values that JSON has. Secrets and hashes are left out."""
    found: dict[str, Any] = {"member": member.as_json()}
    for name, sql in _READ.items():
        found[name] = [dict(row) for row in await connection.fetch(sql, member.tenant_id, member.id)]
    return found


async def erase(connection: asyncpg.Connection, member: Member) -> int:
    """Deletes it all, the audit log excepted; how many rows."""
    contacts = [contact for contact in (member.email, member.phone_number) if contact]
    tags: list[str] = [await connection.execute(sql, member.tenant_id, member.id) for sql in _ERASE]
    tags.append(await connection.execute(_ERASE_NOTICES, member.tenant_id, contacts, str(member.id)))
    return sum(int(tag.rpartition(" ")[2]) for tag in tags)
