-- POSTs that carry an Idempotency-Key: begun once, answered alike for a day.

-- Whether the caller is the first to send this key. `begun`: go on and answer with fn.end_once; `running`: somebody
-- else is at it; `mismatch`: the key belongs to another request; `done`: here is the answer. Whoever began and was not
-- heard of for p_patience has died. What is older than p_life is forgotten, some at each call.
CREATE OR REPLACE FUNCTION fn.begin_once(
    p_now timestamptz, p_tenant uuid, p_caller uuid, p_key text, p_fingerprint bytea, p_patience interval,
    p_life interval, OUT outcome text, OUT key_id text, OUT answer bytea
) LANGUAGE plpgsql AS $$
DECLARE k idempotency_keys;
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    DELETE FROM idempotency_keys i WHERE i.ctid = ANY (ARRAY(
        SELECT old.ctid FROM idempotency_keys old WHERE old.begun_at <= p_now - p_life
        ORDER BY old.begun_at LIMIT 20 FOR UPDATE SKIP LOCKED));
    INSERT INTO idempotency_keys AS i (tenant_id, caller, key, fingerprint, begun_at)
    VALUES (p_tenant, p_caller, p_key, p_fingerprint, p_now)
    ON CONFLICT (tenant_id, caller, key) DO UPDATE
        SET fingerprint = p_fingerprint, begun_at = p_now, key_id = NULL, answer = NULL
        WHERE i.begun_at <= p_now - p_life OR (i.answer IS NULL AND i.begun_at <= p_now - p_patience);
    IF FOUND THEN
        outcome := 'begun';
        RETURN;
    END IF;
    SELECT * INTO k FROM idempotency_keys i WHERE i.tenant_id = p_tenant AND i.caller = p_caller AND i.key = p_key;
    key_id := k.key_id;
    answer := k.answer;
    outcome := CASE WHEN k.fingerprint <> p_fingerprint THEN 'mismatch' WHEN k.answer IS NULL THEN 'running'
                    ELSE 'done' END;
END $$;

-- Keeps the answer of what was begun at p_begun or, without one, forgets that it was begun.
CREATE OR REPLACE FUNCTION fn.end_once(
    p_tenant uuid, p_caller uuid, p_key text, p_begun timestamptz, p_key_id text, p_answer bytea
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    IF p_answer IS NULL THEN
        DELETE FROM idempotency_keys i
        WHERE i.tenant_id = p_tenant AND i.caller = p_caller AND i.key = p_key AND i.begun_at = p_begun
          AND i.answer IS NULL;
    ELSE
        UPDATE idempotency_keys i SET key_id = p_key_id, answer = p_answer
        WHERE i.tenant_id = p_tenant AND i.caller = p_caller AND i.key = p_key AND i.begun_at = p_begun
          AND i.answer IS NULL;
    END IF;
END $$;
