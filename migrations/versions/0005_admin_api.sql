-- What the admin API needs: answers that a repeated POST gets again, indexes for its lists, counts by the hour.

-- The answer to a POST that carried an Idempotency-Key, kept for a day (app/auth/idempotency.py). It may hold a secret
-- that is shown once, so it is encrypted under a key that is in no store.
CREATE TABLE idempotency_keys (
    tenant_id   uuid        NOT NULL,
    caller      uuid        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL,
    begun_at    timestamptz NOT NULL,
    key_id      text,
    answer      bytea,
    PRIMARY KEY (tenant_id, caller, key)
);
CREATE INDEX ix_idempotency_keys_begun ON idempotency_keys (begun_at);

-- Lists of tenants read one page off an index, however many tenants there are.
ALTER TABLE tenants ADD COLUMN sort_name text NOT NULL GENERATED ALWAYS AS (lower(name)) STORED;
CREATE INDEX ix_tenants_name ON tenants (sort_name, id);
CREATE INDEX ix_tenants_updated ON tenants (updated_at, id);
CREATE INDEX ix_tenants_created ON tenants (created_at, id);

-- The newest deliveries of all tenants. The audit log grows by its time, so a few pages of a BRIN index lead to an hour.
CREATE INDEX ix_delivery_events_at ON delivery_events (at, id);
CREATE INDEX ix_audit_events_at ON audit_events USING brin (at);

-- How many codes went through, by channel and hour, for the whole fleet (the nil UUID). The rows of channel '' say
-- which hours are counted.
CREATE TABLE channel_hours (
    tenant_id uuid        NOT NULL,
    hour      timestamptz NOT NULL,
    channel   text        NOT NULL,
    requested bigint      NOT NULL DEFAULT 0,
    sent      bigint      NOT NULL DEFAULT 0,
    delivered bigint      NOT NULL DEFAULT 0,
    failed    bigint      NOT NULL DEFAULT 0,
    verified  bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, hour, channel)
);

DO $$
DECLARE v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['idempotency_keys', 'channel_hours'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', v_table);
        EXECUTE format('CREATE POLICY tenant_rows ON %I USING (tenant_id = fn.current_tenant() OR fn.all_tenants())',
                       v_table);
    END LOOP;
END $$;
