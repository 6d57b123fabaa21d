-- What keeps strangers from getting a code for a recipient: the sends of the last hour, wrong codes, a lock. `p_doors`
-- are the keys of their addresses (quota.sql): one that was used up before it was theirs keeps them out as well.
CREATE OR REPLACE FUNCTION fn.recipient_standing(p_now timestamptz, p_tenant uuid, p_subject uuid, p_doors bytea[])
RETURNS TABLE (sends timestamptz[], wrong_today integer, locked_until timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN QUERY
    WITH counted AS (
        SELECT fn.recent(q.sends, p_now) AS sends, cardinality(fn.recent(q.wrong, p_now, '1 day')) AS wrong,
               CASE WHEN q.locked_until > p_now THEN q.locked_until END AS locked
        FROM quota q
        WHERE q.tenant_id = p_tenant AND q.recipient_key = ANY (uuid_send(p_subject) || p_doors) AND q.lane = ''
    )
    SELECT (SELECT c.sends FROM counted c ORDER BY cardinality(c.sends) DESC LIMIT 1), max(c.wrong), max(c.locked)
    FROM counted c
    HAVING count(*) > 0;
END $$;

-- Forgets a recipient's wrong guesses, locks and used-up quotas, whichever lane, door or address of old they count
-- under; false when there was nothing to forget.
CREATE OR REPLACE FUNCTION fn.unlock_recipient(p_tenant uuid, p_subject uuid, p_doors bytea[])
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_person bytea   := uuid_send(p_subject);
    v_found  boolean := false;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    -- In the order in which a request takes its locks (quota.sql).
    DELETE FROM quota WHERE tenant_id = p_tenant AND recipient_key = v_person AND lane IN ('contacts', 'devices');
    v_found := FOUND;
    DELETE FROM quota WHERE tenant_id = p_tenant AND (recipient_key = ANY (p_doors) OR person_key = v_person);
    v_found := v_found OR FOUND;
    DELETE FROM quota WHERE tenant_id = p_tenant AND recipient_key = v_person;
    RETURN v_found OR FOUND;
END $$;

CREATE OR REPLACE FUNCTION fn.unlock_recipient(p_tenant uuid, p_subject uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN fn.unlock_recipient(p_tenant, p_subject, '{}');
END $$;
