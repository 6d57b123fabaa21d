-- Delivery that finds another way: fallback rows, providers' reports, contact health, caps on SMS, counts.

-- A message that another channel or provider takes over is a row of its own, so that no row's state goes backwards:
-- `previous_id` is the row it takes over from. `refused` are the providers that will not be asked (again), `report_key`
-- is what a provider's report names the message by, `fallback_at` when the next channel is tried unless it arrives.
ALTER TABLE outbox
    ADD COLUMN previous_id uuid,
    ADD COLUMN refused     text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN report_key  text,
    ADD COLUMN fallback_at timestamptz,
    ADD COLUMN counted     boolean NOT NULL DEFAULT false;
-- However many notice that a message failed, one row takes over.
CREATE UNIQUE INDEX ix_outbox_previous ON outbox (tenant_id, previous_id) WHERE previous_id IS NOT NULL;
CREATE INDEX ix_outbox_report ON outbox (report_key) WHERE report_key IS NOT NULL;
CREATE INDEX ix_outbox_fallback ON outbox (fallback_at) WHERE fallback_at IS NOT NULL;
CREATE INDEX ix_outbox_decoys ON outbox (created_at) WHERE kind = 'decoy';
CREATE INDEX ix_outbox_sms ON outbox (created_at) WHERE channel = 'sms';

-- Contacts that providers say are no good. `subject_id` is the tenant's own id for its own contact.
CREATE TABLE contact_health (
    tenant_id   uuid        NOT NULL,
    subject_id  uuid        NOT NULL,
    channel     text        NOT NULL,
    since       timestamptz NOT NULL,
    error_class text        NOT NULL,
    error_text  text,
    PRIMARY KEY (tenant_id, subject_id, channel)
);
ALTER TABLE contact_health ENABLE ROW LEVEL SECURITY;
ALTER TABLE contact_health FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON contact_health USING (tenant_id = fn.current_tenant() OR fn.all_tenants());

-- A new contact starts without a past, whoever changed it.
CREATE FUNCTION fn.forget_contact_health() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM contact_health
    WHERE tenant_id = new.id AND subject_id = new.id
      AND ((channel = 'email' AND new.email IS DISTINCT FROM old.email)
        OR (channel IN ('sms', 'whatsapp') AND new.phone_number IS DISTINCT FROM old.phone_number));
    RETURN NULL;
END $$;
CREATE TRIGGER tenants_contact_changed AFTER UPDATE OF email, phone_number ON tenants
    FOR EACH ROW EXECUTE FUNCTION fn.forget_contact_health();

-- A provider may report on a message before the worker has written down that it sent it. Belongs to no tenant: whose
-- message it is, is what isn't known yet.
CREATE TABLE provider_reports (
    report_key  text        NOT NULL,
    state       text        NOT NULL,
    error_class text,
    error_text  text,
    unhealthy   boolean     NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (report_key, state),
    CONSTRAINT ck_provider_reports_state CHECK (state IN ('delivered', 'failed'))
);
CREATE INDEX ix_provider_reports_received ON provider_reports (received_at);

-- What was sent for money in a minute, an hour, a day: by channel, by destination prefix, and by number (its HMAC).
CREATE TABLE send_counts (
    name  text        NOT NULL,
    since timestamptz NOT NULL,
    count integer     NOT NULL,
    PRIMARY KEY (name, since)
);
CREATE INDEX ix_send_counts_since ON send_counts (since);

DO $$
DECLARE v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['provider_reports', 'send_counts'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', v_table);
        EXECUTE format('CREATE POLICY all_tenants ON %I USING (fn.all_tenants())', v_table);
    END LOOP;
END $$;

-- Every step of every message, counted for /metrics by whoever writes it. A few rows for each series: transactions
-- rarely wait for one another. They take these rows last, so they don't deadlock over them.
CREATE TABLE delivery_counts (
    shard    integer NOT NULL,
    channel  text    NOT NULL,
    provider text    NOT NULL,
    state    text    NOT NULL,
    count    bigint  NOT NULL,
    PRIMARY KEY (shard, channel, provider, state)
);
CREATE FUNCTION fn.count_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO delivery_counts AS c (shard, channel, provider, state, count)
    SELECT pg_backend_pid() % 16, e.channel, coalesce(e.provider, ''), e.state, count(*) FROM new_events e
    GROUP BY e.channel, coalesce(e.provider, ''), e.state
    ORDER BY e.channel, coalesce(e.provider, ''), e.state
    ON CONFLICT (shard, channel, provider, state) DO UPDATE SET count = c.count + excluded.count;
    RETURN NULL;
END $$;
CREATE TRIGGER delivery_events_counted AFTER INSERT ON delivery_events
    REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT EXECUTE FUNCTION fn.count_deliveries();

-- The worker clears away devices a month after they were revoked.
CREATE INDEX ix_devices_revoked ON devices (revoked_at) WHERE revoked_at IS NOT NULL;

-- Their arguments or results change with this revision.
DROP FUNCTION IF EXISTS fn.claim_outbox, fn.settle_outbox;
