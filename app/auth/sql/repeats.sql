-- What may be sent twice and is done once: a form of a page, a POST with an Idempotency-Key. See app/auth/repeats.py.

-- `begun`: go on, and answer with fn.end_repeat; `running`: the first one is under way; `mismatch`: the same key came
-- with something else; `done`: here is the answer. Whoever began and was not heard of for p_patience has died. What is
-- older than p_life is forgotten, some at each call. Neither call waits for the disk: a crash of the server that takes
-- the answer along takes the connection of whoever waits for it, too.
CREATE OR REPLACE FUNCTION fn.begin_repeat(
    p_now timestamptz, p_tenant uuid, p_id bytea, p_fingerprint bytea, p_patience interval, p_life interval,
    OUT outcome text, OUT answer bytea
) LANGUAGE plpgsql AS $$
DECLARE r repeats;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    DELETE FROM repeats i WHERE i.ctid = ANY (ARRAY(
        SELECT old.ctid FROM repeats old WHERE old.begun_at <= p_now - p_life
        ORDER BY old.begun_at LIMIT 20 FOR UPDATE SKIP LOCKED));
    INSERT INTO repeats AS i (tenant_id, id, fingerprint, begun_at)
    VALUES (p_tenant, p_id, p_fingerprint, p_now)
    ON CONFLICT (tenant_id, id) DO UPDATE SET fingerprint = p_fingerprint, begun_at = p_now, answer = NULL
        WHERE i.begun_at <= p_now - p_life OR (i.answer IS NULL AND i.begun_at <= p_now - p_patience);
    IF FOUND THEN
        outcome := 'begun';
        RETURN;
    END IF;
    SELECT * INTO r FROM repeats i WHERE i.tenant_id = p_tenant AND i.id = p_id;
    answer := r.answer;
    -- Undone in this very moment: whoever asks again begins.
    outcome := CASE WHEN r.id IS NULL THEN 'running' WHEN r.fingerprint <> p_fingerprint THEN 'mismatch'
                    WHEN r.answer IS NULL THEN 'running' ELSE 'done' END;
END $$;

-- Keeps the answer of what was begun at p_begun or, without one, forgets that it was begun.
CREATE OR REPLACE FUNCTION fn.end_repeat(p_tenant uuid, p_id bytea, p_begun timestamptz, p_answer bytea)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    IF p_answer IS NULL THEN
        DELETE FROM repeats i
        WHERE i.tenant_id = p_tenant AND i.id = p_id AND i.begun_at = p_begun AND i.answer IS NULL;
    ELSE
        UPDATE repeats i SET answer = p_answer
        WHERE i.tenant_id = p_tenant AND i.id = p_id AND i.begun_at = p_begun AND i.answer IS NULL;
    END IF;
END $$;
