-- The recipient of a code says that nobody there asked for it: an open challenge ends, nothing else does, and the
-- tenant's admins see an event, once a challenge. Answers how it stood: `open`, `used` (the code has signed somebody
-- in), `over`, or `gone`: so long over that nothing is known of it, and no event is written.
CREATE OR REPLACE FUNCTION fn.disown_challenge(p_now timestamptz, p_tenant uuid, p_challenge uuid, p_client jsonb)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    c       challenges;
    v_stood text;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    -- The lock makes a parallel verify, resend or second press wait until this one is decided.
    SELECT * INTO c FROM challenges WHERE tenant_id = p_tenant AND id = p_challenge FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'gone';
    END IF;
    v_stood := CASE WHEN c.end_reason = 'used' THEN 'used'
                    WHEN c.ended_at IS NULL AND c.expires_at > p_now THEN 'open' ELSE 'over' END;
    IF v_stood = 'open' THEN
        UPDATE challenges SET ended_at = p_now, end_reason = 'void', salt = NULL, digest = NULL
        WHERE tenant_id = p_tenant AND id = p_challenge;
    END IF;
    PERFORM FROM audit_events
    WHERE tenant_id = p_tenant AND subject_id = c.subject_id AND at >= c.created_at AND challenge_id = p_challenge
      AND action = 'code.disowned';
    IF NOT FOUND THEN
        PERFORM fn.write_audit(greatest(p_now, c.created_at), p_tenant, 'code.disowned', c.subject_kind, c.subject_id,
            p_challenge, p_client, jsonb_build_object('stood', v_stood, 'channel', c.channel));
    END IF;
    RETURN v_stood;
END $$;
