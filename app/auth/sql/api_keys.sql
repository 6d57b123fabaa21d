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

-- Whose key it is that somebody is making, held until the transaction ends: the admin, or the owner of the key that
-- calls. Answers whether they may still: an admin who is suspended in this moment makes none that stays, nor one that
-- may more than they may. The command line makes keys of nobody's.
CREATE OR REPLACE FUNCTION fn.own_new_key(
    p_tenant uuid, p_actor_kind text, p_actor uuid, p_role text, OUT may boolean, OUT owner uuid
) LANGUAGE plpgsql AS $$
BEGIN
    owner := p_actor;
    IF p_actor_kind = 'api-key' THEN
        SELECT k.admin_id INTO owner FROM api_keys k WHERE k.tenant_id = p_tenant AND k.id = p_actor;
    END IF;
    PERFORM fn.lock_subject(owner, false);
    may := (p_actor_kind <> 'api-key' OR EXISTS (
                SELECT FROM api_keys k
                WHERE k.tenant_id = p_tenant AND k.id = p_actor AND k.revoked_at IS NULL
                  AND fn.role_level(p_role) <= fn.role_level(k.role)))
       AND (owner IS NULL OR EXISTS (
                SELECT FROM admins a
                WHERE a.tenant_id = p_tenant AND a.id = owner AND a.status = 'active'
                  AND fn.role_level(p_role) <= fn.role_level(a.role)));
END $$;

CREATE OR REPLACE FUNCTION fn.role_level(p_role text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT array_position(ARRAY['viewer', 'manager', 'owner'], p_role) $$;

-- What becomes of an admin's keys when the admin does. One who is suspended (p_role NULL) loses them: to p_heir, or
-- they are refused from now on. A lower role lowers theirs; a higher one raises none. Each leaves an event. The caller
-- holds the admin's lock. Answers how many.
CREATE OR REPLACE FUNCTION fn.settle_keys(
    p_now timestamptz, p_tenant uuid, p_admin uuid, p_role text, p_heir uuid, p_actor_kind text, p_actor uuid,
    p_client jsonb
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_action text;
    v_data   jsonb;
    v_count  integer := 0;
    k        api_keys;
BEGIN
    FOR k IN
        SELECT * FROM api_keys
        WHERE tenant_id = p_tenant AND admin_id = p_admin AND revoked_at IS NULL
          AND (p_role IS NULL OR fn.role_level(role) > fn.role_level(p_role))
        ORDER BY id FOR UPDATE
    LOOP
        IF p_role IS NOT NULL THEN
            UPDATE api_keys SET role = p_role WHERE tenant_id = p_tenant AND id = k.id;
            v_action := 'api-key.changed';
            v_data := jsonb_build_object('changes', jsonb_build_array(
                jsonb_build_object('field', 'role', 'before', k.role, 'after', p_role)));
        ELSIF p_heir IS NOT NULL THEN
            UPDATE api_keys SET admin_id = p_heir WHERE tenant_id = p_tenant AND id = k.id;
            v_action := 'api-key.handed-over';
            v_data := jsonb_build_object('from', p_admin, 'to', p_heir);
        ELSE
            UPDATE api_keys SET revoked_at = p_now WHERE tenant_id = p_tenant AND id = k.id;
            v_action := 'api-key.revoked';
            v_data := jsonb_build_object('reason', 'admin-suspended');
        END IF;
        INSERT INTO audit_events (tenant_id, at, action, actor_kind, actor_id, subject_kind, subject_id, source, ip,
                                  user_agent, request_id, data)
        VALUES (p_tenant, p_now, v_action, p_actor_kind, p_actor, 'api-key', k.id, p_client ->> 'source',
                (p_client ->> 'ip')::inet, p_client ->> 'user_agent', p_client ->> 'request_id',
                jsonb_build_object('name', k.name) || v_data);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;
