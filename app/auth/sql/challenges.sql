-- The hot path of sign-in: one statement a step. Each function names its tenant first, so row-level security holds
-- inside it too (SECURITY INVOKER). `p_stand_in` is the tenant id that a slug nobody has gets: the very same
-- statements then run for it, on rows of its own.

-- Sends inside the hour that ends at p_now, both ends counted, so no window edge admits one more. They stand in their
-- order, so those before are at the front: without a statement. Where clocks disagreed, it is one.
CREATE OR REPLACE FUNCTION fn.recent(p_sends timestamptz[], p_now timestamptz, p_span interval DEFAULT '1 hour')
RETURNS timestamptz[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    v_since timestamptz := p_now - p_span;
    v_first integer := 1;
BEGIN
    WHILE p_sends[v_first] < v_since LOOP
        v_first := v_first + 1;
    END LOOP;
    IF v_since <= ALL (p_sends[v_first:]) THEN
        RETURN p_sends[v_first:];
    END IF;
    RETURN ARRAY(SELECT s FROM unnest(p_sends) AS s WHERE s >= v_since ORDER BY s);
END $$;

CREATE OR REPLACE FUNCTION fn.refuse(p_now timestamptz, p_tenant uuid, p_key bytea, p_reason text)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO refusals AS r (tenant_id, recipient_key, reason, minute, first_at, last_at)
    VALUES (p_tenant, p_key, p_reason, date_trunc('minute', p_now), p_now, p_now)
    ON CONFLICT (tenant_id, recipient_key, reason, minute) DO UPDATE
        SET count = r.count + 1, first_at = least(r.first_at, p_now), last_at = greatest(r.last_at, p_now)
$$;

-- The channel a code goes by: the one asked for, else the preferred, else the first fallback, each only with a
-- contact and a provider that is switched on. Otherwise why not.
CREATE OR REPLACE FUNCTION fn.pick_channel(
    p_asked text, p_preferred text, p_fallbacks text[], p_email text, p_phone text, p_channels text[],
    OUT channel text, OUT problem text
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_wanted  text[] := CASE WHEN p_asked IS NULL THEN p_preferred || p_fallbacks ELSE ARRAY[p_asked] END;
    v_contact boolean := false;
    v_channel text;
BEGIN
    FOREACH v_channel IN ARRAY v_wanted LOOP
        IF (CASE v_channel WHEN 'email' THEN p_email WHEN 'push' THEN NULL ELSE p_phone END) IS NOT NULL THEN
            v_contact := true;
            IF v_channel = ANY (p_channels) THEN
                channel := v_channel;
                RETURN;
            END IF;
        END IF;
    END LOOP;
    problem := CASE
        WHEN v_contact THEN 'channel-unavailable'
        WHEN p_asked IS NOT NULL AND (p_email IS NOT NULL OR p_phone IS NOT NULL) THEN 'channel-unavailable'
        ELSE 'contact-missing'
    END;
END $$;

CREATE OR REPLACE FUNCTION fn.write_audit(
    p_now timestamptz, p_tenant uuid, p_action text, p_subject_kind text, p_subject uuid, p_challenge uuid,
    p_client jsonb, p_data jsonb
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_events (tenant_id, at, action, actor_kind, actor_id, subject_kind, subject_id, challenge_id,
                              source, ip, user_agent, request_id, data)
    VALUES (p_tenant, p_now, p_action, 'anonymous', NULL, p_subject_kind, p_subject, p_challenge,
            p_client ->> 'source', (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_client ->> 'request_id',
            p_data);
END $$;

-- Who a code is for, and whether it can be sent. Not found, suspended, unreachable: `problem` says why and the rest
-- is filled in all the same, `subject` too, unless nobody here is whom the caller named or had to name.
--   subject_kind `newcomer`: nobody here has that address, and whoever proves it may become a member
CREATE OR REPLACE FUNCTION fn.resolve_recipient(
    p_slug text, p_stand_in uuid, p_email text, p_phone text, p_asked text, p_channels text[],
    OUT tenant uuid, OUT policy jsonb, OUT subject_kind text, OUT subject uuid, OUT channel text, OUT problem text,
    OUT member members
) LANGUAGE plpgsql AS $$
DECLARE
    v_tenant    tenants;
    v_named     boolean := p_email IS NOT NULL OR p_phone IS NOT NULL;
    v_typed     text[] := CASE WHEN p_email IS NULL AND v_named THEN ARRAY['sms', 'whatsapp'] ELSE ARRAY['email'] END;
    v_preferred text;
    v_fallbacks text[];
    v_email     text;
    v_phone     text;
    v_picked    record;
BEGIN
    PERFORM set_config('app.tenant_slug', p_slug, true);
    SELECT * INTO v_tenant FROM tenants WHERE slug = p_slug;
    tenant := coalesce(v_tenant.id, p_stand_in);
    PERFORM set_config('app.tenant_id', tenant::text, true);
    policy := coalesce(v_tenant.policy, '{}');
    subject_kind := 'tenant';
    subject := tenant;
    v_preferred := coalesce(v_tenant.otp_delivery_method, 'email');
    v_fallbacks := coalesce(v_tenant.fallback_methods, '{}');

    IF p_slug = '_system' THEN
        subject_kind := 'admin';
        SELECT a.id, a.email INTO subject, v_email FROM admins a
        WHERE a.tenant_id = tenant AND a.email = p_email AND a.status = 'active';
        v_fallbacks := ARRAY['email'];
    ELSIF NOT v_named THEN
        v_email := v_tenant.email;
        v_phone := v_tenant.phone_number;
    ELSE
        member := fn.find_member(tenant, p_email, p_phone);
        IF member.status <> 'pending' THEN
            subject_kind := 'member';
            subject := member.id;
            v_email := CASE WHEN fn.counts(member.must_verify, member.email_verified_at, member.phone_verified_at)
                            THEN member.email END;
            v_phone := CASE WHEN fn.counts(member.must_verify, member.phone_verified_at, member.email_verified_at)
                            THEN member.phone_number END;
            v_preferred := coalesce(member.preferred_method, v_typed[1]);
            v_fallbacks := v_typed || ARRAY['email', 'sms', 'whatsapp'];
        ELSIF v_tenant.email = p_email OR v_tenant.phone_number = p_phone THEN
            -- The tenant's own contact, named.
            v_email := CASE WHEN v_tenant.email = p_email THEN p_email END;
            v_phone := CASE WHEN v_tenant.phone_number = p_phone THEN p_phone END;
            v_fallbacks := v_typed || v_fallbacks;
        ELSE
            subject := NULL;
            IF policy ->> 'registration' = 'open'
               OR policy ->> 'registration' = 'invite' AND member.status = 'pending' THEN
                subject_kind := 'newcomer';
                v_email := p_email;
                v_phone := CASE WHEN p_email IS NULL THEN p_phone END;
                v_preferred := v_typed[1];
                v_fallbacks := v_typed;
            END IF;
        END IF;
    END IF;
    IF NOT v_named AND coalesce((policy ->> 'require_contact')::boolean, false) THEN
        subject := NULL;
    END IF;

    v_picked := fn.pick_channel(p_asked, v_preferred, v_fallbacks, v_email, v_phone, p_channels);
    channel := v_picked.channel;
    problem := CASE
        WHEN v_tenant.id IS NULL THEN 'tenant-not-found'
        WHEN v_tenant.status <> 'active' THEN 'tenant-suspended'
        WHEN NOT v_named AND subject IS NULL THEN 'identifier-missing'
        WHEN subject IS NULL AND subject_kind <> 'newcomer' THEN 'recipient-unknown'
        WHEN subject_kind = 'member' AND member.status <> 'active' THEN 'recipient-unknown'
        ELSE v_picked.problem
    END;
    channel := coalesce(channel, p_asked, 'email');
END $$;

-- What the code is for:
--   sign_in   to begin a session; a newcomer's makes room for a registration
--   reset     the same, for a member who has forgotten the password
--   register  to become the member that `p_claim` describes
--   contact   to prove the address that the member p_claim names wants to have
-- `p_proven` is the hash that a right password matched. Outcome `no-code-needed`, unless p_claim says `always`:
-- fn.sign_in_without_code may follow. Outcome `password-wanted`, to everybody: nobody becomes a member here without
-- one. It depends on the tenant's policy alone, so it says nothing of the address. Outcome `stranger`, and nothing else
-- happened: with p_known_only nobody gets in but a device of the person who is asked for.
CREATE OR REPLACE FUNCTION fn.request_code(
    p_now timestamptz, p_slug text, p_stand_in uuid, p_email text, p_phone text, p_asked text, p_channels text[],
    p_disclose boolean, p_challenge uuid, p_outbox uuid, p_recipient_key bytea, p_salt bytea, p_key_id text,
    p_digest_6 bytea, p_digest_8 bytea, p_digest_decoy bytea, p_length integer, p_ttl integer, p_attempts integer,
    p_hourly integer, p_cooldown integer, p_locale text, p_client jsonb, p_device uuid, p_device_hourly integer,
    p_purpose text, p_proven text, p_claim jsonb, p_door_key bytea, p_known_only boolean,
    OUT outcome text, OUT code_length integer, OUT expires_at timestamptz, OUT resend_at timestamptz,
    OUT asked_at timestamptz, OUT retry_at timestamptz, OUT device_known boolean
) LANGUAGE plpgsql AS $$
DECLARE
    r            record;
    v_claims     record;
    v_spent      record;
    v_person     bytea;
    v_decoy      boolean;
    v_device     devices;
    v_subject    uuid;
    v_kind       text;
    v_purpose    text := p_purpose;
    v_taken      boolean := false;
    v_hourly     integer;
    v_per_minute integer;
    v_attempts   integer;
    v_used       integer;
    v_refusal    text;
BEGIN
    r := fn.resolve_recipient(p_slug, p_stand_in, p_email, p_phone, p_asked, p_channels);
    IF p_purpose IN ('register', 'contact') THEN
        SELECT j.channel, j.problem, j.taken INTO r.channel, r.problem, v_taken
        FROM fn.judge_claim(r.policy, r.member, r.problem, p_purpose, (p_claim ->> 'member')::uuid, p_asked, p_email,
                            p_phone, p_channels) AS j;
    ELSIF r.problem IS NULL AND r.subject_kind = 'member' AND p_purpose = 'sign_in'
          AND r.policy ->> 'first_factor' = 'password'
          AND NOT coalesce(p_proven = (r.member).password_hash, false) THEN
        r.problem := 'password-missing';
    ELSIF r.problem IS NULL AND p_purpose = 'reset' AND r.subject_kind <> 'member' THEN
        r.problem := 'recipient-unknown';
    END IF;
    v_decoy := r.problem IS NOT NULL;
    -- Looked for whoever is asked for, and whether they are here or not: the time it takes tells nothing.
    IF p_device IS NOT NULL AND p_purpose IN ('sign_in', 'reset') THEN
        v_device := fn.known_device(p_now, r.tenant, p_device, r.subject_kind, r.subject);
        IF v_decoy THEN
            v_device := NULL;
        END IF;
    END IF;
    device_known := v_device.id IS NOT NULL;
    IF p_known_only AND NOT device_known THEN
        outcome := 'stranger';
        RETURN;
    END IF;
    IF p_disclose AND r.problem IS NOT NULL THEN
        outcome := r.problem;
        RETURN;
    END IF;
    IF p_purpose = 'register' AND fn.wants_password(r.policy, p_claim)
       AND r.problem IS DISTINCT FROM 'tenant-suspended' THEN
        outcome := 'password-wanted';
        RETURN;
    END IF;
    IF NOT v_decoy AND p_purpose = 'sign_in' AND NOT (p_claim ->> 'always')::boolean
       AND (p_device IS NOT NULL OR p_proven IS NOT NULL)
       AND fn.needs_no_code(p_now, r.policy, r.tenant, r.subject_kind, r.subject, r.member, v_device.remembered_at,
                            p_proven) THEN
        outcome := 'no-code-needed';
        RETURN;
    END IF;

    -- Whoever has the address, whatever the code is for. Who isn't here is named by what was typed.
    v_person := coalesce(uuid_send(coalesce(r.subject, (r.member).id)), p_recipient_key);
    v_hourly := least(CASE WHEN device_known THEN p_device_hourly ELSE p_hourly END,
                      (r.policy ->> 'hourly_limit')::integer);
    v_per_minute := least(p_hourly, (r.policy ->> 'per_minute_limit')::integer);
    v_attempts := least(p_attempts, (r.policy ->> 'max_attempts')::integer);
    IF p_purpose = 'contact' THEN
        -- Nor does one member have codes sent to any number of addresses.
        v_claims := fn.spend_quota(p_now, r.tenant, uuid_send((p_claim ->> 'member')::uuid), 'contacts', NULL, v_hourly,
                                   v_per_minute);
        v_used := v_claims.used;
        v_refusal := v_claims.refusal;
        retry_at := v_claims.retry_at;
    END IF;
    IF v_refusal IS NULL THEN
        v_spent := fn.spend_code(p_now, r.tenant, v_person, CASE WHEN NOT p_disclose THEN p_door_key END, v_device.id,
                                 v_hourly, v_per_minute, v_attempts,
                                 greatest(p_length, (r.policy ->> 'code_length')::integer), NOT v_decoy OR v_taken);
        v_used := coalesce(v_used, v_spent.used);
        v_refusal := v_spent.refusal;
        retry_at := v_spent.retry_at;
        IF v_refusal IS NOT NULL AND p_purpose = 'contact' THEN
            PERFORM fn.take_back_send(r.tenant, uuid_send((p_claim ->> 'member')::uuid), 'contacts');
        END IF;
    END IF;
    IF v_refusal IS NOT NULL THEN
        PERFORM fn.refuse(p_now, r.tenant, v_person, v_refusal);
        outcome := 'rate-limited';
        asked_at := p_now;
        RETURN;
    END IF;
    IF p_proven IS NOT NULL THEN
        PERFORM fn.forget_password_tries(r.tenant, v_person, p_door_key, device_known);
    END IF;
    IF v_spent.withheld IS NOT NULL THEN
        r.problem := coalesce(r.problem, v_spent.withheld);
        v_decoy := true;
        v_taken := false;
    END IF;

    v_subject := coalesce(r.subject, CASE r.subject_kind WHEN 'admin' THEN p_stand_in ELSE r.tenant END);
    v_kind := CASE r.subject_kind WHEN 'newcomer' THEN 'member' ELSE r.subject_kind END;
    IF p_purpose = 'contact' THEN
        -- Whoever claims an address is its subject, also if it is another's: what they see of it must not tell.
        v_kind := 'member';
        v_subject := (p_claim ->> 'member')::uuid;
    ELSIF NOT v_decoy AND (r.subject_kind = 'newcomer' OR p_purpose = 'register') THEN
        v_purpose := 'register';
        v_kind := 'member';
        v_subject := coalesce((r.member).id, gen_random_uuid());
    END IF;
    asked_at := v_spent.spent_at;
    code_length := v_spent.digits;
    expires_at := asked_at + make_interval(secs => least(p_ttl, (r.policy ->> 'code_ttl_seconds')::integer));
    resend_at := asked_at
        + make_interval(secs => greatest(p_cooldown, (r.policy ->> 'resend_cooldown_seconds')::integer));
    IF NOT v_decoy AND v_purpose IN ('register', 'contact') THEN
        INSERT INTO claims (tenant_id, id, member_id, name, email, phone_number, password_hash, locale, document,
                            document_version, created_at, expires_at)
        VALUES (r.tenant, p_challenge, v_subject, p_claim ->> 'name', coalesce(p_email, p_claim ->> 'email'),
                coalesce(p_phone, p_claim ->> 'phone_number'), p_claim ->> 'password_hash', p_locale,
                p_claim ->> 'document', p_claim ->> 'version', asked_at, request_code.expires_at);
    END IF;
    INSERT INTO challenges (tenant_id, id, recipient_key, door_key, lane, device_id, subject_kind, subject_id, decoy,
                            purpose, proven, channel, asked_channel, code_length, salt, digest, key_id, max_attempts,
                            ip, user_agent, locale, created_at, sent_at, resend_at, expires_at)
    VALUES (r.tenant, p_challenge, v_person, p_door_key, coalesce(v_device.id::text, ''), v_device.id, v_kind,
            v_subject, v_decoy, v_purpose, CASE WHEN p_proven IS NULL THEN '{}' ELSE ARRAY['password'] END,
            r.channel, p_asked, code_length, p_salt,
            CASE WHEN v_decoy THEN p_digest_decoy WHEN code_length = 8 THEN p_digest_8 ELSE p_digest_6 END,
            p_key_id, v_attempts,
            (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_locale,
            asked_at, asked_at, resend_at, expires_at);
    -- Whoever has the address already is told, in the place of the code.
    INSERT INTO outbox (tenant_id, id, kind, challenge_id, generation, channel, destination, payload, available_at,
                        expires_at, created_at, updated_at)
    VALUES (r.tenant, p_outbox, CASE WHEN v_taken THEN 'notice' WHEN v_decoy THEN 'decoy' ELSE 'code' END, p_challenge,
            1, CASE WHEN v_taken AND p_email IS NOT NULL THEN 'email' ELSE r.channel END,
            CASE WHEN v_taken THEN coalesce(p_email, p_phone) END,
            CASE WHEN v_taken THEN jsonb_build_object('template', 'address_taken') END,
            asked_at, expires_at, asked_at, asked_at);
    PERFORM fn.write_audit(asked_at, r.tenant, CASE WHEN v_decoy THEN 'code.withheld' ELSE 'code.requested' END,
        v_kind, v_subject, p_challenge, p_client,
        jsonb_build_object('channel', r.channel, 'this_hour', v_used, 'of', v_hourly, 'reason', r.problem,
                           'known_device', device_known)
        || CASE v_purpose WHEN 'sign_in' THEN '{}' ELSE jsonb_build_object('purpose', v_purpose) END);
    PERFORM fn.tally(asked_at, r.tenant, v_person, 1, 0, 0);
    outcome := 'accepted';
END $$;

-- The generation a resend starts from, so that the caller can derive the next code's digests. `device_known`: p_device
-- is the known device that asked for it.
CREATE OR REPLACE FUNCTION fn.open_challenge(
    p_now timestamptz, p_slug text, p_stand_in uuid, p_challenge uuid, p_device uuid,
    OUT outcome text, OUT tenant uuid, OUT generation integer, OUT resend_at timestamptz, OUT expires_at timestamptz,
    OUT device_known boolean
) LANGUAGE plpgsql AS $$
DECLARE c challenges;
BEGIN
    PERFORM set_config('app.tenant_slug', p_slug, true);
    tenant := coalesce((SELECT id FROM tenants WHERE slug = p_slug), p_stand_in);
    PERFORM set_config('app.tenant_id', tenant::text, true);
    SELECT * INTO c FROM challenges WHERE tenant_id = tenant AND id = p_challenge;
    generation := c.generation;
    resend_at := c.resend_at;
    expires_at := c.expires_at;
    device_known := p_device IS NOT NULL AND p_device IS NOT DISTINCT FROM c.device_id
        AND (fn.known_device(p_now, tenant, p_device, c.subject_kind, c.subject_id)).id IS NOT NULL;
    outcome := CASE
        WHEN c.id IS NULL OR c.expires_at <= p_now THEN 'code-expired'
        WHEN c.end_reason = 'attempts' OR (c.ended_at IS NULL AND c.attempts >= c.max_attempts) THEN 'too-many-attempts'
        WHEN c.ended_at IS NOT NULL THEN 'code-expired'
        ELSE 'open'
    END;
END $$;

-- Same challenge, next generation: new code, old one void, attempts kept, cooldown and quota spent. Loses against a
-- parallel resend of the same generation (its cooldown has begun).
CREATE OR REPLACE FUNCTION fn.resend_code(
    p_now timestamptz, p_slug text, p_stand_in uuid, p_challenge uuid, p_generation integer, p_asked text,
    p_channels text[], p_disclose boolean, p_outbox uuid, p_salt bytea, p_key_id text, p_digest_6 bytea,
    p_digest_8 bytea, p_digest_decoy bytea, p_length integer, p_ttl integer, p_hourly integer, p_cooldown integer,
    p_client jsonb, p_device_hourly integer,
    OUT outcome text, OUT code_length integer, OUT expires_at timestamptz, OUT resend_at timestamptz,
    OUT asked_at timestamptz, OUT retry_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    c         challenges;
    t         tenants;
    v_tenant  uuid;
    v_policy  jsonb;
    v_email   text;
    v_phone   text;
    v_channel text;
    v_problem text;
    v_spent   record;
    v_hourly  integer;
BEGIN
    PERFORM set_config('app.tenant_slug', p_slug, true);
    SELECT * INTO t FROM tenants WHERE slug = p_slug;
    v_tenant := coalesce(t.id, p_stand_in);
    PERFORM set_config('app.tenant_id', v_tenant::text, true);
    v_policy := coalesce(t.policy, '{}');
    -- The lock makes a parallel verify or resend wait until this one is decided.
    SELECT * INTO c FROM challenges WHERE tenant_id = v_tenant AND id = p_challenge FOR UPDATE;
    IF c.id IS NULL OR c.ended_at IS NOT NULL OR c.expires_at <= p_now THEN
        outcome := CASE WHEN c.end_reason = 'attempts' AND c.expires_at > p_now
                        THEN 'too-many-attempts' ELSE 'code-expired' END;
        retry_at := c.expires_at;
        RETURN;
    END IF;
    IF c.generation <> p_generation OR c.resend_at > p_now THEN
        PERFORM fn.refuse(p_now, v_tenant, c.recipient_key, 'cooldown');
        outcome := 'cooling-down';
        asked_at := p_now;
        retry_at := greatest(c.resend_at, p_now);
        RETURN;
    END IF;

    SELECT r.email, r.phone_number INTO v_email, v_phone FROM fn.reachable_at(t, c) AS r;
    SELECT p.channel, p.problem INTO v_channel, v_problem
    FROM fn.pick_channel(coalesce(p_asked, c.channel), coalesce(t.otp_delivery_method, 'email'), '{}', v_email, v_phone,
                         p_channels) AS p;
    v_problem := CASE
        WHEN t.id IS NULL THEN 'tenant-not-found'
        WHEN t.status <> 'active' THEN 'tenant-suspended'
        WHEN c.decoy THEN coalesce(v_problem, 'recipient-unknown')
        ELSE v_problem
    END;
    IF p_disclose AND v_problem IS NOT NULL THEN
        outcome := v_problem;
        RETURN;
    END IF;

    v_hourly := least(CASE WHEN c.device_id IS NULL THEN p_hourly ELSE p_device_hourly END,
                      (v_policy ->> 'hourly_limit')::integer);
    v_spent := fn.spend_code(p_now, v_tenant, c.recipient_key, CASE WHEN NOT p_disclose THEN c.door_key END, c.device_id,
                             v_hourly, least(p_hourly, (v_policy ->> 'per_minute_limit')::integer), c.max_attempts,
                             greatest(p_length, (v_policy ->> 'code_length')::integer), v_problem IS NULL);
    IF v_spent.refusal IS NOT NULL THEN
        PERFORM fn.refuse(p_now, v_tenant, c.recipient_key, v_spent.refusal);
        outcome := 'rate-limited';
        asked_at := p_now;
        retry_at := v_spent.retry_at;
        RETURN;
    END IF;

    asked_at := v_spent.spent_at;
    v_problem := coalesce(v_problem, v_spent.withheld);
    v_channel := coalesce(v_channel, p_asked, c.channel);
    code_length := v_spent.digits;
    expires_at := asked_at + CASE c.purpose
        -- As long as the one before it: a registration has its own life.
        WHEN 'register' THEN c.expires_at - c.sent_at
        ELSE make_interval(secs => least(p_ttl, (v_policy ->> 'code_ttl_seconds')::integer)) END;
    UPDATE claims k SET expires_at = resend_code.expires_at WHERE k.tenant_id = v_tenant AND k.id = p_challenge;
    resend_at := asked_at
        + make_interval(secs => greatest(p_cooldown, (v_policy ->> 'resend_cooldown_seconds')::integer));
    UPDATE challenges SET
        generation = c.generation + 1, code_length = resend_code.code_length, salt = p_salt, key_id = p_key_id,
        -- By what the last three that were sent are recognised.
        earlier_salts = (c.earlier_salts || c.salt)[greatest(1, cardinality(c.earlier_salts) - 1):],
        earlier_digests = (c.earlier_digests || c.digest)[greatest(1, cardinality(c.earlier_digests) - 1):],
        earlier_keys = (c.earlier_keys || c.key_id)[greatest(1, cardinality(c.earlier_keys) - 1):],
        digest = CASE WHEN c.decoy OR v_problem IS NOT NULL THEN p_digest_decoy
                      WHEN resend_code.code_length = 8 THEN p_digest_8 ELSE p_digest_6 END,
        decoy = c.decoy OR v_problem IS NOT NULL,
        channel = v_channel, asked_channel = coalesce(p_asked, c.asked_channel),
        sent_at = asked_at, resend_at = resend_code.resend_at, expires_at = resend_code.expires_at
    WHERE tenant_id = v_tenant AND id = p_challenge;
    INSERT INTO outbox (tenant_id, id, kind, challenge_id, generation, channel, available_at, expires_at, created_at,
                        updated_at)
    VALUES (v_tenant, p_outbox, CASE WHEN c.decoy OR v_problem IS NOT NULL THEN 'decoy' ELSE 'code' END, p_challenge,
            c.generation + 1, v_channel, asked_at, expires_at, asked_at, asked_at);
    PERFORM fn.write_audit(asked_at, v_tenant,
        CASE WHEN c.decoy OR v_problem IS NOT NULL THEN 'code.withheld' ELSE 'code.resent' END,
        c.subject_kind, c.subject_id, p_challenge, p_client,
        jsonb_build_object('channel', v_channel, 'this_hour', v_spent.used, 'of', v_hourly, 'reason', v_problem)
        || CASE c.purpose WHEN 'sign_in' THEN '{}' ELSE jsonb_build_object('purpose', c.purpose, 'again', true) END);
    PERFORM fn.tally(asked_at, v_tenant, c.recipient_key, 1, 0, 0);
    outcome := 'accepted';
END $$;

-- Counts an attempt before anything is compared, in a transaction of its own: 200 parallel guesses are at most
-- max_attempts comparisons. Its commit doesn't wait for the disk: the statement that records the verdict does, and with
-- it all that was written before; a crash in between loses the count of a guess whose outcome nobody was told.
-- `earlier_…`: the codes that resends voided, the oldest first, up to the generation before the present one. One of those
-- is a wrong code like any other, whose owner is told why.
CREATE OR REPLACE FUNCTION fn.count_attempt_v2(
    p_now timestamptz, p_slug text, p_stand_in uuid, p_challenge uuid,
    OUT outcome text, OUT tenant uuid, OUT slug text, OUT name text, OUT subject_kind text, OUT subject uuid,
    OUT subject_name text, OUT generation integer, OUT salt bytea, OUT digest bytea, OUT key_id text,
    OUT attempts_left integer, OUT expires_at timestamptz, OUT device_id uuid, OUT purpose text,
    OUT earlier_salts bytea[], OUT earlier_digests bytea[], OUT earlier_keys text[]
) LANGUAGE plpgsql AS $$
DECLARE
    t tenants;
    c challenges;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM set_config('app.tenant_slug', p_slug, true);
    SELECT * INTO t FROM tenants WHERE tenants.slug = p_slug;
    tenant := coalesce(t.id, p_stand_in);
    PERFORM set_config('app.tenant_id', tenant::text, true);
    UPDATE challenges SET attempts = attempts + 1
    WHERE tenant_id = tenant AND id = p_challenge AND ended_at IS NULL AND challenges.expires_at > p_now
      AND attempts < max_attempts
    RETURNING * INTO c;
    IF NOT FOUND THEN
        SELECT * INTO c FROM challenges WHERE tenant_id = tenant AND id = p_challenge;
        outcome := CASE WHEN c.expires_at > p_now AND c.attempts >= c.max_attempts
                             AND coalesce(c.end_reason, 'attempts') = 'attempts'
                        THEN 'too-many-attempts' ELSE 'code-expired' END;
        expires_at := c.expires_at;
        RETURN;
    END IF;
    outcome := 'counted';
    slug := t.slug;
    name := t.name;
    subject_kind := c.subject_kind;
    subject := c.subject_id;
    -- Looked up only where it isn't the tenant's own: most sign-ins are without another statement.
    subject_name := t.name;
    IF c.subject_kind <> 'tenant' THEN
        -- A newcomer is called what they say, also one who was invited under another name.
        subject_name := coalesce((SELECT k.name FROM claims k WHERE k.tenant_id = tenant AND k.id = p_challenge),
                                 fn.subject_name(tenant, c.subject_kind, c.subject_id), t.name);
    END IF;
    purpose := c.purpose;
    generation := c.generation;
    salt := c.salt;
    digest := c.digest;
    key_id := c.key_id;
    attempts_left := c.max_attempts - c.attempts;
    expires_at := c.expires_at;
    device_id := c.device_id;
    earlier_salts := c.earlier_salts;
    earlier_digests := c.earlier_digests;
    earlier_keys := c.earlier_keys;
END $$;

-- Leaves the evidence of a wrong code (p_earlier: of one that a resend voided), and ends the challenge with its last
-- attempt.
CREATE OR REPLACE FUNCTION fn.fail_attempt(
    p_now timestamptz, p_tenant uuid, p_challenge uuid, p_client jsonb, p_earlier boolean
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE c challenges;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    UPDATE challenges SET ended_at = p_now, end_reason = 'attempts', salt = NULL, digest = NULL
    WHERE tenant_id = p_tenant AND id = p_challenge AND ended_at IS NULL AND attempts >= max_attempts;
    SELECT * INTO c FROM challenges WHERE tenant_id = p_tenant AND id = p_challenge;
    PERFORM fn.count_wrong_guess(p_now, p_tenant, c.recipient_key, c.door_key, c.lane, c.code_length);
    PERFORM fn.write_audit(p_now, p_tenant, 'code.wrong', c.subject_kind, c.subject_id, p_challenge, p_client,
        jsonb_build_object('attempts_left', c.max_attempts - c.attempts)
        || CASE WHEN p_earlier THEN '{"earlier": true}' ELSE '{}'::jsonb END);
END $$;

-- Uses the code up and begins the session, or what comes before it (fn.begin_session), once: the row is taken by
-- whoever ends it. `p_new_device` makes this client known for the next time, unless it is already.
CREATE OR REPLACE FUNCTION fn.complete_sign_in(
    p_now timestamptz, p_tenant uuid, p_challenge uuid, p_generation integer, p_session uuid, p_kind text,
    p_secret_hash bytea, p_refresh_hash bytea, p_ttl integer, p_device_name text, p_client jsonb,
    p_new_device uuid, p_device_ttl interval, p_half_hash bytea, p_half_ttl interval, p_admins_must boolean,
    p_remember boolean
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    c         challenges;
    v_outcome text;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    -- Before the challenge, as whoever changes the person does (factors.sql), or each would wait for the other.
    PERFORM fn.lock_subject((SELECT k.subject_id FROM challenges k WHERE k.tenant_id = p_tenant AND k.id = p_challenge),
                            false);
    -- No lock: a suspension that commits meanwhile is seen by every check of the session that begins here.
    PERFORM FROM tenants WHERE id = p_tenant AND status = 'active';
    IF NOT FOUND THEN
        RETURN 'code-expired';
    END IF;
    UPDATE challenges SET ended_at = p_now, end_reason = 'used', salt = NULL, digest = NULL
    WHERE tenant_id = p_tenant AND id = p_challenge AND ended_at IS NULL AND generation = p_generation
      AND expires_at > p_now AND NOT decoy AND purpose <> 'contact'
    RETURNING * INTO c;
    IF NOT FOUND THEN
        RETURN 'code-expired';
    END IF;
    IF c.purpose = 'register' THEN
        v_outcome := fn.complete_registration(p_now, p_tenant, c, p_half_hash, p_client);
        IF v_outcome <> 'admitted' THEN
            RETURN v_outcome;
        END IF;
    ELSIF c.subject_kind = 'member' AND NOT EXISTS (
        -- Where another channel took over it went to both addresses: nobody knows at which it was read.
        SELECT FROM outbox o
        WHERE o.tenant_id = p_tenant AND o.challenge_id = p_challenge AND o.generation = c.generation
          AND (o.channel = 'email') <> (c.channel = 'email')
    ) THEN
        PERFORM fn.note_proven(p_now, p_tenant, c.subject_id, c.channel);
    END IF;
    v_outcome := fn.begin_session(p_now, p_tenant, c.subject_kind, c.subject_id, p_challenge, p_session, p_kind,
                                  p_secret_hash, p_refresh_hash, p_ttl, c.proven || ('otp:' || c.channel), p_device_name,
                                  p_client, c.device_id, p_new_device, p_device_ttl, p_half_hash, p_half_ttl,
                                  p_admins_must, p_remember);
    IF v_outcome = 'refused' THEN
        RETURN 'code-expired';
    END IF;
    PERFORM fn.forgive_failures(p_tenant, c.recipient_key, c.door_key, c.lane);
    PERFORM fn.tally(p_now, p_tenant, c.recipient_key, 0, 1, 0);
    RETURN v_outcome;
END $$;

CREATE OR REPLACE FUNCTION fn.challenge_status(
    p_now timestamptz, p_slug text, p_stand_in uuid, p_challenge uuid,
    OUT known boolean, OUT decoy boolean, OUT asked_channel text, OUT channel text, OUT sent_at timestamptz,
    OUT expires_at timestamptz, OUT end_reason text, OUT attempts_left integer, OUT outbox_state text,
    OUT error_class text, OUT error_text text, OUT device_id uuid
) LANGUAGE plpgsql AS $$
DECLARE
    v_tenant uuid;
    c        challenges;
BEGIN
    PERFORM set_config('app.tenant_slug', p_slug, true);
    v_tenant := coalesce((SELECT id FROM tenants WHERE slug = p_slug), p_stand_in);
    PERFORM set_config('app.tenant_id', v_tenant::text, true);
    SELECT * INTO c FROM challenges WHERE tenant_id = v_tenant AND id = p_challenge;
    known := c.id IS NOT NULL;
    decoy := c.decoy;
    asked_channel := c.asked_channel;
    channel := c.channel;
    sent_at := c.sent_at;
    expires_at := c.expires_at;
    end_reason := c.end_reason;
    device_id := c.device_id;
    attempts_left := greatest(0, c.max_attempts - c.attempts);
    SELECT o.state, o.channel, o.error_class, o.error_text INTO outbox_state, channel, error_class, error_text
    FROM outbox o
    WHERE o.tenant_id = v_tenant AND o.challenge_id = p_challenge AND o.generation = c.generation
    -- Where one way failed and another is under way, or arrived, that is what counts.
    ORDER BY array_position(ARRAY['delivered', 'sent', 'sending', 'queued', 'failed'], o.state), o.created_at DESC LIMIT 1;
END $$;
