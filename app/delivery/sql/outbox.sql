-- The worker's side of the outbox. Every function names the all-tenants scope itself, so none works by accident on
-- one tenant's rows only. Times come from the caller, as everywhere.

-- Takes up to p_limit messages that are due, or whose worker went silent, and settles at once what must not be sent:
-- a decoy, a code that a newer one or the end of its challenge made void, a message past its expiry, and one that
-- took its worker down with it p_max_tries times. One round trip: the answer has all a sender needs, and the address
-- is read here, from the one place that holds it.
CREATE OR REPLACE FUNCTION fn.claim_outbox(
    p_now timestamptz, p_owner text, p_limit integer, p_lease interval, p_max_tries integer
) RETURNS TABLE (
    state text, tenant_id uuid, id uuid, kind text, channel text, challenge_id uuid, generation integer,
    destination text, payload jsonb, attempts smallint, last_error_class text, refused text[],
    created_at timestamptz, expires_at timestamptz,
    salt bytea, key_id text, code_length smallint, subject_kind text, subject_id uuid, purpose text,
    challenge_locale text, ip inet, user_agent text, asked_at timestamptz,
    tenant_slug text, tenant_name text, tenant_locale text, tenant_timezone text
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    RETURN QUERY
    WITH lost AS MATERIALIZED (
        SELECT o.tenant_id, o.id FROM outbox o
        WHERE o.state = 'sending' AND o.lease_until < p_now
        ORDER BY o.lease_until LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), due AS MATERIALIZED (
        SELECT o.tenant_id, o.id FROM outbox o
        WHERE o.state = 'queued' AND o.available_at <= p_now
        ORDER BY o.available_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), picked AS MATERIALIZED (
        SELECT o.tenant_id, o.id, o.kind, o.channel, o.challenge_id, o.generation, o.destination, o.payload,
               o.error_class AS last_error_class, o.refused, o.created_at, o.expires_at,
               c.salt, c.key_id, c.code_length, c.subject_kind, c.subject_id, c.purpose, c.locale, c.ip, c.user_agent,
               c.sent_at,
               CASE
                   WHEN o.kind = 'decoy' THEN 'void'
                   WHEN o.kind = 'code' AND (c.id IS NULL OR c.generation <> o.generation
                       OR (c.ended_at IS NOT NULL AND c.end_reason IS DISTINCT FROM 'expired')) THEN 'void'
                   WHEN o.expires_at <= p_now OR c.ended_at IS NOT NULL THEN 'expired'
                   WHEN o.attempts >= p_max_tries THEN 'failed'
                   ELSE 'sending'
               END AS verdict
        FROM (SELECT * FROM lost UNION ALL SELECT * FROM due LIMIT p_limit) AS p
        JOIN outbox o ON o.tenant_id = p.tenant_id AND o.id = p.id
        LEFT JOIN challenges c ON c.tenant_id = o.tenant_id AND c.id = o.challenge_id AND o.kind = 'code'
    ), claimed AS (
        UPDATE outbox o SET
            state = p.verdict,
            attempts = o.attempts + CASE WHEN p.verdict = 'sending' THEN 1 ELSE 0 END,
            lease_until = CASE WHEN p.verdict = 'sending' THEN p_now + p_lease END,
            lease_owner = CASE WHEN p.verdict = 'sending' THEN p_owner END,
            error_class = CASE p.verdict WHEN 'failed' THEN 'poison' WHEN 'expired' THEN 'expired'
                                         ELSE o.error_class END,
            destination = CASE WHEN p.verdict = 'sending' THEN o.destination END,
            payload = CASE WHEN p.verdict = 'sending' THEN o.payload END,
            fallback_at = CASE WHEN p.verdict = 'sending' THEN o.fallback_at END,
            updated_at = p_now
        FROM picked p
        WHERE o.tenant_id = p.tenant_id AND o.id = p.id
        RETURNING o.tenant_id, o.id, o.attempts, o.error_class
    ), told AS (
        -- A decoy has no history: nobody was ever to get it.
        INSERT INTO delivery_events (tenant_id, at, outbox_id, challenge_id, kind, channel, state, error_class)
        SELECT p.tenant_id, p_now, p.id, p.challenge_id, p.kind, p.channel, p.verdict,
               CASE WHEN p.verdict <> 'void' THEN c.error_class END
        FROM picked p JOIN claimed c ON c.tenant_id = p.tenant_id AND c.id = p.id
        WHERE p.verdict <> 'sending' AND p.kind <> 'decoy'
    )
    SELECT p.verdict, p.tenant_id, p.id, p.kind, p.channel, p.challenge_id, p.generation,
           coalesce(p.destination, CASE
               -- A push goes to the devices of a person, found by the provider.
               WHEN p.channel = 'push' THEN p.subject_id::text
               WHEN p.purpose IN ('register', 'contact') THEN
                   CASE p.channel WHEN 'email' THEN k.email ELSE k.phone_number END
               WHEN p.subject_kind = 'member' THEN CASE p.channel WHEN 'email' THEN m.email ELSE m.phone_number END
               WHEN p.subject_kind = 'admin' THEN CASE WHEN p.channel = 'email' THEN a.email END
               WHEN p.subject_kind IS DISTINCT FROM 'tenant' AND p.kind = 'code' THEN NULL
               WHEN p.channel = 'email' THEN t.email
               ELSE t.phone_number
           END),
           p.payload, c.attempts, p.last_error_class, p.refused, p.created_at, p.expires_at,
           p.salt, p.key_id, p.code_length, p.subject_kind, p.subject_id, p.purpose,
           p.locale, p.ip, p.user_agent, p.sent_at,
           t.slug, t.name, t.locale, t.timezone
    FROM picked p
    JOIN claimed c ON c.tenant_id = p.tenant_id AND c.id = p.id
    LEFT JOIN tenants t ON t.id = p.tenant_id
    LEFT JOIN members m ON m.tenant_id = p.tenant_id AND m.id = p.subject_id AND p.subject_kind = 'member'
    LEFT JOIN claims k ON k.tenant_id = p.tenant_id AND k.id = p.challenge_id AND p.purpose IN ('register', 'contact')
    LEFT JOIN admins a ON a.tenant_id = p.tenant_id AND a.id = p.subject_id AND p.subject_kind = 'admin';
END $$;

-- Writes down how a batch of sends went: sent, failed for good, or queued again. Only rows this owner still holds:
-- whoever lost a lease has no say any more, so states never go backwards. What failed goes on by the next channel of
-- p_routes (providers by channel) in the same transaction. Answers how many were written, and how many went on.
CREATE OR REPLACE FUNCTION fn.settle_outbox(
    p_now timestamptz, p_owner text, p_routes jsonb, p_outcomes jsonb, OUT written integer, OUT followed integer
) LANGUAGE plpgsql AS $$
DECLARE
    v_failed outbox[];
    v_row    outbox;
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    WITH outcome AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(p_outcomes) AS u (
            tenant_id uuid, id uuid, state text, provider text, provider_message_id text, error_class text,
            error_text text, retry_at timestamptz, took_ms integer, tried boolean, counted boolean, doubtful boolean,
            reports boolean, bounces_as text, refused text[], fallback_at timestamptz, earlier jsonb,
            unhealthy_class text, unhealthy_text text)
    ), settled AS (
        UPDATE outbox o SET
            state = s.state,
            attempts = CASE WHEN s.tried AND coalesce(s.counted, true) THEN o.attempts
                            ELSE greatest(o.attempts - 1, 0) END,
            available_at = coalesce(s.retry_at, o.available_at),
            fallback_at = s.fallback_at,
            refused = s.refused,
            report_key = s.provider || ':' || CASE WHEN s.reports THEN s.provider_message_id ELSE s.bounces_as END,
            lease_until = NULL,
            lease_owner = NULL,
            provider = s.provider,
            provider_message_id = s.provider_message_id,
            -- A doubt whether an earlier try arrived outlives the next refusal: it bounds the copies.
            error_class = CASE WHEN s.state = 'queued' AND (s.doubtful OR o.error_class = 'unanswered')
                               THEN 'unanswered' ELSE s.error_class END,
            error_text = s.error_text,
            destination = CASE WHEN s.state = 'queued' THEN o.destination END,
            payload = CASE WHEN s.state = 'queued' THEN o.payload END,
            updated_at = p_now
        FROM outcome s
        WHERE o.tenant_id = s.tenant_id AND o.id = s.id AND o.state = 'sending' AND o.lease_owner = p_owner
        RETURNING o AS row, s.*
    ), told AS (
        INSERT INTO delivery_events (tenant_id, at, outbox_id, challenge_id, kind, channel, state, provider,
                                     provider_message_id, error_class, error_text, took_ms)
        SELECT s.tenant_id, p_now, s.id, (s.row).challenge_id, (s.row).kind, (s.row).channel, step.state,
               step.provider, step.provider_message_id, step.error_class, step.error_text, step.took_ms
        FROM settled s CROSS JOIN LATERAL (
            SELECT n, 'queued' AS state, e.value ->> 'provider' AS provider, NULL AS provider_message_id,
                   e.value ->> 'error_class' AS error_class, e.value ->> 'error_text' AS error_text,
                   (e.value ->> 'took_ms')::integer AS took_ms
            FROM jsonb_array_elements(s.earlier) WITH ORDINALITY AS e (value, n)
            UNION ALL
            SELECT 1000, s.state, s.provider, s.provider_message_id, s.error_class, s.error_text, s.took_ms
            WHERE s.tried
        ) AS step
        ORDER BY s.id, step.n
    ), whose AS (
        SELECT s.*, fn.contact_of(s.row) AS subject_id FROM settled s
        WHERE s.unhealthy_class IS NOT NULL
           OR s.state = 'sent' AND NOT s.reports AND EXISTS (
               SELECT FROM contact_health h WHERE h.tenant_id = s.tenant_id AND h.channel = (s.row).channel)
    ), healthy AS (
        -- An arrival that nobody will report is proven by nothing more than this.
        DELETE FROM contact_health h USING whose s
        WHERE s.state = 'sent' AND NOT s.reports
          AND h.tenant_id = s.tenant_id AND h.channel = (s.row).channel AND h.subject_id = s.subject_id
    ), unhealthy AS (
        INSERT INTO contact_health AS h (tenant_id, subject_id, channel, since, error_class, error_text)
        SELECT DISTINCT ON (s.tenant_id, s.subject_id, (s.row).channel)
               s.tenant_id, s.subject_id, (s.row).channel, p_now, s.unhealthy_class, s.unhealthy_text
        FROM whose s
        WHERE s.unhealthy_class IS NOT NULL AND s.state <> 'sent' AND s.subject_id IS NOT NULL
        ORDER BY s.tenant_id, s.subject_id, (s.row).channel
        ON CONFLICT (tenant_id, subject_id, channel)
            DO UPDATE SET error_class = excluded.error_class, error_text = excluded.error_text
    )
    SELECT count(*), array_agg(s.row) FILTER (WHERE s.state = 'failed' AND (s.row).kind = 'code')
    INTO written, v_failed FROM settled s;

    followed := 0;
    FOREACH v_row IN ARRAY coalesce(v_failed, '{}') LOOP
        followed := followed + fn.follow(p_now, v_row, p_routes, false)::integer;
    END LOOP;
END $$;

-- Keeps hold of messages whose sending takes longer than the lease.
CREATE OR REPLACE FUNCTION fn.renew_outbox(
    p_now timestamptz, p_owner text, p_tenant_ids uuid[], p_ids uuid[], p_lease interval
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    UPDATE outbox o SET lease_until = p_now + p_lease
    FROM unnest(p_tenant_ids, p_ids) AS u (tenant_id, id)
    WHERE o.tenant_id = u.tenant_id AND o.id = u.id AND o.state = 'sending' AND o.lease_owner = p_owner;
END $$;

-- Hands back, unsent and untried, what a stopping worker still holds. Answers how many.
CREATE OR REPLACE FUNCTION fn.release_outbox(p_now timestamptz, p_owner text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_released integer;
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    UPDATE outbox SET state = 'queued', available_at = p_now, attempts = greatest(attempts - 1, 0),
                      lease_until = NULL, lease_owner = NULL, updated_at = p_now
    WHERE state = 'sending' AND lease_owner = p_owner;
    GET DIAGNOSTICS v_released = ROW_COUNT;
    RETURN v_released;
END $$;
