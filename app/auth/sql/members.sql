-- What signing in as a member needs beside what everybody needs.

-- Whether an address counts as the member's: one that isn't proven doesn't, where proof is asked for, unless nothing
-- else of theirs is proven either.
CREATE OR REPLACE FUNCTION fn.counts(p_must boolean, p_proven timestamptz, p_other timestamptz)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT NOT p_must OR p_proven IS NOT NULL OR p_other IS NULL $$;

-- The member whose address this is. One of the two is NULL.
CREATE OR REPLACE FUNCTION fn.find_member(p_tenant uuid, p_email text, p_phone text)
RETURNS members LANGUAGE plpgsql STABLE AS $$
DECLARE m members;
BEGIN
    IF p_email IS NOT NULL THEN
        SELECT * INTO m FROM members
        WHERE tenant_id = p_tenant AND email = p_email AND fn.counts(must_verify, email_verified_at, phone_verified_at);
    ELSE
        SELECT * INTO m FROM members
        WHERE tenant_id = p_tenant AND phone_number = p_phone
          AND fn.counts(must_verify, phone_verified_at, email_verified_at);
    END IF;
    RETURN m;
END $$;

-- A member as stored by now, for whoever is signed in as one.
CREATE OR REPLACE FUNCTION fn.own_member(p_tenant uuid, p_member uuid) RETURNS SETOF members LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN QUERY SELECT * FROM members WHERE tenant_id = p_tenant AND id = p_member;
END $$;

-- What a person is called; NULL for a tenant, which has a name of its own, and for nobody.
CREATE OR REPLACE FUNCTION fn.subject_name(p_tenant uuid, p_kind text, p_subject uuid)
RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE p_kind
        WHEN 'admin' THEN (SELECT a.name FROM admins a WHERE a.tenant_id = p_tenant AND a.id = p_subject)
        WHEN 'member' THEN (SELECT m.name FROM members m WHERE m.tenant_id = p_tenant AND m.id = p_subject)
    END;
END $$;

-- Where the next code of a challenge can go.
CREATE OR REPLACE FUNCTION fn.reachable_at(p_tenant tenants, c challenges, OUT email text, OUT phone_number text)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF c.purpose IN ('register', 'contact') THEN
        -- By the address that the first one went to, and no other.
        SELECT CASE c.channel WHEN 'email' THEN k.email END, CASE c.channel WHEN 'email' THEN NULL ELSE k.phone_number END
        INTO email, phone_number FROM claims k WHERE k.tenant_id = c.tenant_id AND k.id = c.id;
    ELSIF c.subject_kind = 'admin' THEN
        SELECT a.email INTO email FROM admins a
        WHERE a.tenant_id = c.tenant_id AND a.id = c.subject_id AND a.status = 'active';
    ELSIF c.subject_kind = 'member' THEN
        SELECT CASE WHEN fn.counts(m.must_verify, m.email_verified_at, m.phone_verified_at) THEN m.email END,
               CASE WHEN fn.counts(m.must_verify, m.phone_verified_at, m.email_verified_at) THEN m.phone_number END
        INTO email, phone_number
        FROM members m WHERE m.tenant_id = c.tenant_id AND m.id = c.subject_id AND m.status = 'active';
    ELSE
        email := p_tenant.email;
        phone_number := p_tenant.phone_number;
    END IF;
END $$;

-- A device that has signed this subject in before and still counts, or NULLs.
CREATE OR REPLACE FUNCTION fn.known_device(p_now timestamptz, p_tenant uuid, p_device uuid, p_kind text, p_subject uuid)
RETURNS devices LANGUAGE plpgsql STABLE AS $$
DECLARE d devices;
BEGIN
    SELECT * INTO d FROM devices
    WHERE tenant_id = p_tenant AND id = p_device AND subject_id = p_subject AND subject_kind = p_kind
      AND revoked_at IS NULL AND expires_at > p_now;
    RETURN d;
END $$;

