-- What was refused before anybody was known. Written in batches, off the way of whoever was refused.

-- Adds counters up. A slug that somebody has stands for its tenant; 'unknown-name' of such a one was no refusal and is
-- dropped. However many addresses and names a flood has, an hour has p_most rows, p_most_of_one of them a tenant's and
-- p_most_of_nobody of slugs that nobody has: what exceeds that is counted by reason, for ::/0. A crash may lose what was
-- just counted, so the disk isn't waited for.
CREATE OR REPLACE FUNCTION fn.note_door(
    p_hours timestamptz[], p_reasons text[], p_networks text[], p_slugs text[], p_counts integer[],
    p_firsts timestamptz[], p_lasts timestamptz[], p_most integer, p_most_of_one integer, p_most_of_nobody integer
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    PERFORM set_config('synchronous_commit', 'off', true);
    -- One at a time: the bounds are exact, and no two batches wait for each other's rows.
    PERFORM pg_advisory_xact_lock(7342004);
    INSERT INTO door_refusals AS d (tenant_id, hour, reason, network, slug, count, first_at, last_at)
    WITH told AS (
        SELECT coalesce(t.id, v_nobody) AS tenant_id, n.hour, n.reason, n.network::inet AS network,
               CASE WHEN t.id IS NULL THEN n.slug ELSE '' END AS slug, n.count, n.first_at, n.last_at
        FROM unnest(p_hours, p_reasons, p_networks, p_slugs, p_counts, p_firsts, p_lasts)
             AS n (hour, reason, network, slug, count, first_at, last_at)
        LEFT JOIN tenants t ON t.slug = n.slug
        WHERE n.reason <> 'unknown-name' OR t.id IS NULL
    ), placed AS (
        SELECT k.*, e.tenant_id IS NOT NULL AS there,
               row_number() OVER (PARTITION BY k.hour, e.tenant_id IS NULL ORDER BY k.count DESC) AS nth,
               row_number() OVER (PARTITION BY k.hour, k.tenant_id, e.tenant_id IS NULL ORDER BY k.count DESC)
                   AS nth_of_one
        FROM told k LEFT JOIN door_refusals e USING (tenant_id, hour, reason, network, slug)
    ), taken AS (
        SELECT d.hour, d.tenant_id, count(*) AS of_one, sum(count(*)) OVER (PARTITION BY d.hour) AS of_all
        FROM door_refusals d WHERE d.hour = ANY (p_hours) GROUP BY d.hour, d.tenant_id
    ), kept AS (
        SELECT p.*, p.there
            OR p.nth <= p_most - coalesce((SELECT max(a.of_all) FROM taken a WHERE a.hour = p.hour), 0)
           AND p.nth_of_one <= CASE p.tenant_id WHEN v_nobody THEN p_most_of_nobody ELSE p_most_of_one END
               - coalesce(o.of_one, 0) AS fits
        FROM placed p LEFT JOIN taken o ON o.hour = p.hour AND o.tenant_id = p.tenant_id
    )
    SELECT CASE WHEN fits THEN k.tenant_id ELSE v_nobody END, k.hour, k.reason,
           CASE WHEN fits THEN k.network ELSE '::/0' END, CASE WHEN fits THEN k.slug ELSE '' END,
           sum(k.count), min(k.first_at), max(k.last_at)
    FROM kept k GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (tenant_id, hour, reason, network, slug) DO UPDATE
        SET count = d.count + excluded.count, first_at = least(d.first_at, excluded.first_at),
            last_at = greatest(d.last_at, excluded.last_at);
END $$;
