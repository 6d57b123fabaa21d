-- Admins' browser sessions live shorter than others: they end when nobody used them for a while.

-- Whether an admin's session goes on. Notes that it was used; one that rested too long or is too old ends here, once.
CREATE OR REPLACE FUNCTION fn.touch_admin_session(
    p_now timestamptz, p_session uuid, p_idle interval, p_longest interval, p_client jsonb
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_system CONSTANT uuid := '00000000-0000-0000-0000-000000000001';
BEGIN
    PERFORM set_config('app.tenant_id', v_system::text, true);
    UPDATE sessions SET seen_at = greatest(seen_at, p_now)
    WHERE tenant_id = v_system AND id = p_session AND subject_kind = 'admin' AND ended_at IS NULL
      AND seen_at > p_now - p_idle AND created_at > p_now - p_longest;
    IF FOUND THEN
        RETURN true;
    END IF;
    PERFORM fn.end_session(p_now, v_system, p_session, 'idle', p_client);
    RETURN false;
END $$;
