-- Caps on messages that cost money. They stand here because a cap that a restart of Valkey resets is no cap.

-- Spends one message from each count (p_names), which starts anew with each p_span (minute, hour, day; UTC) and ends at
-- its limit. All are spent or none: answers the place of the first that is used up, or NULL. A message is counted once,
-- however often it is tried. With p_dry_run it is spent all the same, and only told. A caller names the counts in the
-- same order each time, so that none waits for another in a circle.
CREATE OR REPLACE FUNCTION fn.spend_sends(
    p_now timestamptz, p_tenant uuid, p_outbox uuid, p_names text[], p_spans text[], p_limits integer[],
    p_dry_run boolean
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
    v_full  integer;
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    PERFORM FROM outbox WHERE tenant_id = p_tenant AND id = p_outbox AND counted;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    FOR i IN 1 .. cardinality(p_names) LOOP
        INSERT INTO send_counts AS c (name, since, count)
        VALUES (p_names[i], date_trunc(p_spans[i], p_now, 'UTC'), 1)
        ON CONFLICT (name, since) DO UPDATE SET count = c.count + 1
        RETURNING count INTO v_count;
        IF v_count > p_limits[i] THEN
            v_full := coalesce(v_full, i);
        END IF;
    END LOOP;
    IF v_full IS NOT NULL AND NOT p_dry_run THEN
        -- Ours until the end of the transaction: nobody has seen them.
        FOR i IN 1 .. cardinality(p_names) LOOP
            UPDATE send_counts SET count = count - 1
            WHERE name = p_names[i] AND since = date_trunc(p_spans[i], p_now, 'UTC');
        END LOOP;
        RETURN v_full;
    END IF;
    UPDATE outbox SET counted = true WHERE tenant_id = p_tenant AND id = p_outbox;
    RETURN v_full;
END $$;

-- How many of the codes sent by SMS were entered, of those asked for long enough ago (and whose challenges are still
-- there). Real people enter most of them; who is paid for each SMS enters none.
-- Writes an audit event, at most one an hour, when of at least p_at_least codes fewer than p_percent were entered.
CREATE OR REPLACE FUNCTION fn.assess_sms(
    p_now timestamptz, p_at_least integer, p_percent integer, OUT sent integer, OUT entered integer, OUT alarm boolean
) LANGUAGE plpgsql AS $$
DECLARE v_system CONSTANT uuid := '00000000-0000-0000-0000-000000000001';
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    SELECT count(*), count(*) FILTER (WHERE c.end_reason = 'used') INTO sent, entered
    FROM outbox o JOIN challenges c ON c.tenant_id = o.tenant_id AND c.id = o.challenge_id
    WHERE o.channel = 'sms' AND o.kind = 'code' AND o.state IN ('sent', 'delivered')
      AND o.created_at > p_now - interval '45 minutes' AND o.created_at <= p_now - interval '10 minutes';
    alarm := sent >= p_at_least AND 100 * entered < p_percent * sent AND NOT EXISTS (
        SELECT FROM audit_events e
        WHERE e.tenant_id = v_system AND e.at > p_now - interval '1 hour' AND e.action = 'sms.rarely_entered');
    IF alarm THEN
        INSERT INTO audit_events (tenant_id, at, action, actor_kind, source, data)
        VALUES (v_system, p_now, 'sms.rarely_entered', 'system', 'worker',
                jsonb_build_object('sent', sent, 'entered', entered));
    END IF;
END $$;
