-- What follows a message that did not arrive, and what providers report about those that were taken.

-- Lets another row take over from a code that failed, or of which nobody knows whether it arrived: by another provider
-- of its channel where p_same_channel allows it, else by the tenant's next fallback method that leads to a contact of
-- the same tenant or member, has a provider in p_routes and was not used for this code. A member's contact has to count
-- (fn.reachable_at); an address that this very code is to prove has no second one. Same challenge, same generation, so
-- the same code. At most one row takes over from another. Answers whether one did.
CREATE OR REPLACE FUNCTION fn.follow(p_now timestamptz, p_row outbox, p_routes jsonb, p_same_channel boolean)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    c         challenges;
    v_tenant  tenants;
    v_to      record;
    v_used    text[];
    v_refused text[] := p_row.refused || coalesce(p_row.provider, '');
    v_channel text;
    v_id      uuid := gen_random_uuid();
BEGIN
    IF p_row.kind <> 'code' OR p_row.expires_at <= p_now THEN
        RETURN false;
    END IF;
    SELECT i.* INTO c FROM challenges i
    WHERE i.tenant_id = p_row.tenant_id AND i.id = p_row.challenge_id AND i.generation = p_row.generation
      AND i.ended_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF p_same_channel AND EXISTS (
        SELECT FROM jsonb_array_elements_text(p_routes -> p_row.channel) AS r (provider)
        WHERE r.provider <> ALL (v_refused)
    ) THEN
        v_channel := p_row.channel;
    ELSIF c.subject_kind IN ('tenant', 'member') AND c.purpose NOT IN ('register', 'contact') THEN
        v_refused := '{}';
        SELECT * INTO v_tenant FROM tenants WHERE id = p_row.tenant_id AND status = 'active';
        SELECT * INTO v_to FROM fn.reachable_at(v_tenant, c);
        SELECT array_agg(o.channel) INTO v_used FROM outbox o
        WHERE o.tenant_id = p_row.tenant_id AND o.challenge_id = p_row.challenge_id
          AND o.generation = p_row.generation;
        SELECT f.method INTO v_channel FROM unnest(v_tenant.fallback_methods) WITH ORDINALITY AS f (method, n)
        WHERE f.method <> ALL (v_used) AND p_routes ? f.method
          AND CASE f.method WHEN 'email' THEN v_to.email WHEN 'push' THEN NULL ELSE v_to.phone_number END IS NOT NULL
        ORDER BY f.n LIMIT 1;
    END IF;
    IF v_channel IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO outbox (tenant_id, id, previous_id, kind, challenge_id, generation, channel, refused, available_at,
                        expires_at, created_at, updated_at)
    VALUES (p_row.tenant_id, v_id, p_row.id, 'code', p_row.challenge_id, p_row.generation, v_channel, v_refused, p_now,
            p_row.expires_at, p_now, p_now)
    ON CONFLICT (tenant_id, previous_id) WHERE previous_id IS NOT NULL DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO delivery_events (tenant_id, at, outbox_id, challenge_id, kind, channel, state, error_class)
    VALUES (p_row.tenant_id, p_now, v_id, p_row.challenge_id, 'code', v_channel, 'queued', 'fallback');
    RETURN true;
END $$;

