-- What the worker does beside sending: says that it lives, and clears away what has had its time.

CREATE OR REPLACE FUNCTION fn.heartbeat(p_now timestamptz, p_worker text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO workers AS w (id, started_at, seen_at) VALUES (p_worker, p_now, p_now)
    ON CONFLICT (id) DO UPDATE SET seen_at = p_now;
    DELETE FROM workers WHERE seen_at < p_now - interval '1 hour';
$$;

CREATE OR REPLACE FUNCTION fn.goodbye(p_worker text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM workers WHERE id = p_worker;
$$;

-- Ends challenges that expired in (p_since, p_now] and erases what a code could be checked against. The window keeps
-- the statement from reading, every time, the rows it ended before; they stay until fn.cleanup. Answers how many;
-- p_limit of them means that there are more.
CREATE OR REPLACE FUNCTION fn.end_expired(p_since timestamptz, p_now timestamptz, p_limit integer)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_ended integer;
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    UPDATE challenges SET ended_at = expires_at, end_reason = 'expired', salt = NULL, digest = NULL
    WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM challenges c
        WHERE c.expires_at > p_since AND c.expires_at <= p_now AND c.ended_at IS NULL
        ORDER BY c.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_ended = ROW_COUNT;
    RETURN v_ended;
END $$;

-- Deletes up to p_limit rows of a kind that nothing asks for any more. Answers the largest count; p_limit means that
-- there are more. A row that changed while it was looked at stays for the next time (its ctid is another one).
CREATE OR REPLACE FUNCTION fn.cleanup(p_now timestamptz, p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_what  text[];
    v_most  integer := 0;
    v_count integer;
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    -- Table, what is old enough ($1: now), and the column whose index leads there.
    FOREACH v_what SLICE 1 IN ARRAY ARRAY[
        -- Real ones and decoys alike: gone within the hour they were asked in.
        ['challenges', 'expires_at < $1 - interval ''45 minutes''', 'expires_at'],
        ['outbox', 'kind = ''decoy'' AND state = ''void'' AND created_at < $1 - interval ''45 minutes''',
                   'created_at'],
        -- Who never proved an address was never a member.
        ['claims', 'expires_at < $1', 'expires_at'],
        -- Every send is outside the rolling hour, and no guess of the day and no lock is forgotten.
        ['quota', 'seen_at < $1 - interval ''1 hour'' AND coalesce(locked_until <= $1, true)'
                  ' AND cardinality(fn.recent(wrong, $1, ''1 day'')) = 0', 'seen_at'],
        ['outbox', 'created_at < $1 - interval ''1 day'' AND state NOT IN (''queued'', ''sending'')', 'created_at'],
        -- Answers to be repeated for a day, encrypted: they may name somebody who is erased by now.
        ['idempotency_keys', 'begun_at < $1 - interval ''1 day''', 'begun_at'],
        -- Answers of forms, sealed.
        ['repeats', 'begun_at < $1 - interval ''2 minutes''', 'begun_at'],
        ['provider_reports', 'received_at < $1 - interval ''2 minutes''', 'received_at'],
        ['send_counts', 'since < $1 - interval ''2 days''', 'since'],
        ['half_sign_ins', 'expires_at < $1 - interval ''45 minutes''', 'expires_at'],
        ['sign_in_links', 'expires_at < $1 - interval ''1 day''', 'expires_at'],
        ['attack_modes', 'until < $1 - interval ''1 day''', 'until'],
        -- The usual hour is that of 14 days.
        ['activity', 'slot < $1 - interval ''15 days''', 'slot'],
        ['refusals', 'minute < $1 - interval ''30 days''', 'minute'],
        ['door_refusals', 'hour < $1 - interval ''30 days''', 'hour'],
        ['sessions', 'expires_at < $1 - interval ''30 days''', 'expires_at'],
        ['devices', 'expires_at < $1', 'expires_at'],
        ['devices', 'revoked_at < $1 - interval ''30 days''', 'revoked_at']
    ] LOOP
        EXECUTE format('DELETE FROM %1$I WHERE ctid = ANY (ARRAY('
                       'SELECT ctid FROM %1$I WHERE %2$s ORDER BY %3$I LIMIT $2 FOR UPDATE SKIP LOCKED))',
                       v_what[1], v_what[2], v_what[3]) USING p_now, p_limit;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_most := greatest(v_most, v_count);
    END LOOP;
    RETURN greatest(v_most, fn.forget_strangers(p_now, p_limit));
END $$;

-- What was counted for slugs that nobody has is of no use once attacks were judged by it. A look at few slots, because
-- every tenant has rows in them.
CREATE OR REPLACE FUNCTION fn.forget_strangers(p_now timestamptz, p_limit integer)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_count integer;
BEGIN
    DELETE FROM activity WHERE ctid = ANY (ARRAY(
        SELECT a.ctid FROM activity a
        WHERE a.slot < p_now - interval '2 hours' AND a.slot > p_now - interval '150 minutes'
          AND a.tenant_id <> '00000000-0000-0000-0000-000000000000'
          AND NOT EXISTS (SELECT FROM tenants t WHERE t.id = a.tenant_id)
        ORDER BY a.slot LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
