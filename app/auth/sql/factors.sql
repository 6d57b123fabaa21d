-- Second factors: who has one, who must have one, setting one up and taking it away. The locks: access/sql/revoking.sql.

-- These three are asked at every sign-in. PL/pgSQL keeps their plans, which SQL functions with a subquery in them don't.
CREATE OR REPLACE FUNCTION fn.has_factor(p_tenant uuid, p_subject_kind text, p_subject uuid)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM factors f
        WHERE f.tenant_id = p_tenant AND f.subject_kind = p_subject_kind AND f.subject_id = p_subject
          AND f.confirmed_at IS NOT NULL);
END $$;

-- Whether this person may not be without a second factor: by their tenant's policy; owners and managers among the
-- admins where the installation asks for it.
CREATE OR REPLACE FUNCTION fn.must_have_factor(
    p_tenant uuid, p_subject_kind text, p_subject uuid, p_admins_must boolean
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_subject_kind = 'admin' THEN
        RETURN p_admins_must AND EXISTS (
            SELECT FROM admins a
            WHERE a.tenant_id = p_tenant AND a.id = p_subject AND a.role IN ('owner', 'manager'));
    END IF;
    RETURN EXISTS (SELECT FROM tenants t WHERE t.id = p_tenant AND t.policy ->> 'second_factor' = 'required');
END $$;

-- What stands between a proven first factor and a session: `totp` for whoever has a second factor, `enrol` for whoever
-- must have one and has none, NULL for nothing. Every sign-in asks here and nowhere else.
CREATE OR REPLACE FUNCTION fn.next_step(
    p_tenant uuid, p_subject_kind text, p_subject uuid, p_admins_must boolean
) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF fn.has_factor(p_tenant, p_subject_kind, p_subject) THEN
        RETURN 'totp';
    ELSIF fn.must_have_factor(p_tenant, p_subject_kind, p_subject, p_admins_must) THEN
        RETURN 'enrol';
    END IF;
    RETURN NULL;
END $$;

-- The same of a session that has begun, by the methods that began it: a factor may be due that wasn't then, after an
-- enrolment elsewhere, another policy, another role. Every use of a session asks here (fn.live_session,
-- fn.refresh_session).
CREATE OR REPLACE FUNCTION fn.factor_due(
    p_tenant uuid, p_subject_kind text, p_subject uuid, p_methods text[], p_admins_must boolean
) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE v_next CONSTANT text := fn.next_step(p_tenant, p_subject_kind, p_subject, p_admins_must);
BEGIN
    RETURN CASE WHEN v_next <> 'totp' OR NOT p_methods && ARRAY['totp', 'backup_code'] THEN v_next END;
END $$;

-- Where a person is told what happens to their account.
CREATE OR REPLACE FUNCTION fn.subject_contacts(
    p_tenant uuid, p_subject_kind text, p_subject uuid, OUT email text, OUT phone_number text
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_subject_kind = 'admin' THEN
        SELECT a.email INTO email FROM admins a WHERE a.tenant_id = p_tenant AND a.id = p_subject;
    ELSIF p_subject_kind = 'member' THEN
        SELECT m.email, m.phone_number INTO email, phone_number FROM members m
        WHERE m.tenant_id = p_tenant AND m.id = p_subject;
    ELSIF p_subject_kind = 'tenant' THEN
        SELECT t.email, t.phone_number INTO email, phone_number FROM tenants t WHERE t.id = p_tenant;
    END IF;
END $$;

-- Tells every contact of a person what became of their second factor; `p_channels` are those that are switched on.
CREATE OR REPLACE FUNCTION fn.tell_of_factors(
    p_now timestamptz, p_tenant uuid, p_subject_kind text, p_subject uuid, p_change text, p_channels text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_to record;
BEGIN
    SELECT * INTO v_to FROM fn.subject_contacts(p_tenant, p_subject_kind, p_subject);
    INSERT INTO outbox (tenant_id, id, kind, channel, destination, payload, available_at, expires_at, created_at,
                        updated_at)
    SELECT p_tenant, gen_random_uuid(), 'notice', w.channel, w.destination,
           jsonb_build_object('template', 'factor_changed', 'change', p_change, 'about', p_subject),
           p_now, p_now + interval '24 hours', p_now, p_now
    FROM (VALUES ('email', v_to.email),
                 (CASE WHEN 'sms' = ANY (p_channels) THEN 'sms' ELSE 'whatsapp' END, v_to.phone_number))
        AS w (channel, destination)
    WHERE w.destination IS NOT NULL AND w.channel = ANY (p_channels);
END $$;

CREATE OR REPLACE FUNCTION fn.audit_factor(
    p_now timestamptz, p_tenant uuid, p_action text, p_actor_kind text, p_actor uuid, p_subject_kind text,
    p_subject uuid, p_client jsonb, p_data jsonb
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO audit_events (tenant_id, at, action, actor_kind, actor_id, subject_kind, subject_id, source, ip,
                              user_agent, request_id, data)
    VALUES (p_tenant, p_now, p_action, p_actor_kind, p_actor, p_subject_kind, p_subject, p_client ->> 'source',
            (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_client ->> 'request_id', p_data)
$$;

-- What a factor that came, changed or went brings about: half sign-ins are void, all sessions but the one that did it
-- end, and every known device is a stranger again. The person is told, and the log.
CREATE OR REPLACE FUNCTION fn.after_factor_change(
    p_now timestamptz, p_tenant uuid, p_subject_kind text, p_subject uuid, p_keep uuid, p_change text,
    p_actor_kind text, p_actor uuid, p_channels text[], p_client jsonb
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM fn.revoke_access(p_now, p_tenant, p_subject_kind, p_subject, ARRAY['halves', 'devices', 'sessions'],
                             'factor-changed', p_keep, p_actor_kind, p_actor, p_client);
    PERFORM fn.audit_factor(p_now, p_tenant, 'factor.' || p_change, p_actor_kind, p_actor, p_subject_kind, p_subject,
                            p_client, '{}');
    PERFORM fn.tell_of_factors(p_now, p_tenant, p_subject_kind, p_subject, p_change, p_channels);
END $$;

-- What the person of a session has (NULLs and 0 for nothing), and whether the session may change it.
CREATE OR REPLACE FUNCTION fn.subject_factors(
    p_now timestamptz, p_tenant uuid, p_session uuid, p_subject_kind text, p_subject uuid, p_fresh interval,
    p_admins_must boolean,
    OUT totp_since timestamptz, OUT totp_used_at timestamptz, OUT backup_codes integer, OUT required boolean, OUT off boolean, OUT may_change boolean
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    SELECT f.confirmed_at, f.used_at INTO totp_since, totp_used_at FROM factors f
    WHERE f.tenant_id = p_tenant AND f.subject_kind = p_subject_kind AND f.subject_id = p_subject
      AND f.confirmed_at IS NOT NULL;
    SELECT count(*) INTO backup_codes FROM backup_codes b
    WHERE b.tenant_id = p_tenant AND b.subject_kind = p_subject_kind AND b.subject_id = p_subject;
    required := fn.must_have_factor(p_tenant, p_subject_kind, p_subject, p_admins_must);
    off := fn.factors_off(p_tenant, p_subject_kind);
    may_change := fn.may_change_factors(p_now, p_tenant, p_session, p_subject_kind, p_subject, p_fresh);
END $$;

CREATE OR REPLACE FUNCTION fn.factors_off(p_tenant uuid, p_subject_kind text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT p_subject_kind <> 'admin'
       AND coalesce((SELECT t.policy ->> 'second_factor' FROM tenants t WHERE t.id = p_tenant), '') = 'off'
$$;

-- Whether a session may change its person's factors: begun within p_fresh, and with the factor there is. Whoever got
-- hold of a remembered device has proven nothing yet, or an app of theirs would shut its owner out.
CREATE OR REPLACE FUNCTION fn.may_change_factors(
    p_now timestamptz, p_tenant uuid, p_session uuid, p_subject_kind text, p_subject uuid, p_fresh interval
) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM sessions s
        WHERE s.tenant_id = p_tenant AND s.id = p_session AND s.subject_kind = p_subject_kind
          AND s.subject_id = p_subject AND s.ended_at IS NULL AND s.expires_at > p_now
          AND s.authenticated_at > p_now - p_fresh AND s.methods <> ARRAY['device']
          AND (s.methods && ARRAY['totp', 'backup_code']
               OR NOT fn.has_factor(p_tenant, p_subject_kind, p_subject)))
$$;

-- Whose half sign-in this is, for the pages and for an enrolment that begins with it. No row: over, or not there.
CREATE OR REPLACE FUNCTION fn.half_sign_in(p_now timestamptz, p_tenant uuid, p_half uuid, p_secret_hash bytea)
RETURNS TABLE (subject_kind text, subject uuid, slug text, name text, email text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN QUERY
    SELECT h.subject_kind, h.subject_id, t.slug, t.name, c.email
    FROM half_sign_ins h
    JOIN tenants t ON t.id = h.tenant_id
    CROSS JOIN LATERAL fn.subject_contacts(h.tenant_id, h.subject_kind, h.subject_id) AS c
    WHERE h.tenant_id = p_tenant AND h.id = p_half AND h.secret_hash = p_secret_hash AND h.ended_at IS NULL
      AND h.expires_at > p_now;
END $$;

-- Begins to set an authenticator app up, in place of one that isn't confirmed yet. `p_by` is the session, or (with
-- p_half_hash) the half sign-in, that will be shown the secret.
CREATE OR REPLACE FUNCTION fn.begin_enrolment(
    p_now timestamptz, p_tenant uuid, p_by uuid, p_half_hash bytea, p_subject_kind text, p_subject uuid,
    p_fresh interval, p_factor uuid, p_secret bytea, p_key_id text
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    PERFORM fn.lock_subject(p_subject, true);
    IF p_half_hash IS NOT NULL THEN
        PERFORM FROM half_sign_ins h
        WHERE h.tenant_id = p_tenant AND h.id = p_by AND h.secret_hash = p_half_hash AND h.next = 'enrol'
          AND h.subject_kind = p_subject_kind AND h.subject_id = p_subject AND h.ended_at IS NULL
          AND h.expires_at > p_now;
        IF NOT FOUND THEN
            RETURN 'over';
        END IF;
    ELSIF NOT fn.may_change_factors(p_now, p_tenant, p_by, p_subject_kind, p_subject, p_fresh) THEN
        RETURN 'stale';
    ELSIF fn.factors_off(p_tenant, p_subject_kind) THEN
        RETURN 'off';
    END IF;
    DELETE FROM factors
    WHERE tenant_id = p_tenant AND subject_kind = p_subject_kind AND subject_id = p_subject AND confirmed_at IS NULL;
    INSERT INTO factors (tenant_id, id, subject_kind, subject_id, secret, key_id, begun_by, created_at)
    VALUES (p_tenant, p_factor, p_subject_kind, p_subject, p_secret, p_key_id, p_by, p_now);
    RETURN 'begun';
END $$;

-- The app that this session or half sign-in is setting up.
CREATE OR REPLACE FUNCTION fn.pending_enrolment(p_tenant uuid, p_by uuid, p_subject_kind text, p_subject uuid)
RETURNS TABLE (factor uuid, secret bytea, key_id text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN QUERY
    SELECT f.id, f.secret, f.key_id FROM factors f
    WHERE f.tenant_id = p_tenant AND f.subject_kind = p_subject_kind AND f.subject_id = p_subject
      AND f.confirmed_at IS NULL AND f.begun_by = p_by;
END $$;

-- Puts an app in force, instead of the one there was. Backup codes stay: whoever changes phones has them already.
-- Answers false when it is no longer being set up. The caller holds the subject's lock.
CREATE OR REPLACE FUNCTION fn.confirm_factor(
    p_now timestamptz, p_tenant uuid, p_by uuid, p_factor uuid, p_step bigint, p_channels text[], p_client jsonb
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE f factors;
BEGIN
    SELECT * INTO f FROM factors
    WHERE tenant_id = p_tenant AND id = p_factor AND confirmed_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM fn.after_factor_change(p_now, p_tenant, f.subject_kind, f.subject_id, p_by, 'enrolled', f.subject_kind,
                                   f.subject_id, p_channels, p_client);
    DELETE FROM factors
    WHERE tenant_id = p_tenant AND subject_kind = f.subject_kind AND subject_id = f.subject_id AND id <> p_factor;
    UPDATE factors SET confirmed_at = p_now, used_at = p_now, last_step = p_step
    WHERE tenant_id = p_tenant AND id = p_factor;
    RETURN true;
END $$;

-- Confirms what a session has set up. From then on it counts as a session that was begun with the factor.
CREATE OR REPLACE FUNCTION fn.confirm_enrolment(
    p_now timestamptz, p_tenant uuid, p_session uuid, p_subject_kind text, p_subject uuid, p_fresh interval,
    p_factor uuid, p_step bigint, p_channels text[], p_client jsonb
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    PERFORM fn.lock_subject(p_subject, true);
    IF NOT fn.may_change_factors(p_now, p_tenant, p_session, p_subject_kind, p_subject, p_fresh) THEN
        RETURN 'stale';
    ELSIF NOT fn.confirm_factor(p_now, p_tenant, p_session, p_factor, p_step, p_channels, p_client) THEN
        RETURN 'over';
    END IF;
    UPDATE sessions SET methods = array_append(methods, 'totp')
    WHERE tenant_id = p_tenant AND id = p_session AND NOT 'totp' = ANY (methods);
    RETURN 'confirmed';
END $$;

-- Takes the app and the backup codes away.
CREATE OR REPLACE FUNCTION fn.remove_factor(
    p_now timestamptz, p_tenant uuid, p_session uuid, p_subject_kind text, p_subject uuid, p_fresh interval,
    p_admins_must boolean, p_channels text[], p_client jsonb
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    PERFORM fn.lock_subject(p_subject, true);
    IF NOT fn.has_factor(p_tenant, p_subject_kind, p_subject) THEN
        RETURN 'none';
    ELSIF NOT fn.may_change_factors(p_now, p_tenant, p_session, p_subject_kind, p_subject, p_fresh) THEN
        RETURN 'stale';
    ELSIF fn.must_have_factor(p_tenant, p_subject_kind, p_subject, p_admins_must) THEN
        RETURN 'required';
    END IF;
    PERFORM fn.after_factor_change(p_now, p_tenant, p_subject_kind, p_subject, p_session, 'removed', p_subject_kind,
                                   p_subject, p_channels, p_client);
    PERFORM fn.delete_factors(p_tenant, p_subject_kind, p_subject);
    RETURN 'removed';
END $$;

CREATE OR REPLACE FUNCTION fn.delete_factors(p_tenant uuid, p_subject_kind text, p_subject uuid)
RETURNS void LANGUAGE sql AS $$
    DELETE FROM factors WHERE tenant_id = p_tenant AND subject_kind = p_subject_kind AND subject_id = p_subject;
    DELETE FROM backup_codes WHERE tenant_id = p_tenant AND subject_kind = p_subject_kind AND subject_id = p_subject;
$$;

-- The same for somebody who lost theirs, by somebody who looks after them: every session ends. Answers whether there
-- was anything.
CREATE OR REPLACE FUNCTION fn.reset_factors(
    p_now timestamptz, p_tenant uuid, p_subject_kind text, p_subject uuid, p_actor_kind text, p_actor uuid,
    p_channels text[], p_client jsonb
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    PERFORM fn.lock_subject(p_subject, true);
    IF NOT fn.has_factor(p_tenant, p_subject_kind, p_subject) THEN
        RETURN false;
    END IF;
    PERFORM fn.after_factor_change(p_now, p_tenant, p_subject_kind, p_subject, NULL, 'reset', p_actor_kind, p_actor,
                                   p_channels, p_client);
    PERFORM fn.delete_factors(p_tenant, p_subject_kind, p_subject);
    RETURN true;
END $$;

-- New backup codes; the old ones are void. Sessions stay: nothing that was needed to sign in is different.
CREATE OR REPLACE FUNCTION fn.replace_backup_codes(
    p_now timestamptz, p_tenant uuid, p_session uuid, p_subject_kind text, p_subject uuid, p_fresh interval,
    p_ids uuid[], p_hashes bytea[], p_key_id text, p_channels text[], p_client jsonb
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    PERFORM fn.lock_subject(p_subject, true);
    IF NOT fn.has_factor(p_tenant, p_subject_kind, p_subject) THEN
        RETURN 'none';
    ELSIF NOT fn.may_change_factors(p_now, p_tenant, p_session, p_subject_kind, p_subject, p_fresh) THEN
        RETURN 'stale';
    END IF;
    DELETE FROM backup_codes WHERE tenant_id = p_tenant AND subject_kind = p_subject_kind AND subject_id = p_subject;
    INSERT INTO backup_codes (tenant_id, id, subject_kind, subject_id, code_hash, key_id, created_at)
    SELECT p_tenant, n.id, p_subject_kind, p_subject, n.code_hash, p_key_id, p_now
    FROM unnest(p_ids, p_hashes) AS n (id, code_hash);
    PERFORM fn.audit_factor(p_now, p_tenant, 'factor.backup_codes', p_subject_kind, p_subject, p_subject_kind,
                            p_subject, p_client, '{}');
    PERFORM fn.tell_of_factors(p_now, p_tenant, p_subject_kind, p_subject, 'backup_codes', p_channels);
    RETURN 'replaced';
END $$;
