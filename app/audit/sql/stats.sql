-- How many codes went through, by channel: counted once an hour and kept, so that a month costs no more than a day.

CREATE OR REPLACE FUNCTION fn.count_codes(p_from timestamptz, p_to timestamptz)
RETURNS TABLE (channel text, requested bigint, sent bigint, delivered bigint, failed bigint, verified bigint)
LANGUAGE sql STABLE AS $$
    SELECT c.channel, count(*) FILTER (WHERE c.what = 'requested'), count(*) FILTER (WHERE c.what = 'sent'),
           count(*) FILTER (WHERE c.what = 'delivered'), count(*) FILTER (WHERE c.what = 'failed'),
           count(*) FILTER (WHERE c.what = 'verified')
    FROM (
        SELECT e.data ->> 'channel' AS channel, 'requested' AS what FROM audit_events e
        WHERE e.at >= p_from AND e.at < p_to AND e.action IN ('code.requested', 'code.resent')
        UNION ALL
        SELECT substr(e.data -> 'methods' ->> 0, 5), 'verified' FROM audit_events e
        WHERE e.at >= p_from AND e.at < p_to AND e.action = 'session.started'
          AND e.data -> 'methods' ->> 0 LIKE 'otp:%'
        UNION ALL
        SELECT d.channel, d.state FROM delivery_events d
        WHERE d.at >= p_from AND d.at < p_to AND d.kind = 'code' AND d.state IN ('sent', 'delivered', 'failed')
    ) AS c
    WHERE c.channel IS NOT NULL
    GROUP BY c.channel
$$;

-- The first hour that isn't counted yet; nothing before p_oldest is.
CREATE OR REPLACE FUNCTION fn.codes_counted_until(p_oldest timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT greatest(max(h.hour) + interval '1 hour', p_oldest) FROM channel_hours h
    WHERE h.tenant_id = '00000000-0000-0000-0000-000000000000' AND h.channel = ''
$$;

-- Counts up to p_hours finished hours and forgets old ones; answers how many it counted. An hour is finished five
-- minutes after its end: a transaction that began in it has committed or failed by then.
CREATE OR REPLACE FUNCTION fn.roll_up_codes(p_now timestamptz, p_hours integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_fleet  CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    v_oldest CONSTANT timestamptz := date_trunc('hour', p_now, 'UTC') - interval '30 days';
    v_hour   timestamptz;
    v_count  integer := 0;
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    IF NOT pg_try_advisory_xact_lock(7342011) THEN
        RETURN 0;
    END IF;
    DELETE FROM channel_hours h WHERE h.tenant_id = v_fleet AND h.hour < v_oldest;
    v_hour := fn.codes_counted_until(v_oldest);
    WHILE v_count < p_hours AND v_hour + interval '65 minutes' <= p_now LOOP
        INSERT INTO channel_hours (tenant_id, hour, channel, requested, sent, delivered, failed, verified)
        SELECT v_fleet, v_hour, c.* FROM fn.count_codes(v_hour, v_hour + interval '1 hour') AS c
        UNION ALL SELECT v_fleet, v_hour, '', 0, 0, 0, 0, 0
        ON CONFLICT DO NOTHING;
        v_hour := v_hour + interval '1 hour';
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;

-- What went through from p_since (a full hour) until now: hours that are counted, and the rest as it is.
CREATE OR REPLACE FUNCTION fn.code_stats(p_now timestamptz, p_since timestamptz)
RETURNS TABLE (channel text, requested bigint, sent bigint, delivered bigint, failed bigint, verified bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    RETURN QUERY
    SELECT s.channel, sum(s.requested)::bigint, sum(s.sent)::bigint, sum(s.delivered)::bigint, sum(s.failed)::bigint,
           sum(s.verified)::bigint
    FROM (
        SELECT h.channel, h.requested, h.sent, h.delivered, h.failed, h.verified FROM channel_hours h
        WHERE h.tenant_id = '00000000-0000-0000-0000-000000000000' AND h.hour >= p_since AND h.channel <> ''
        UNION ALL
        SELECT c.* FROM fn.count_codes(fn.codes_counted_until(p_since), p_now + interval '1 second') AS c
    ) AS s
    GROUP BY s.channel ORDER BY s.channel;
END $$;
