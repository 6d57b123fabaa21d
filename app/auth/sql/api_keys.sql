-- API keys are looked up at each call of whoever holds one: one round trip, two once a minute.

CREATE OR REPLACE FUNCTION fn.api_key(p_tenant uuid, p_id uuid)
RETURNS TABLE (name text, role text, scopes text[], secret_hash bytea, created_at timestamptz, last_used_at timestamptz,
               revoked_at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN QUERY
    SELECT k.name, k.role, k.scopes, k.secret_hash, k.created_at, k.last_used_at, k.revoked_at
    FROM api_keys k WHERE k.tenant_id = p_tenant AND k.id = p_id;
END $$;

-- Of many calls in one minute one writes.
CREATE OR REPLACE FUNCTION fn.touch_api_key(p_now timestamptz, p_tenant uuid, p_id uuid, p_span interval)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    UPDATE api_keys SET last_used_at = p_now
    WHERE tenant_id = p_tenant AND id = p_id AND (last_used_at IS NULL OR last_used_at <= p_now - p_span);
END $$;
