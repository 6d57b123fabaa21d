-- Sessions of a tenant and its people, or (p_member) of one of them, as the admins who look after it see and end them.

CREATE OR REPLACE FUNCTION fn.tenant_sessions(p_now timestamptz, p_tenant uuid, p_member uuid, p_limit integer)
RETURNS TABLE (id uuid, kind text, subject_kind text, subject_id uuid, device_name text, ip text, user_agent text,
               created_at timestamptz, seen_at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN QUERY
    SELECT s.id, s.kind, s.subject_kind, s.subject_id, s.device_name, host(s.ip), s.user_agent, s.created_at, s.seen_at
    FROM sessions s
    WHERE s.tenant_id = p_tenant AND s.ended_at IS NULL AND s.expires_at > p_now
      AND (p_member IS NULL OR s.subject_kind = 'member' AND s.subject_id = p_member)
    ORDER BY s.seen_at DESC, s.id LIMIT p_limit;
END $$;

-- Ends one of these sessions, or (p_only NULL) all; each leaves an event that names who did it. Answers how many.
CREATE OR REPLACE FUNCTION fn.end_tenant_sessions(
    p_now timestamptz, p_tenant uuid, p_member uuid, p_only uuid, p_actor_kind text, p_actor uuid, p_client jsonb
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_ended integer;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    PERFORM fn.lock_subject(coalesce(p_member, p_tenant), true);
    WITH held AS (
        SELECT s.id FROM sessions s
        WHERE s.tenant_id = p_tenant AND s.ended_at IS NULL AND s.expires_at > p_now AND (p_only IS NULL OR s.id = p_only)
          AND (p_member IS NULL OR s.subject_kind = 'member' AND s.subject_id = p_member)
        ORDER BY s.id FOR UPDATE
    ), ended AS (
        UPDATE sessions t SET ended_at = p_now, end_reason = 'ended-by-admin'
        FROM held WHERE t.tenant_id = p_tenant AND t.id = held.id
        RETURNING t.id, t.subject_kind, t.subject_id
    )
    INSERT INTO audit_events (tenant_id, at, action, actor_kind, actor_id, subject_kind, subject_id, source, ip,
                              user_agent, request_id, data)
    SELECT p_tenant, p_now, 'session.ended', p_actor_kind, p_actor, e.subject_kind, e.subject_id,
           p_client ->> 'source', (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_client ->> 'request_id',
           jsonb_build_object('session', e.id, 'reason', 'ended-by-admin')
    FROM ended e;
    GET DIAGNOSTICS v_ended = ROW_COUNT;
    RETURN v_ended;
END $$;
