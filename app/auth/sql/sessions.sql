-- Sessions: checked by primary key, refreshed in one statement, ended at once.

-- Who is behind a session, with the tenant and the contacts that `me` shows. No row: it is over, or the tenant or
-- person may not sign in any more. `due`: the second factor that has to be proven (`totp`) or set up (`enrol`) before
-- the session opens anything.
CREATE OR REPLACE FUNCTION fn.live_session(p_now timestamptz, p_tenant uuid, p_session uuid, p_admins_must boolean)
RETURNS TABLE (
    kind text, subject_kind text, subject_id uuid, subject_name text, subject_role text, email text, phone_number text,
    tenant_slug text, tenant_name text, methods text[], totp boolean, backup_codes bigint, device_name text,
    secret_hash bytea, authenticated_at timestamptz, created_at timestamptz, seen_at timestamptz,
    expires_at timestamptz, due text
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN QUERY
    SELECT s.kind, s.subject_kind, s.subject_id, coalesce(a.name, m.name, t.name), a.role,
           CASE s.subject_kind WHEN 'admin' THEN a.email WHEN 'member' THEN m.email ELSE t.email END,
           CASE s.subject_kind WHEN 'admin' THEN NULL WHEN 'member' THEN m.phone_number ELSE t.phone_number END,
           t.slug, t.name, s.methods,
           EXISTS (
             SELECT FROM factors f
             WHERE f.tenant_id = p_tenant AND f.subject_kind = s.subject_kind AND f.subject_id = s.subject_id
               AND f.confirmed_at IS NOT NULL),
           (SELECT count(*) FROM backup_codes b
             WHERE b.tenant_id = p_tenant AND b.subject_kind = s.subject_kind AND b.subject_id = s.subject_id),
           s.device_name, s.secret_hash,
           s.authenticated_at, s.created_at, s.seen_at, s.expires_at,
           fn.factor_due(p_tenant, s.subject_kind, s.subject_id, s.methods, p_admins_must)
    FROM sessions s
    JOIN tenants t ON t.id = s.tenant_id AND t.status = 'active'
    LEFT JOIN admins a ON s.subject_kind = 'admin' AND a.tenant_id = s.tenant_id AND a.id = s.subject_id
                      AND a.status = 'active'
    LEFT JOIN members m ON s.subject_kind = 'member' AND m.tenant_id = s.tenant_id AND m.id = s.subject_id
                       AND m.status = 'active'
    WHERE s.tenant_id = p_tenant AND s.id = p_session AND s.ended_at IS NULL AND s.expires_at > p_now
      AND (s.subject_kind = 'tenant' OR a.id IS NOT NULL OR m.id IS NOT NULL);
END $$;

-- The one way from a proven first factor to a session; every sign-in goes through here, whatever proved it.
--   signed-in     the session has begun
--   totp, enrol   a second factor comes first (fn.next_step): a half sign-in waits for it under the session's id
--   refused       an admin or a member who may not sign in any more
-- `p_device` is a known device's, `p_new_device` makes this client known for the next time; `p_remember`, that it may
-- stand for the code from then on, is granted by the sign-in that is complete. The caller has named the tenant.
CREATE OR REPLACE FUNCTION fn.begin_session(
    p_now timestamptz, p_tenant uuid, p_subject_kind text, p_subject uuid, p_challenge uuid, p_session uuid,
    p_kind text, p_secret_hash bytea, p_refresh_hash bytea, p_ttl integer, p_methods text[], p_device_name text,
    p_client jsonb, p_device uuid, p_new_device uuid, p_device_ttl interval, p_half_hash bytea, p_half_ttl interval,
    p_admins_must boolean, p_remember boolean DEFAULT false
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_next text;
BEGIN
    PERFORM fn.lock_subject(p_subject, false);
    v_next := fn.next_step(p_tenant, p_subject_kind, p_subject, p_admins_must);
    IF v_next IS NULL THEN
        RETURN CASE WHEN fn.start_session(p_now, p_tenant, p_subject_kind, p_subject, p_challenge, p_session, p_kind,
                                          p_secret_hash, p_refresh_hash, p_ttl, p_methods, p_device_name, p_client,
                                          p_device, p_new_device, p_device_ttl, p_remember)
                    THEN 'signed-in' ELSE 'refused' END;
    END IF;
    INSERT INTO half_sign_ins (tenant_id, id, secret_hash, subject_kind, subject_id, next, kind, methods, challenge_id,
                               device_id, device_name, remember_device, created_at, expires_at)
    VALUES (p_tenant, p_session, p_half_hash, p_subject_kind, p_subject, v_next, p_kind, p_methods, p_challenge,
            p_device, p_device_name, p_remember, p_now, p_now + p_half_ttl);
    PERFORM fn.write_audit(p_now, p_tenant, 'factor.asked', p_subject_kind, p_subject, p_challenge, p_client,
                           jsonb_build_object('methods', p_methods, 'next', v_next));
    RETURN v_next;
END $$;

-- Begins a session when nothing is left to prove, and writes the event; false for who may not sign in any more.
CREATE OR REPLACE FUNCTION fn.start_session(
    p_now timestamptz, p_tenant uuid, p_subject_kind text, p_subject uuid, p_challenge uuid, p_session uuid,
    p_kind text, p_secret_hash bytea, p_refresh_hash bytea, p_ttl integer, p_methods text[], p_device_name text,
    p_client jsonb, p_device uuid, p_new_device uuid, p_device_ttl interval, p_remember boolean
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_subject_kind = 'admin' THEN
        UPDATE admins SET last_sign_in_at = p_now
        WHERE tenant_id = p_tenant AND id = p_subject AND status = 'active';
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    ELSIF p_subject_kind = 'member' THEN
        UPDATE members SET last_sign_in_at = p_now
        WHERE tenant_id = p_tenant AND id = p_subject AND status = 'active';
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    END IF;
    INSERT INTO sessions (tenant_id, id, kind, subject_kind, subject_id, secret_hash, refresh_n, refresh_hash, methods,
                          device_name, ip, user_agent, authenticated_at, created_at, seen_at, expires_at)
    VALUES (p_tenant, p_session, p_kind, p_subject_kind, p_subject, p_secret_hash,
            CASE WHEN p_refresh_hash IS NOT NULL THEN 1 END, p_refresh_hash, p_methods, p_device_name,
            (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_now, p_now, p_now,
            p_now + make_interval(secs => p_ttl));
    IF p_device IS NOT NULL THEN
        UPDATE devices SET seen_at = p_now WHERE tenant_id = p_tenant AND id = p_device;
    ELSE
        INSERT INTO devices (tenant_id, id, subject_kind, subject_id, name, ip, user_agent, created_at, seen_at,
                             expires_at)
        VALUES (p_tenant, p_new_device, p_subject_kind, p_subject, p_device_name, (p_client ->> 'ip')::inet,
                p_client ->> 'user_agent', p_now, p_now, p_now + p_device_ttl);
        PERFORM fn.cap_devices(p_now, p_tenant, p_subject_kind, p_subject, 10, p_client);
    END IF;
    IF p_remember THEN
        PERFORM fn.remember_device(p_now, p_tenant, coalesce(p_device, p_new_device));
    END IF;
    INSERT INTO audit_events (tenant_id, at, action, actor_kind, actor_id, subject_kind, subject_id, challenge_id,
                              source, ip, user_agent, request_id, data)
    VALUES (p_tenant, p_now, 'session.started', p_subject_kind, p_subject, p_subject_kind, p_subject, p_challenge,
            p_client ->> 'source', (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_client ->> 'request_id',
            -- What somebody calls their device is theirs and goes with them; the log stays.
            jsonb_build_object('session', p_session, 'kind', p_kind, 'methods', p_methods, 'device',
                               CASE WHEN p_subject_kind <> 'member' THEN p_device_name END));
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION fn.end_session(
    p_now timestamptz, p_tenant uuid, p_session uuid, p_reason text, p_client jsonb
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE s sessions;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    UPDATE sessions SET ended_at = p_now, end_reason = p_reason
    WHERE tenant_id = p_tenant AND id = p_session AND ended_at IS NULL
    RETURNING * INTO s;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO audit_events (tenant_id, at, action, actor_kind, actor_id, subject_kind, subject_id, source, ip,
                              user_agent, request_id, data)
    VALUES (p_tenant, p_now, 'session.ended', s.subject_kind, s.subject_id, s.subject_kind, s.subject_id,
            p_client ->> 'source', (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_client ->> 'request_id',
            jsonb_build_object('session', p_session, 'reason', p_reason));
    RETURN true;
END $$;

-- Why a browser's session ended, for whoever has its cookie.
CREATE OR REPLACE FUNCTION fn.session_end_reason(p_tenant uuid, p_session uuid, p_secret_hash bytea)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN (SELECT s.end_reason FROM sessions s
            WHERE s.tenant_id = p_tenant AND s.id = p_session AND s.secret_hash = p_secret_hash);
END $$;

-- Rotates a refresh token (RFC 9700 section 4.14.2). `p_n` is the number the presented token carries; `p_ours`, that
-- its secret follows from our key, so it was ever in this family.
--   rotated  it was the newest; the successor is in place
--   retried  its successor is in place for less than the grace and unused: the caller answers with the same one
--   reused   a token that was rotated away: the whole family has ended
--   due      a second factor has to be proven or set up first: the family has ended
--   limited  rotated more often than any client needs to; `retry_at` says when the next one is free
--   refused  unknown or over
-- One may follow another every p_pace, and p_burst's worth of them at once: `refresh_paced_at` is how far ahead of that
-- the session is.
CREATE OR REPLACE FUNCTION fn.refresh_session(
    p_now timestamptz, p_tenant uuid, p_session uuid, p_n integer, p_hash bytea, p_next_hash bytea, p_grace interval,
    p_client jsonb, p_ours boolean, p_admins_must boolean, p_pace interval, p_burst interval,
    OUT outcome text, OUT subject_kind text, OUT subject uuid, OUT subject_name text, OUT slug text, OUT name text,
    OUT expires_at timestamptz, OUT retry_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    s         sessions;
    v_newest  boolean;
    v_retried boolean;
    v_paced   timestamptz;
BEGIN
    outcome := 'refused';
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    SELECT * INTO s FROM sessions WHERE tenant_id = p_tenant AND id = p_session AND kind = 'api' FOR UPDATE;
    IF NOT FOUND OR s.ended_at IS NOT NULL OR s.expires_at <= p_now THEN
        RETURN;
    END IF;
    SELECT t.slug, t.name INTO slug, name FROM tenants t WHERE t.id = p_tenant AND t.status = 'active';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    subject_kind := s.subject_kind;
    subject := s.subject_id;
    subject_name := name;
    IF s.subject_kind = 'admin' THEN
        SELECT a.name INTO subject_name FROM admins a
        WHERE a.tenant_id = p_tenant AND a.id = s.subject_id AND a.status = 'active';
        IF NOT FOUND THEN
            RETURN;
        END IF;
    ELSIF s.subject_kind = 'member' THEN
        SELECT m.name INTO subject_name FROM members m
        WHERE m.tenant_id = p_tenant AND m.id = s.subject_id AND m.status = 'active';
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    expires_at := s.expires_at;
    v_newest := s.refresh_n = p_n AND s.refresh_hash = p_hash;
    v_retried := s.refresh_n = p_n + 1 AND s.refresh_prior_hash = p_hash AND p_now < s.refresh_rotated_at + p_grace;
    IF NOT (v_newest OR v_retried) THEN
        -- The one before is known by its hash, an older one by our key; of what was made up nothing ends.
        IF s.refresh_n = p_n + 1 AND s.refresh_prior_hash = p_hash OR p_ours AND p_n < s.refresh_n THEN
            outcome := 'reused';
            PERFORM fn.end_session(p_now, p_tenant, p_session, 'refresh-token-reused', p_client);
        END IF;
        RETURN;
    END IF;
    IF fn.factor_due(p_tenant, s.subject_kind, s.subject_id, s.methods, p_admins_must) IS NOT NULL THEN
        outcome := 'due';
        PERFORM fn.end_session(p_now, p_tenant, p_session, 'factor-due', p_client);
        RETURN;
    END IF;
    IF v_retried THEN
        -- A successor that a process of another release made can't be told again.
        outcome := CASE WHEN s.refresh_hash = p_next_hash THEN 'retried' ELSE 'refused' END;
        RETURN;
    END IF;
    v_paced := greatest(s.refresh_paced_at, p_now) + p_pace;
    IF v_paced > p_now + p_burst THEN
        outcome := 'limited';
        retry_at := v_paced - p_burst;
        RETURN;
    END IF;
    UPDATE sessions SET refresh_n = p_n + 1, refresh_hash = p_next_hash, refresh_prior_hash = p_hash,
                        refresh_rotated_at = p_now, refresh_paced_at = v_paced, seen_at = p_now
    WHERE tenant_id = p_tenant AND id = p_session;
    outcome := 'rotated';
END $$;

CREATE OR REPLACE FUNCTION fn.subject_sessions(p_now timestamptz, p_tenant uuid, p_kind text, p_subject uuid)
RETURNS TABLE (id uuid, kind text, device_name text, ip text, user_agent text, created_at timestamptz,
               seen_at timestamptz, expires_at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN QUERY
    SELECT s.id, s.kind, s.device_name, host(s.ip), s.user_agent, s.created_at, s.seen_at, s.expires_at
    FROM sessions s
    WHERE s.tenant_id = p_tenant AND s.subject_kind = p_kind AND s.subject_id = p_subject
      AND s.ended_at IS NULL AND s.expires_at > p_now
    ORDER BY s.created_at DESC, s.id;
END $$;

-- Ends one session of a subject, or all but one; a foreign id ends nothing.
CREATE OR REPLACE FUNCTION fn.end_subject_sessions(
    p_now timestamptz, p_tenant uuid, p_kind text, p_subject uuid, p_only uuid, p_except uuid, p_client jsonb
) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    v_id    uuid;
    v_ended uuid[] := '{}';
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    PERFORM fn.lock_subject(p_subject, true);
    FOR v_id IN
        SELECT s.id FROM sessions s
        WHERE s.tenant_id = p_tenant AND s.subject_kind = p_kind AND s.subject_id = p_subject AND s.ended_at IS NULL
          AND s.expires_at > p_now AND (p_only IS NULL OR s.id = p_only) AND s.id IS DISTINCT FROM p_except
    LOOP
        IF fn.end_session(p_now, p_tenant, v_id, 'ended-by-user', p_client) THEN
            v_ended := v_ended || v_id;
        END IF;
    END LOOP;
    RETURN v_ended;
END $$;

-- A subject's own history, newest first; `p_before` and `p_before_id` are the last row of the page before. Where an
-- admin did something is the admin's affair.
CREATE OR REPLACE FUNCTION fn.subject_events(
    p_tenant uuid, p_subject uuid, p_before timestamptz, p_before_id bigint, p_limit integer
) RETURNS TABLE (at timestamptz, id bigint, action text, source text, ip text, user_agent text, data jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    -- That a code for a new address was withheld tells that the address is another's: it looks like any other.
    RETURN QUERY
    SELECT e.at, e.id,
           CASE WHEN NOT v.veiled THEN e.action WHEN e.data ? 'again' THEN 'code.resent' ELSE 'code.requested' END,
           e.source,
           CASE WHEN e.actor_kind = 'anonymous' OR e.actor_id = p_subject THEN host(e.ip) END,
           CASE WHEN e.actor_kind = 'anonymous' OR e.actor_id = p_subject THEN e.user_agent END,
           CASE WHEN v.veiled THEN e.data || '{"reason": null}' ELSE e.data END
    FROM audit_events e
    CROSS JOIN LATERAL (SELECT e.action = 'code.withheld' AND e.data @> '{"purpose": "contact"}' AS veiled) AS v
    WHERE e.tenant_id = p_tenant AND e.subject_id = p_subject
      AND (p_before IS NULL OR (e.at, e.id) < (p_before, p_before_id))
    ORDER BY e.at DESC, e.id DESC LIMIT p_limit;
END $$;