-- Writes down what a provider reports of a message. Answers 'unknown' where nobody sent it, 'known' where that changes
-- nothing (a report that came before, or too late: delivered and failed are final), 'written', or 'followed'.
CREATE OR REPLACE FUNCTION fn.apply_report(
    p_now timestamptz, p_key text, p_state text, p_error_class text, p_error_text text, p_unhealthy boolean,
    p_routes jsonb
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_row     outbox;
    v_subject uuid;
BEGIN
    SELECT * INTO v_row FROM outbox WHERE report_key = p_key FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'unknown';
    ELSIF v_row.state <> 'sent' THEN
        RETURN 'known';
    END IF;
    UPDATE outbox SET state = p_state, error_class = p_error_class, error_text = p_error_text, fallback_at = NULL,
                      updated_at = p_now
    WHERE tenant_id = v_row.tenant_id AND id = v_row.id;
    v_subject := fn.contact_of(v_row);
    IF p_state = 'delivered' THEN
        DELETE FROM contact_health
        WHERE tenant_id = v_row.tenant_id AND subject_id = v_subject AND channel = v_row.channel;
    ELSIF p_unhealthy AND v_subject IS NOT NULL THEN
        INSERT INTO contact_health AS h (tenant_id, subject_id, channel, since, error_class, error_text)
        VALUES (v_row.tenant_id, v_subject, v_row.channel, p_now, p_error_class, p_error_text)
        ON CONFLICT (tenant_id, subject_id, channel)
            DO UPDATE SET error_class = excluded.error_class, error_text = excluded.error_text;
    END IF;
    INSERT INTO delivery_events (tenant_id, at, outbox_id, challenge_id, kind, channel, state, provider,
                                 provider_message_id, error_class, error_text, took_ms)
    VALUES (v_row.tenant_id, p_now, v_row.id, v_row.challenge_id, v_row.kind, v_row.channel, p_state, v_row.provider,
            v_row.provider_message_id, p_error_class, p_error_text,
            greatest(0, least(extract(epoch FROM p_now - v_row.updated_at) * 1000, 86400000))::integer);
    IF p_state = 'failed' AND fn.follow(p_now, v_row, p_routes, true) THEN
        RETURN 'followed';
    END IF;
    RETURN 'written';
END $$;

-- The same for whoever takes the provider's call: a report on a message that is not known yet waits for it.
CREATE OR REPLACE FUNCTION fn.take_report(
    p_now timestamptz, p_key text, p_state text, p_error_class text, p_error_text text, p_unhealthy boolean,
    p_routes jsonb
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_outcome text;
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    v_outcome := fn.apply_report(p_now, p_key, p_state, p_error_class, p_error_text, p_unhealthy, p_routes);
    IF v_outcome = 'unknown' THEN
        INSERT INTO provider_reports (report_key, state, error_class, error_text, unhealthy, received_at)
        VALUES (p_key, p_state, p_error_class, p_error_text, p_unhealthy, p_now)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN v_outcome;
END $$;

-- Brings one report that waited together with its message. Answers as fn.apply_report does; NULL: none waits. One a
-- transaction, because whoever locks several contacts or counts in turn may meet somebody who does so the other way round.
CREATE OR REPLACE FUNCTION fn.match_report(p_now timestamptz, p_routes jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_report provider_reports;
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    SELECT r.* INTO v_report FROM provider_reports r JOIN outbox o ON o.report_key = r.report_key
    WHERE r.received_at > p_now - interval '2 minutes'
    ORDER BY r.received_at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM provider_reports WHERE report_key = v_report.report_key AND state = v_report.state;
    RETURN fn.apply_report(p_now, v_report.report_key, v_report.state, v_report.error_class, v_report.error_text,
                           v_report.unhealthy, p_routes);
END $$;

-- Run by the worker every second: lets the next channel take over from codes that should have arrived by now. All rows
-- are locked before the first is worked on, so nobody who waits for us is waited for. Answers how many rows took over.
CREATE OR REPLACE FUNCTION fn.follow_up(p_now timestamptz, p_routes jsonb, p_limit integer)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_overdue  outbox[];
    v_row      outbox;
    v_followed integer := 0;
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    SELECT array_agg(w.row) INTO v_overdue FROM (
        SELECT o AS row FROM outbox o WHERE o.fallback_at <= p_now
        ORDER BY o.fallback_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ) AS w;
    FOREACH v_row IN ARRAY coalesce(v_overdue, '{}') LOOP
        UPDATE outbox SET fallback_at = NULL WHERE tenant_id = v_row.tenant_id AND id = v_row.id;
        v_followed := v_followed + fn.follow(p_now, v_row, p_routes, false)::integer;
    END LOOP;
    RETURN v_followed;
END $$;