-- Until when a device that was remembered then may stand for the code; NULL without such a policy.
CREATE OR REPLACE FUNCTION fn.remembered_until(p_policy jsonb, p_remembered timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT p_remembered + interval '1 day' * nullif((p_policy ->> 'remember_device_days')::integer, 0);
$$;

-- Whether something else stands for the code: a remembered device, by policy; or the password, for a member whose codes
-- an admin has switched off. Where no password is asked for, a code is all there is, and the switch means nothing.
-- Where a second factor has to be set up first, the device stands for nothing: what is enrolled then stays.
CREATE OR REPLACE FUNCTION fn.needs_no_code(
    p_now timestamptz, p_policy jsonb, p_tenant uuid, p_kind text, p_subject uuid, m members, p_remembered timestamptz,
    p_proven text
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_kind = 'member' AND m.must_verify AND m.email_verified_at IS NULL AND m.phone_verified_at IS NULL THEN
        RETURN false;
    END IF;
    RETURN p_kind IN ('tenant', 'member')
           AND coalesce(fn.remembered_until(p_policy, p_remembered) > p_now, false)
           AND (p_policy ->> 'second_factor' IS DISTINCT FROM 'required' OR fn.has_factor(p_tenant, p_kind, p_subject))
        OR p_kind = 'member' AND p_policy ->> 'first_factor' = 'password' AND p_proven IS NOT NULL
           AND NOT m.codes_enabled;
END $$;

-- From now on this device may stand for the code, for as long as the policy says: for the code alone, since whoever
-- has a second factor is asked for it behind every first one (fn.begin_session). The caller has named the tenant.
CREATE OR REPLACE FUNCTION fn.remember_device(p_now timestamptz, p_tenant uuid, p_device uuid)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE devices SET remembered_at = p_now
    WHERE tenant_id = p_tenant AND id = p_device AND revoked_at IS NULL AND subject_kind <> 'admin'
      AND (SELECT (t.policy ->> 'remember_device_days')::integer FROM tenants t WHERE t.id = p_tenant) > 0;
END $$;

-- Notes that the member has the address a code just went to.
CREATE OR REPLACE FUNCTION fn.note_proven(p_now timestamptz, p_tenant uuid, p_member uuid, p_channel text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_channel = 'email' THEN
        UPDATE members SET email_verified_at = p_now
        WHERE tenant_id = p_tenant AND id = p_member AND email_verified_at IS NULL;
    ELSIF p_channel IN ('sms', 'whatsapp') THEN
        UPDATE members SET phone_verified_at = p_now
        WHERE tenant_id = p_tenant AND id = p_member AND phone_verified_at IS NULL;
    END IF;
END $$;

-- Counts a password before anything is compared, in a transaction of its own, and answers with what it is compared
-- with: nothing, for whoever isn't there or has none. As many in an hour as codes could be guessed at, at an address and,
-- unseen, over all addresses of a person (see quota.sql): `limited` then, or compared with nothing. All known devices of
-- a person have one lane. Outcome `stranger` as in fn.request_code.
CREATE OR REPLACE FUNCTION fn.try_password(
    p_now timestamptz, p_slug text, p_stand_in uuid, p_email text, p_phone text, p_recipient_key bytea, p_device uuid,
    p_attempts integer, p_hourly integer, p_door_key bytea, p_known_only boolean,
    OUT outcome text, OUT tenant uuid, OUT subject_kind text, OUT subject uuid, OUT quota_key bytea, OUT quota_lane text,
    OUT hash text, OUT retry_at timestamptz, OUT device_known boolean
) LANGUAGE plpgsql AS $$
DECLARE
    r       record;
    v_limit integer;
    v_seen  bytea;
    v_room  boolean;
    v_row   quota;
BEGIN
    SELECT * INTO r FROM fn.resolve_recipient(p_slug, p_stand_in, p_email, p_phone, NULL, '{}');
    tenant := r.tenant;
    device_known := (fn.known_device(p_now, r.tenant, p_device, r.subject_kind, r.subject)).id IS NOT NULL;
    IF p_known_only AND NOT device_known THEN
        outcome := 'stranger';
        RETURN;
    END IF;
    subject_kind := CASE r.subject_kind WHEN 'newcomer' THEN 'tenant' ELSE r.subject_kind END;
    subject := coalesce(r.subject, r.tenant);
    quota_key := coalesce(uuid_send(coalesce(r.subject, (r.member).id)), p_recipient_key);
    quota_lane := CASE WHEN device_known THEN 'devices' ELSE '' END;
    v_seen := CASE WHEN device_known THEN quota_key ELSE p_door_key END;
    v_limit := least(p_attempts, (r.policy ->> 'max_attempts')::integer)
             * least(p_hourly, (r.policy ->> 'hourly_limit')::integer);
    INSERT INTO quota AS q (tenant_id, recipient_key, lane, person_key, sends, seen_at, password_tries)
    VALUES (tenant, v_seen, quota_lane, quota_key, '{}', p_now, ARRAY[p_now])
    ON CONFLICT (tenant_id, recipient_key, lane) DO UPDATE
        SET password_tries = fn.recent(q.password_tries, greatest(p_now, q.seen_at)) || greatest(p_now, q.seen_at),
            seen_at = greatest(p_now, q.seen_at), person_key = excluded.person_key
        WHERE fn.may_try_password(q, greatest(p_now, q.seen_at), v_limit);
    IF NOT FOUND THEN
        SELECT * INTO v_row FROM quota q
        WHERE q.tenant_id = tenant AND q.recipient_key = v_seen AND q.lane = quota_lane;
        retry_at := greatest(v_row.locked_until,
            CASE WHEN cardinality(v_row.password_tries) >= v_limit
                 THEN v_row.password_tries[cardinality(v_row.password_tries) - v_limit + 1] + interval '1 hour' END);
        PERFORM fn.refuse(p_now, tenant, quota_key,
                          CASE WHEN v_row.locked_until > p_now THEN 'locked' ELSE 'password' END);
        outcome := 'limited';
        RETURN;
    END IF;
    hash := CASE WHEN r.subject_kind = 'member' AND (r.member).status = 'active' THEN (r.member).password_hash END;
    IF NOT device_known THEN
        INSERT INTO quota AS q (tenant_id, recipient_key, lane, sends, seen_at, password_tries)
        VALUES (tenant, quota_key, '', '{}', p_now, ARRAY[p_now])
        ON CONFLICT (tenant_id, recipient_key, lane) DO UPDATE
            SET admitted = fn.may_try_password(q, greatest(p_now, q.seen_at), v_limit),
                password_tries = fn.recent(q.password_tries, greatest(p_now, q.seen_at))
                    || CASE WHEN fn.may_try_password(q, greatest(p_now, q.seen_at), v_limit)
                            THEN ARRAY[greatest(p_now, q.seen_at)] ELSE '{}' END,
                seen_at = greatest(p_now, q.seen_at)
        RETURNING q.admitted INTO v_room;
        IF NOT v_room THEN
            hash := NULL;
            PERFORM fn.refuse(p_now, tenant, quota_key, 'password');
        END IF;
    END IF;
    outcome := 'compare';
END $$;

-- Leaves the evidence of a wrong password.
CREATE OR REPLACE FUNCTION fn.fail_password(
    p_now timestamptz, p_tenant uuid, p_subject_kind text, p_subject uuid, p_person bytea, p_door bytea, p_lane text,
    p_client jsonb
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    PERFORM fn.count_wrong_guess(p_now, p_tenant, p_person, p_door, p_lane, NULL);
    PERFORM fn.write_audit(p_now, p_tenant, 'password.wrong', p_subject_kind, p_subject, NULL, p_client, '{}');
END $$;

-- The password was right: this try is none, wherever fn.try_password counted it.
CREATE OR REPLACE FUNCTION fn.forget_password_tries(
    p_tenant uuid, p_person bytea, p_door bytea, p_device_known boolean
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_device_known THEN
        UPDATE quota SET password_tries = password_tries[:cardinality(password_tries) - 1]
        WHERE tenant_id = p_tenant AND recipient_key = p_person AND lane = 'devices';
        RETURN;
    END IF;
    UPDATE quota SET password_tries = password_tries[:cardinality(password_tries) - 1]
    WHERE tenant_id = p_tenant AND recipient_key = p_door AND lane = '';
    UPDATE quota SET password_tries = password_tries[:cardinality(password_tries) - 1]
    WHERE tenant_id = p_tenant AND recipient_key = p_person AND lane = '';
END $$;

-- Begins a session, or what comes before it, where fn.needs_no_code says so. Answers as fn.count_attempt does, for the
-- caller to make the sign-in; `outcome` as fn.begin_session.
CREATE OR REPLACE FUNCTION fn.sign_in_without_code(
    p_now timestamptz, p_slug text, p_stand_in uuid, p_email text, p_phone text, p_door_key bytea, p_device uuid,
    p_proven text, p_session uuid, p_kind text, p_secret_hash bytea, p_refresh_hash bytea, p_ttl integer, p_client jsonb,
    p_new_device uuid, p_device_ttl interval, p_half_hash bytea, p_half_ttl interval, p_admins_must boolean,
    OUT outcome text, OUT tenant uuid, OUT slug text, OUT name text, OUT subject_kind text, OUT subject uuid,
    OUT subject_name text, OUT device_id uuid
) LANGUAGE plpgsql AS $$
DECLARE
    r        record;
    v_device devices;
BEGIN
    outcome := 'refused';
    SELECT * INTO r FROM fn.resolve_recipient(p_slug, p_stand_in, p_email, p_phone, NULL, '{}');
    -- No challenge is held here that a change of the person would wait for. So this waits for such a change and looks
    -- again: an old password or a device that was just forgotten must not outlive it.
    PERFORM fn.lock_subject(r.subject, false);
    PERFORM FROM devices d WHERE d.tenant_id = r.tenant AND d.id = p_device FOR NO KEY UPDATE;
    SELECT * INTO r FROM fn.resolve_recipient(p_slug, p_stand_in, p_email, p_phone, NULL, '{}');
    IF r.subject IS NULL OR r.problem IN ('tenant-not-found', 'tenant-suspended', 'recipient-unknown',
                                          'identifier-missing') THEN
        RETURN;
    END IF;
    IF r.subject_kind = 'member' AND r.policy ->> 'first_factor' = 'password'
       AND NOT coalesce(p_proven = (r.member).password_hash, false) THEN
        RETURN;
    END IF;
    v_device := fn.known_device(p_now, r.tenant, p_device, r.subject_kind, r.subject);
    IF NOT fn.needs_no_code(p_now, r.policy, r.tenant, r.subject_kind, r.subject, r.member, v_device.remembered_at,
                            p_proven) THEN
        RETURN;
    END IF;
    tenant := r.tenant;
    subject_kind := r.subject_kind;
    subject := r.subject;
    device_id := v_device.id;
    SELECT t.slug, t.name INTO slug, name FROM tenants t WHERE t.id = r.tenant;
    subject_name := coalesce((r.member).name, name);
    outcome := fn.begin_session(p_now, tenant, subject_kind, subject, NULL, p_session, p_kind, p_secret_hash,
        p_refresh_hash, p_ttl,
        array_remove(ARRAY[CASE WHEN p_proven IS NOT NULL THEN 'password' END,
                           CASE WHEN v_device.remembered_at IS NOT NULL THEN 'device' END], NULL),
        NULL, p_client, v_device.id, p_new_device, p_device_ttl, p_half_hash, p_half_ttl, p_admins_must);
    IF p_proven IS NOT NULL THEN
        PERFORM fn.forget_password_tries(tenant, uuid_send(subject), p_door_key, v_device.id IS NOT NULL);
    END IF;
    PERFORM fn.forgive_failures(tenant, uuid_send(subject), p_door_key, coalesce(v_device.id::text, ''));
END $$;
