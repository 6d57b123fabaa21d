-- The second half of a sign-in. The same pattern as for codes: an attempt is counted and committed before anything is
-- compared, and what was right is used up by the statement that begins the session.

-- Counts an attempt and answers with what it is to be compared with. `p_with`: `totp`, `backup_code`, or `enrol` for
-- the first code of an app that is being set up. `limited`: p_guesses codes of the app were wrong within a day; then
-- only a backup code, which nobody guesses, is taken.
CREATE OR REPLACE FUNCTION fn.count_factor_attempt(
    p_now timestamptz, p_tenant uuid, p_half uuid, p_secret_hash bytea, p_kind text, p_with text, p_guesses integer,
    OUT outcome text, OUT subject_kind text, OUT subject uuid, OUT subject_name text, OUT slug text, OUT name text,
    OUT device_id uuid, OUT attempts_left integer, OUT expires_at timestamptz, OUT retry_at timestamptz,
    OUT factor uuid, OUT secret bytea, OUT key_id text, OUT last_step bigint,
    OUT code_ids uuid[], OUT code_hashes bytea[], OUT code_keys text[]
) LANGUAGE plpgsql AS $$
DECLARE
    h half_sign_ins;
    f factors;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    UPDATE half_sign_ins i SET attempts = i.attempts + 1
    WHERE i.tenant_id = p_tenant AND i.id = p_half AND i.secret_hash = p_secret_hash AND i.kind = p_kind
      AND (i.next = 'enrol') = (p_with = 'enrol') AND i.ended_at IS NULL AND i.expires_at > p_now
      AND i.attempts < i.max_attempts
    RETURNING i.* INTO h;
    IF NOT FOUND THEN
        SELECT i.* INTO h FROM half_sign_ins i
        WHERE i.tenant_id = p_tenant AND i.id = p_half AND i.secret_hash = p_secret_hash AND i.ended_at IS NULL
          AND i.expires_at > p_now AND i.attempts >= i.max_attempts;
        outcome := CASE WHEN FOUND THEN 'too-many-attempts' ELSE 'over' END;
        expires_at := h.expires_at;
        RETURN;
    END IF;
    subject_kind := h.subject_kind;
    subject := h.subject_id;
    device_id := h.device_id;
    attempts_left := h.max_attempts - h.attempts;
    expires_at := h.expires_at;
    SELECT t.slug, t.name INTO slug, name FROM tenants t WHERE t.id = p_tenant;
    subject_name := coalesce(fn.subject_name(p_tenant, h.subject_kind, h.subject_id), name);
    outcome := 'counted';

    IF p_with = 'backup_code' THEN
        SELECT array_agg(b.id), array_agg(b.code_hash), array_agg(b.key_id) INTO code_ids, code_hashes, code_keys
        FROM backup_codes b
        WHERE b.tenant_id = p_tenant AND b.subject_kind = h.subject_kind AND b.subject_id = h.subject_id;
        RETURN;
    END IF;
    IF p_with = 'totp' THEN
        UPDATE factors i SET guesses = fn.recent(i.guesses, p_now, '1 day') || p_now
        WHERE i.tenant_id = p_tenant AND i.subject_kind = h.subject_kind AND i.subject_id = h.subject_id
          AND i.confirmed_at IS NOT NULL AND cardinality(fn.recent(i.guesses, p_now, '1 day')) < p_guesses
        RETURNING i.* INTO f;
        IF NOT FOUND THEN
            SELECT (fn.recent(i.guesses, p_now, '1 day'))[1] + interval '1 day' INTO retry_at FROM factors i
            WHERE i.tenant_id = p_tenant AND i.subject_kind = h.subject_kind AND i.subject_id = h.subject_id
              AND i.confirmed_at IS NOT NULL;
            outcome := CASE WHEN FOUND THEN 'limited' ELSE 'over' END;
            RETURN;
        END IF;
    ELSE
        SELECT i.* INTO f FROM factors i
        WHERE i.tenant_id = p_tenant AND i.subject_kind = h.subject_kind AND i.subject_id = h.subject_id
          AND i.confirmed_at IS NULL AND i.begun_by = p_half;
        IF NOT FOUND THEN
            outcome := 'over';
            RETURN;
        END IF;
    END IF;
    factor := f.id;
    secret := f.secret;
    key_id := f.key_id;
    last_step := f.last_step;
END $$;

