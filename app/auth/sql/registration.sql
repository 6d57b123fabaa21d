-- Claims: an address is somebody's when a code has proven it, and then a newcomer is a member, or a member's address
-- is another one.

-- Whether what a newcomer tells lacks the password that everybody signs in with here.
CREATE OR REPLACE FUNCTION fn.wants_password(p_policy jsonb, p_claim jsonb)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(p_policy ->> 'first_factor' = 'password', false) AND p_claim ->> 'password_hash' IS NULL
$$;

-- Whether a code may go to an address that somebody claims. `taken`: it is another member's, who is to be told.
CREATE OR REPLACE FUNCTION fn.judge_claim(
    p_policy jsonb, p_holder members, p_problem text, p_purpose text, p_member uuid, p_asked text, p_email text,
    p_phone text, p_channels text[], OUT channel text, OUT problem text, OUT taken boolean
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_ways text[] := CASE WHEN p_email IS NULL THEN ARRAY['sms', 'whatsapp'] ELSE ARRAY['email'] END;
BEGIN
    SELECT p.channel, p.problem INTO channel, problem
    FROM fn.pick_channel(p_asked, v_ways[1], v_ways, p_email, CASE WHEN p_email IS NULL THEN p_phone END,
                         p_channels) AS p;
    channel := coalesce(channel, p_asked, 'email');
    taken := coalesce(p_holder.status <> 'pending' AND p_holder.id IS DISTINCT FROM p_member, false);
    problem := CASE
        WHEN p_problem IN ('tenant-not-found', 'tenant-suspended') THEN p_problem
        WHEN p_purpose = 'register' AND coalesce(p_policy ->> 'registration', 'closed') <> 'open'
             AND NOT (p_policy ->> 'registration' = 'invite' AND coalesce(p_holder.status = 'pending', false))
            THEN 'registration-closed'
        WHEN taken THEN 'address-taken'
        ELSE problem
    END;
    -- Nobody is bothered where nothing could have come of it.
    taken := taken AND problem = 'address-taken';
END $$;

-- Takes an address away from whoever says it is theirs but never proved it. False when it counts as somebody's.
CREATE OR REPLACE FUNCTION fn.take_address(p_tenant uuid, p_member uuid, p_email text, p_phone text)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE members SET email = NULL
    WHERE tenant_id = p_tenant AND email = p_email AND id <> p_member
      AND NOT fn.counts(must_verify, email_verified_at, phone_verified_at);
    UPDATE members SET phone_number = NULL
    WHERE tenant_id = p_tenant AND phone_number = p_phone AND id <> p_member
      AND NOT fn.counts(must_verify, phone_verified_at, email_verified_at);
    PERFORM FROM members
    WHERE tenant_id = p_tenant AND (email = p_email OR phone_number = p_phone) AND id <> p_member;
    RETURN NOT FOUND;
END $$;

-- Makes a member of a newcomer whose address is proven by p_channel, or of somebody invited. What they gave besides
-- stays unproven, and is left out where somebody else has it. False: registration was closed meanwhile, or somebody
-- else was first.
CREATE OR REPLACE FUNCTION fn.admit_member(
    p_now timestamptz, p_tenant uuid, k claims, p_channel text, p_client jsonb
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_email  timestamptz := CASE WHEN p_channel = 'email' THEN p_now END;
    v_phone  timestamptz := CASE WHEN p_channel <> 'email' THEN p_now END;
    v_policy text := (SELECT t.policy ->> 'registration' FROM tenants t WHERE t.id = p_tenant AND t.status = 'active');
    v_held   members;
BEGIN
    SELECT * INTO v_held FROM members WHERE tenant_id = p_tenant AND id = k.member_id FOR UPDATE;
    IF v_policy IS DISTINCT FROM 'open' AND NOT (v_policy IS NOT DISTINCT FROM 'invite' AND v_held.status IS NOT NULL)
       OR v_held.status <> 'pending'
       OR NOT fn.take_address(p_tenant, k.member_id, CASE WHEN v_email IS NOT NULL THEN k.email END,
                              CASE WHEN v_phone IS NOT NULL THEN k.phone_number END) THEN
        RETURN false;
    END IF;
    IF v_email IS NULL AND EXISTS (SELECT FROM members WHERE tenant_id = p_tenant AND email = k.email
                                   AND id <> k.member_id) THEN
        k.email := NULL;
    END IF;
    IF v_phone IS NULL AND EXISTS (SELECT FROM members WHERE tenant_id = p_tenant AND phone_number = k.phone_number
                                   AND id <> k.member_id) THEN
        k.phone_number := NULL;
    END IF;
    BEGIN
        INSERT INTO members AS m (tenant_id, id, name, email, phone_number, locale, password_hash, email_verified_at,
                                  phone_verified_at, must_verify, created_at, updated_at)
        VALUES (p_tenant, k.member_id, k.name, k.email, k.phone_number, k.locale, k.password_hash, v_email, v_phone,
                true, p_now, p_now)
        ON CONFLICT (tenant_id, id) DO UPDATE SET
            name = excluded.name, email = coalesce(excluded.email, m.email),
            phone_number = coalesce(excluded.phone_number, m.phone_number), locale = excluded.locale,
            password_hash = excluded.password_hash, email_verified_at = excluded.email_verified_at,
            phone_verified_at = excluded.phone_verified_at, must_verify = true, status = 'active',
            version = m.version + 1, updated_at = p_now;
    EXCEPTION WHEN unique_violation THEN
        -- Two proved the same address at the same moment.
        RETURN false;
    END;
    IF k.document IS NOT NULL THEN
        INSERT INTO consents (tenant_id, id, member_id, document, version, given_at, ip)
        VALUES (p_tenant, gen_random_uuid(), k.member_id, k.document, k.document_version, p_now,
                (p_client ->> 'ip')::inet);
    END IF;
    INSERT INTO audit_events (tenant_id, at, action, actor_kind, actor_id, subject_kind, subject_id, source, ip,
                              user_agent, request_id, data)
    VALUES (p_tenant, p_now, 'member.registered', 'member', k.member_id, 'member', k.member_id, p_client ->> 'source',
            (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_client ->> 'request_id',
            jsonb_strip_nulls(jsonb_build_object('proven_by', p_channel, 'document', k.document,
                                                 'version', k.document_version)));
    DELETE FROM claims WHERE tenant_id = p_tenant AND id = k.id;
    RETURN true;
END $$;

-- What a newcomer's right code leads to: `admitted`, a member now; `register`, the address is proven and whoever holds
-- the token may tell the rest; or `code-expired`.
CREATE OR REPLACE FUNCTION fn.complete_registration(
    p_now timestamptz, p_tenant uuid, c challenges, p_token_hash bytea, p_client jsonb
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE k claims;
BEGIN
    SELECT * INTO k FROM claims WHERE tenant_id = p_tenant AND id = c.id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'code-expired';
    END IF;
    PERFORM fn.forgive_failures(p_tenant, c.recipient_key, c.door_key, c.lane);
    IF k.name IS NULL THEN
        UPDATE claims SET token_hash = p_token_hash, proven_by = c.channel, expires_at = p_now + interval '15 minutes'
        WHERE tenant_id = p_tenant AND id = c.id;
        PERFORM fn.tally(p_now, p_tenant, c.recipient_key, 0, 1, 0);
        RETURN 'register';
    END IF;
    RETURN CASE WHEN fn.admit_member(p_now, p_tenant, k, c.channel, p_client) THEN 'admitted' ELSE 'code-expired' END;
END $$;

-- Makes a member of whoever proved an address before telling who they are, and begins the session, or what comes
-- before it, once. Answers as fn.count_attempt does; `outcome` as fn.begin_session, or `password-wanted`: then the
-- token is still good.
CREATE OR REPLACE FUNCTION fn.register_proven(
    p_now timestamptz, p_slug text, p_token_hash bytea, p_claim jsonb, p_session uuid, p_kind text,
    p_secret_hash bytea, p_refresh_hash bytea, p_ttl integer, p_client jsonb, p_new_device uuid, p_device_ttl interval,
    p_half_hash bytea, p_half_ttl interval, p_admins_must boolean,
    OUT outcome text, OUT tenant uuid, OUT slug text, OUT name text, OUT subject_kind text, OUT subject uuid,
    OUT subject_name text, OUT device_id uuid
) LANGUAGE plpgsql AS $$
DECLARE k claims;
BEGIN
    outcome := 'refused';
    PERFORM set_config('app.tenant_slug', p_slug, true);
    SELECT t.id, t.slug, t.name INTO tenant, slug, name FROM tenants t WHERE t.slug = p_slug AND t.status = 'active';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM set_config('app.tenant_id', tenant::text, true);
    -- Before the claim and the member, as whoever changes the person does.
    PERFORM fn.lock_subject((SELECT c.member_id FROM claims c
                             WHERE c.tenant_id = tenant AND c.token_hash = p_token_hash), false);
    UPDATE claims SET
        name = p_claim ->> 'name', password_hash = p_claim ->> 'password_hash', document = p_claim ->> 'document',
        document_version = p_claim ->> 'version',
        email = CASE WHEN proven_by = 'email' THEN email ELSE p_claim ->> 'email' END,
        phone_number = CASE WHEN proven_by = 'email' THEN p_claim ->> 'phone_number' ELSE phone_number END
    WHERE tenant_id = tenant AND token_hash = p_token_hash AND expires_at > p_now
    RETURNING * INTO k;
    IF NOT FOUND THEN
        RETURN;
    ELSIF fn.wants_password((SELECT t.policy FROM tenants t WHERE t.id = tenant), p_claim) THEN
        outcome := 'password-wanted';
        RETURN;
    ELSIF NOT fn.admit_member(p_now, tenant, k, k.proven_by, p_client) THEN
        RETURN;
    END IF;
    subject_kind := 'member';
    subject := k.member_id;
    subject_name := k.name;
    outcome := fn.begin_session(p_now, tenant, subject_kind, subject, k.id, p_session, p_kind, p_secret_hash,
        p_refresh_hash, p_ttl, ARRAY['otp:' || k.proven_by], NULL, p_client, NULL, p_new_device, p_device_ttl,
        p_half_hash, p_half_ttl, p_admins_must);
END $$;
