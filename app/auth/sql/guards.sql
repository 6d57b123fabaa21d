-- What makes guessing harder instead of locking people out.

-- Counts towards the slot of ten minutes that p_now falls in.
CREATE OR REPLACE FUNCTION fn.tally(
    p_now timestamptz, p_tenant uuid, p_key bytea, p_requested integer, p_verified integer, p_wrong integer
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO activity AS a (tenant_id, slot, shard, requested, verified, wrong)
    VALUES (p_tenant, date_bin('10 minutes', p_now, '2000-01-01 00:00+00'), get_byte(p_key, 0) % 4, p_requested,
            p_verified, p_wrong)
    ON CONFLICT (tenant_id, slot, shard) DO UPDATE
        SET requested = a.requested + p_requested, verified = a.verified + p_verified, wrong = a.wrong + p_wrong;
END $$;

-- 8 where six digits are too few: after 10 wrong guesses at this recipient within a day (15 guesses at 1e-6, then at
-- most 345 at 1e-8: 1e-4 is never reached), and for unknown clients while their tenant or the fleet is under attack.
CREATE OR REPLACE FUNCTION fn.length_under_attack(
    p_now timestamptz, p_tenant uuid, p_device uuid, p_wrong_today integer
) RETURNS integer LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_wrong_today >= 10 THEN
        RETURN 8;
    END IF;
    IF p_device IS NULL AND EXISTS (
        SELECT FROM attack_modes m
        WHERE m.tenant_id IN (p_tenant, '00000000-0000-0000-0000-000000000000') AND m.until > p_now
    ) THEN
        RETURN 8;
    END IF;
    RETURN NULL;
END $$;

-- Run by the worker every few seconds. A tenant, or the fleet, is under attack when the last hour's wrong guesses or
-- never-verified requests exceed max(100, 5 x its usual hour of the last 14 days). A request is never-verified once its
-- code has expired: hundreds of people who ask in the same minute and are still typing are no attack. Entering attack
-- mode voids unknown clients' open six-digit challenges. Answers with the newcomers.
CREATE OR REPLACE FUNCTION fn.assess_attacks(p_now timestamptz) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    v_fleet  CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    v_system CONSTANT uuid := '00000000-0000-0000-0000-000000000001';
    v_tenant uuid;
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    PERFORM pg_advisory_xact_lock(7342002);
    INSERT INTO activity AS a (tenant_id, slot, shard, requested, verified, wrong)
    SELECT v_fleet, b.slot, 0, sum(b.requested), sum(b.verified), sum(b.wrong)
    FROM activity b
    WHERE b.slot > p_now - interval '80 minutes' AND b.slot <= p_now AND b.tenant_id <> v_fleet
    GROUP BY b.slot
    ON CONFLICT (tenant_id, slot, shard) DO UPDATE
        SET requested = excluded.requested, verified = excluded.verified, wrong = excluded.wrong;

    FOR v_tenant IN
        WITH busy AS (
            SELECT a.tenant_id,
                   sum(a.wrong) FILTER (WHERE a.slot > p_now - interval '1 hour') AS wrong,
                   -- Slots that ended before any code still in force was asked for; their codes may have been
                   -- entered up to now.
                   sum(a.requested) FILTER (WHERE a.slot <= p_now - interval '20 minutes') - sum(a.verified)
                       AS unverified
            FROM activity a
            WHERE a.slot > p_now - interval '80 minutes' AND a.slot <= p_now
            GROUP BY a.tenant_id
        ), suspects AS (
            SELECT * FROM busy WHERE wrong > 100 OR unverified > 100
        )
        SELECT b.tenant_id FROM suspects b
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(a.wrong), 0) / 336 AS wrong,
                   coalesce(sum(a.requested) - sum(a.verified), 0) / 336 AS unverified
            FROM activity a
            WHERE a.tenant_id = b.tenant_id AND a.slot > p_now - interval '14 days'
              AND a.slot <= p_now - interval '80 minutes'
        ) AS usual
        WHERE b.wrong > greatest(100, 5 * usual.wrong) OR b.unverified > greatest(100, 5 * usual.unverified)
    LOOP
        UPDATE attack_modes SET until = p_now + interval '15 minutes'
        WHERE tenant_id = v_tenant AND until > p_now;
        CONTINUE WHEN FOUND;
        INSERT INTO attack_modes (tenant_id, since, until)
        VALUES (v_tenant, p_now, p_now + interval '15 minutes')
        ON CONFLICT (tenant_id) DO UPDATE SET since = excluded.since, until = excluded.until;
        UPDATE challenges SET ended_at = p_now, end_reason = 'void', salt = NULL, digest = NULL
        WHERE ended_at IS NULL AND code_length = 6 AND lane = '' AND (v_tenant = v_fleet OR tenant_id = v_tenant);
        INSERT INTO audit_events (tenant_id, at, action, actor_kind, source)
        VALUES (CASE v_tenant WHEN v_fleet THEN v_system ELSE v_tenant END, p_now,
                CASE v_tenant WHEN v_fleet THEN 'attack.fleet' ELSE 'attack.tenant' END, 'system', 'worker');
        RETURN NEXT v_tenant;
    END LOOP;
END $$;

-- The known devices of a person. `remembered_until` is set where one may stand for the code now, by policy.
CREATE OR REPLACE FUNCTION fn.subject_devices(p_now timestamptz, p_tenant uuid, p_kind text, p_subject uuid)
RETURNS TABLE (id uuid, name text, ip text, user_agent text, created_at timestamptz, seen_at timestamptz,
               expires_at timestamptz, remembered_at timestamptz, remembered_until timestamptz)
