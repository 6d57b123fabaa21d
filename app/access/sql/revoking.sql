-- Taking access away, and the locks that keep it from crossing a sign-in. Everybody takes them in one order: the
-- tenant's, the person's, then rows: tenant, admin or member, sign-in links, challenges, half sign-ins, factors, backup
-- codes, devices, sessions, and of several rows of one table the one with the lower id first. (A sign-in writes the
-- person's row late; the person's lock makes up for that. It takes no lock on the tenant's row but the one of a foreign
-- key, which `FOR NO KEY UPDATE` lets pass.)

-- Whoever begins a session for a person and whoever changes the person's way in wait for each other (shared for the one,
-- exclusive for the other), so no session slips past. The tenant's lock comes first: what ends everybody's access there
-- takes that one to change. The caller has named the tenant; a tenant's own change needs none named.
CREATE OR REPLACE FUNCTION fn.lock_subject(p_subject uuid, p_to_change boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_tenant CONSTANT uuid := fn.current_tenant();
BEGIN
    IF v_tenant <> p_subject THEN
        PERFORM pg_advisory_xact_lock_shared(7342003, hashtext(v_tenant::text));
    END IF;
    IF p_to_change THEN
        PERFORM pg_advisory_xact_lock(7342003, hashtext(p_subject::text));
    ELSE
        PERFORM pg_advisory_xact_lock_shared(7342003, hashtext(p_subject::text));
    END IF;
END $$;

-- Ends what a person, or (p_kind NULL) everybody of the tenant, has or could sign in with. `p_what` names any of
--   codes       sign-in links and open challenges
--   halves      sign-ins that wait for their second step
--   remembered  no device stands for a code any more
--   devices     every known device is a stranger again
--   sessions    each leaves its event, which names who did it and why
-- `p_keep` is the session, or half sign-in, that does it and goes on. Answers how many codes and sessions ended. The
-- statements are made for the case: a plan for one person is not one for a whole tenant.
CREATE OR REPLACE FUNCTION fn.revoke_access(
    p_now timestamptz, p_tenant uuid, p_kind text, p_subject uuid, p_what text[], p_reason text, p_keep uuid,
    p_actor_kind text, p_actor uuid, p_client jsonb, OUT codes bigint, OUT sessions bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_whose CONSTANT text := CASE WHEN p_kind IS NULL THEN ''
                                  ELSE ' AND h.subject_kind = $2 AND h.subject_id = $3' END;
    -- Table, what makes a row count, what becomes of it.
    v_each  CONSTANT text := '
        WITH held AS (SELECT h.id FROM %1$I h WHERE h.tenant_id = $1 AND %2$s' || v_whose || ' ORDER BY h.id FOR UPDATE)
        UPDATE %1$I t SET %3$s FROM held WHERE t.tenant_id = $1 AND t.id = held.id';
BEGIN
    -- For a tenant the caller has taken it; an import, which would hold up sign-ins at thousands of them for seconds,
    -- hasn't: the order of rows keeps it from crossing anybody.
    IF p_subject <> p_tenant THEN
        PERFORM fn.lock_subject(p_subject, true);
    END IF;
    codes := 0;
    sessions := 0;
    IF 'codes' = ANY (p_what) THEN
        EXECUTE format(v_each, 'sign_in_links', 'h.used_at IS NULL', 'used_at = $4')
        USING p_tenant, p_kind, p_subject, p_now;
        EXECUTE format(v_each, 'challenges', 'h.ended_at IS NULL',
                       'ended_at = $4, end_reason = ''void'', salt = NULL, digest = NULL')
        USING p_tenant, p_kind, p_subject, p_now;
        GET DIAGNOSTICS codes = ROW_COUNT;
    END IF;
    IF 'halves' = ANY (p_what) THEN
        EXECUTE format(v_each, 'half_sign_ins', 'h.ended_at IS NULL AND h.id IS DISTINCT FROM $5', 'ended_at = $4')
        USING p_tenant, p_kind, p_subject, p_now, p_keep;
    END IF;
    IF 'remembered' = ANY (p_what) THEN
        EXECUTE format(v_each, 'devices', 'h.remembered_at IS NOT NULL', 'remembered_at = NULL')
        USING p_tenant, p_kind, p_subject;
    END IF;
    IF 'devices' = ANY (p_what) THEN
        EXECUTE format(v_each, 'devices', 'h.revoked_at IS NULL', 'revoked_at = $4, revoke_reason = $5')
        USING p_tenant, p_kind, p_subject, p_now, p_reason;
    END IF;
    IF 'sessions' = ANY (p_what) THEN
        EXECUTE replace(format(v_each, 'sessions',
                               'h.ended_at IS NULL AND h.expires_at > $4 AND h.id IS DISTINCT FROM $5',
                               'ended_at = $4, end_reason = $6'),
                        'UPDATE sessions', ', ended AS (UPDATE sessions') || '
            RETURNING t.id, t.subject_kind, t.subject_id)
            INSERT INTO audit_events (tenant_id, at, action, actor_kind, actor_id, subject_kind, subject_id, source, ip,
                                      user_agent, request_id, data)
            SELECT $1, $4, ''session.ended'', $7, $8, e.subject_kind, e.subject_id, $9 ->> ''source'',
                   ($9 ->> ''ip'')::inet, $9 ->> ''user_agent'', $9 ->> ''request_id'',
                   jsonb_build_object(''session'', e.id, ''reason'', $6) FROM ended e'
        USING p_tenant, p_kind, p_subject, p_now, p_keep, p_reason, p_actor_kind, p_actor, p_client;
        GET DIAGNOSTICS sessions = ROW_COUNT;
    END IF;
END $$;
