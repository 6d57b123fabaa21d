-- What keeps strangers from getting a code for a recipient: the sends of the last hour, wrong codes, a lock.
CREATE OR REPLACE FUNCTION fn.recipient_standing(p_now timestamptz, p_tenant uuid, p_subject uuid)
RETURNS TABLE (sends timestamptz[], wrong_today integer, locked_until timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN QUERY
    SELECT fn.recent(q.sends, p_now), cardinality(fn.recent(q.wrong, p_now, '1 day')),
           CASE WHEN q.locked_until > p_now THEN q.locked_until END
    FROM quota q
    WHERE q.tenant_id = p_tenant AND q.recipient_key = uuid_send(p_subject) AND q.lane = '';
END $$;