LANGUAGE plpgsql AS $$
DECLARE v_policy jsonb;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    SELECT t.policy INTO v_policy FROM tenants t WHERE t.id = p_tenant;
    RETURN QUERY
    SELECT d.id, d.name, host(d.ip), d.user_agent, d.created_at, d.seen_at, d.expires_at, d.remembered_at,
           CASE WHEN r.until > p_now THEN least(r.until, d.expires_at) END
    FROM devices d CROSS JOIN LATERAL (SELECT fn.remembered_until(v_policy, d.remembered_at) AS until) AS r
    WHERE d.tenant_id = p_tenant AND d.subject_kind = p_kind AND d.subject_id = p_subject AND d.revoked_at IS NULL
      AND d.expires_at > p_now
    ORDER BY d.seen_at DESC, d.id;
END $$;

-- Makes known devices strangers again: one, or (p_only NULL) all of a subject.
CREATE OR REPLACE FUNCTION fn.revoke_devices(
    p_now timestamptz, p_tenant uuid, p_kind text, p_subject uuid, p_only uuid, p_reason text
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_count integer;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    UPDATE devices SET revoked_at = p_now, revoke_reason = p_reason
    WHERE tenant_id = p_tenant AND subject_kind = p_kind AND subject_id = p_subject AND revoked_at IS NULL
      AND (p_only IS NULL OR id = p_only);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Keeps p_most known devices of a person: whichever were not used for longest are forgotten, each with an event. Called
-- after one was added; two sign-ins at once take turns, or each would overlook the other's.
CREATE OR REPLACE FUNCTION fn.cap_devices(
    p_now timestamptz, p_tenant uuid, p_kind text, p_subject uuid, p_most integer, p_client jsonb
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7342004, hashtext(p_subject::text));
    WITH over AS (
        DELETE FROM devices WHERE ctid = ANY (ARRAY(
            SELECT d.ctid FROM devices d
            WHERE d.tenant_id = p_tenant AND d.subject_kind = p_kind AND d.subject_id = p_subject
              AND d.revoked_at IS NULL AND d.expires_at > p_now
            -- Of the same moment the row that was written first.
            ORDER BY d.seen_at DESC, d.created_at DESC, d.ctid DESC OFFSET p_most))
        RETURNING id, seen_at
    )
    INSERT INTO audit_events (tenant_id, at, action, actor_kind, subject_kind, subject_id, source, ip, user_agent,
                              request_id, data)
    SELECT p_tenant, p_now, 'device.forgotten', 'system', p_kind, p_subject, p_client ->> 'source',
           (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_client ->> 'request_id',
           jsonb_build_object('device', id, 'reason', 'too-many', 'seen_at', seen_at)
    FROM over;
END $$;

CREATE OR REPLACE FUNCTION fn.create_sign_in_link(
    p_now timestamptz, p_tenant uuid, p_link uuid, p_kind text, p_subject uuid, p_secret_hash bytea, p_ttl interval,
    p_actor_kind text, p_actor uuid, p_client jsonb
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    INSERT INTO sign_in_links (tenant_id, id, subject_kind, subject_id, secret_hash, created_at, expires_at)
    VALUES (p_tenant, p_link, p_kind, p_subject, p_secret_hash, p_now, p_now + p_ttl);
    INSERT INTO audit_events (tenant_id, at, action, actor_kind, actor_id, subject_kind, subject_id, source, ip,
                              user_agent, request_id, data)
    VALUES (p_tenant, p_now, 'sign_in_link.created', p_actor_kind, p_actor, p_kind, p_subject, p_client ->> 'source',
            (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_client ->> 'request_id',
            jsonb_build_object('link', p_link));
END $$;

-- Uses a link up and begins the session, or what comes before it, once: an enrolled factor is demanded of whoever has
-- a link too. Answers as fn.count_attempt does, for the caller to make the sign-in; `outcome` as fn.begin_session.
CREATE OR REPLACE FUNCTION fn.use_sign_in_link(
    p_now timestamptz, p_tenant uuid, p_link uuid, p_secret_hash bytea, p_session uuid, p_kind text,
    p_cookie_hash bytea, p_ttl integer, p_client jsonb, p_new_device uuid, p_device_ttl interval, p_half_hash bytea,
    p_half_ttl interval, p_admins_must boolean,
    OUT outcome text, OUT tenant uuid, OUT slug text, OUT name text, OUT subject_kind text, OUT subject uuid,
    OUT subject_name text
) LANGUAGE plpgsql AS $$
DECLARE l sign_in_links;
BEGIN
    outcome := 'refused';
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    -- Before the link, as whoever changes the person does (factors.sql).
    PERFORM fn.lock_subject((SELECT k.subject_id FROM sign_in_links k WHERE k.tenant_id = p_tenant AND k.id = p_link),
                            false);
    UPDATE sign_in_links SET used_at = p_now
    WHERE tenant_id = p_tenant AND id = p_link AND secret_hash = p_secret_hash AND used_at IS NULL
      AND expires_at > p_now
    RETURNING * INTO l;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT t.slug, t.name INTO slug, name FROM tenants t WHERE t.id = p_tenant AND t.status = 'active';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    outcome := fn.begin_session(p_now, p_tenant, l.subject_kind, l.subject_id, NULL, p_session, p_kind, p_cookie_hash,
                                NULL, p_ttl, ARRAY['link'], NULL, p_client, NULL, p_new_device, p_device_ttl,
                                p_half_hash, p_half_ttl, p_admins_must);
    tenant := p_tenant;
    subject_kind := l.subject_kind;
    subject := l.subject_id;
    subject_name := coalesce(fn.subject_name(p_tenant, l.subject_kind, l.subject_id), name);
END $$;
