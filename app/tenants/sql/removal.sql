-- Deletes every row of a tenant, in every table that has a `tenant_id` but the audit log: from the catalogue, so a new
-- table takes part without anybody's doing. What refers to another table goes before it. Answers how many, by table.
CREATE OR REPLACE FUNCTION fn.empty_tenant(p_tenant uuid) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_table   regclass;
    v_count   bigint;
    v_removed jsonb := '{}';
BEGIN
    FOR v_table IN
        WITH RECURSIVE owned AS (
            SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND c.oid <> 'public.audit_events'::regclass
        ), placed (oid, depth) AS (
            SELECT o.oid, 0 FROM owned o
            UNION
            SELECT f.conrelid, p.depth + 1 FROM placed p
            JOIN pg_constraint f ON f.contype = 'f' AND f.confrelid = p.oid AND f.conrelid <> p.oid AND p.depth < 10
            JOIN owned o ON o.oid = f.conrelid
        )
        SELECT p.oid::regclass FROM placed p GROUP BY p.oid ORDER BY max(p.depth) DESC, p.oid
    LOOP
        EXECUTE format('DELETE FROM %s WHERE tenant_id = $1', v_table) USING p_tenant;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        IF v_count > 0 THEN
            v_removed := v_removed || jsonb_build_object(v_table::text, v_count);
        END IF;
    END LOOP;
    RETURN v_removed;
END $$;
