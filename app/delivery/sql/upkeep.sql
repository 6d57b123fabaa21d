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

-- Deletes up to p_limit rows a table that nothing asks for any more. Answers the largest count; p_limit means that
-- there are more. A row that changed while it was looked at stays for the next time (its ctid is another one).
--   challenges  45 minutes past their expiry, real ones and decoys alike: gone within the hour they were asked in
--   quota       every send is outside the rolling hour
--   claims      past their expiry: who never proved an address was never a member
--   refusals    30 days        outbox  settled, 1 day        sessions  30 days past their expiry
CREATE OR REPLACE FUNCTION fn.cleanup(p_now timestamptz, p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_most  integer := 0;
    v_count integer;
BEGIN
    PERFORM set_config('app.scope', 'all', true);

    DELETE FROM challenges WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM challenges c WHERE c.expires_at < p_now - interval '45 minutes'
        ORDER BY c.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_most := greatest(v_most, v_count);

    DELETE FROM quota WHERE ctid = ANY (ARRAY(
        SELECT q.ctid FROM quota q WHERE q.seen_at < p_now - interval '1 hour'
        ORDER BY q.seen_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_most := greatest(v_most, v_count);

    DELETE FROM claims WHERE ctid = ANY (ARRAY(
        SELECT k.ctid FROM claims k WHERE k.expires_at < p_now
        ORDER BY k.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_most := greatest(v_most, v_count);

    DELETE FROM refusals WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM refusals r WHERE r.minute < p_now - interval '30 days'
        ORDER BY r.minute LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_most := greatest(v_most, v_count);

    DELETE FROM outbox WHERE ctid = ANY (ARRAY(
        SELECT o.ctid FROM outbox o
        WHERE o.created_at < p_now - interval '1 day' AND o.state NOT IN ('queued', 'sending')
        ORDER BY o.created_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_most := greatest(v_most, v_count);

    DELETE FROM sessions WHERE ctid = ANY (ARRAY(
        SELECT s.ctid FROM sessions s WHERE s.expires_at < p_now - interval '30 days'
        ORDER BY s.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN greatest(v_most, v_count);
END $$;