-- Leaves the evidence of a wrong code. `p_seconds`: by how much the app's clock is wrong, where the code tells (negative:
-- slow). `p_told`: the step to come whose code it is; as that was told, nobody signs in with it.
CREATE OR REPLACE FUNCTION fn.fail_factor_attempt(
    p_now timestamptz, p_tenant uuid, p_half uuid, p_with text, p_client jsonb, p_seconds integer, p_factor uuid,
    p_told bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE h half_sign_ins;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    SELECT * INTO h FROM half_sign_ins WHERE tenant_id = p_tenant AND id = p_half;
    IF p_told IS NOT NULL THEN
        -- Those that ten minutes have passed by are no longer kept.
        UPDATE factors SET told_steps = ARRAY(SELECT t FROM unnest(told_steps) AS t WHERE t > p_told - 40) || p_told
        WHERE tenant_id = p_tenant AND id = p_factor;
    END IF;
    PERFORM fn.audit_factor(p_now, p_tenant, 'factor.wrong', 'anonymous', NULL, h.subject_kind, h.subject_id, p_client,
        jsonb_strip_nulls(jsonb_build_object('with', p_with, 'attempts_left', h.max_attempts - h.attempts,
                                             'clock_off_by', p_seconds)));
END $$;

-- Uses up what was right (a step of the app, a backup code, or the first code of a new app) and begins the session,
-- once. `replayed`: this very code was used already. `over`: somebody else was first, or the person may not sign in.
CREATE OR REPLACE FUNCTION fn.complete_half_sign_in(
    p_now timestamptz, p_tenant uuid, p_half uuid, p_factor uuid, p_step bigint, p_code uuid, p_session uuid,
    p_kind text, p_secret_hash bytea, p_refresh_hash bytea, p_ttl integer, p_client jsonb, p_new_device uuid,
    p_device_ttl interval, p_channels text[]
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE h half_sign_ins;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    PERFORM FROM tenants WHERE id = p_tenant AND status = 'active';
    IF NOT FOUND THEN
        RETURN 'over';
    END IF;
    SELECT * INTO h FROM half_sign_ins WHERE tenant_id = p_tenant AND id = p_half;
    PERFORM fn.lock_subject(h.subject_id, h.next = 'enrol');
    SELECT * INTO h FROM half_sign_ins
    WHERE tenant_id = p_tenant AND id = p_half AND ended_at IS NULL AND expires_at > p_now FOR UPDATE;
    IF NOT FOUND OR NOT (CASE h.subject_kind
        WHEN 'admin' THEN EXISTS (
            SELECT FROM admins a WHERE a.tenant_id = p_tenant AND a.id = h.subject_id AND a.status = 'active')
        WHEN 'member' THEN EXISTS (
            SELECT FROM members m WHERE m.tenant_id = p_tenant AND m.id = h.subject_id AND m.status = 'active')
        ELSE true END)
    THEN
        RETURN 'over';
    END IF;
    IF h.next = 'enrol' THEN
        -- Somebody else may have enrolled this person meanwhile; then that factor is demanded.
        IF fn.has_factor(p_tenant, h.subject_kind, h.subject_id)
           OR NOT fn.confirm_factor(p_now, p_tenant, p_half, p_factor, p_step, p_channels, p_client) THEN
            RETURN 'over';
        END IF;
    ELSIF p_code IS NULL THEN
        UPDATE factors SET last_step = p_step, used_at = p_now, guesses = guesses[:cardinality(guesses) - 1]
        WHERE tenant_id = p_tenant AND id = p_factor AND confirmed_at IS NOT NULL AND last_step < p_step
          AND NOT p_step = ANY (told_steps);
        IF NOT FOUND THEN
            RETURN 'replayed';
        END IF;
    ELSE
        DELETE FROM backup_codes
        WHERE tenant_id = p_tenant AND id = p_code AND subject_kind = h.subject_kind AND subject_id = h.subject_id;
        IF NOT FOUND THEN
            RETURN 'replayed';
        END IF;
        PERFORM fn.tell_of_factors(p_now, p_tenant, h.subject_kind, h.subject_id, 'backup_code_used', p_channels);
    END IF;
    UPDATE half_sign_ins SET ended_at = p_now WHERE tenant_id = p_tenant AND id = p_half;
    IF NOT fn.start_session(p_now, p_tenant, h.subject_kind, h.subject_id, h.challenge_id, p_session, p_kind,
                            p_secret_hash, p_refresh_hash, p_ttl,
                            h.methods || CASE WHEN p_code IS NULL THEN 'totp' ELSE 'backup_code' END, h.device_name,
                            p_client, CASE WHEN h.next <> 'enrol' THEN h.device_id END, p_new_device,
                            p_device_ttl, h.remember_device) THEN
        RETURN 'over';
    END IF;
    RETURN 'signed-in';
END $$;
