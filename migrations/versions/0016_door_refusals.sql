-- When it was really refused: a story is told in its true order. Rows of older versions know only their minute.
ALTER TABLE refusals
    ADD COLUMN first_at timestamptz,
    ADD COLUMN last_at  timestamptz;

-- What was refused before anybody was known, counted by hour. `tenant_id` is nobody's (all zeros) where the slug that
-- was named is nobody's, or none was named; `slug` is then what was typed, '' otherwise. `network` is an address, or the
-- /64 that is limited together; ::/0 stands for many others. How many rows an hour has is bounded (fn.note_door).
CREATE SEQUENCE door_refusal_id;
CREATE TABLE door_refusals (
    tenant_id uuid        NOT NULL,
    id        bigint      NOT NULL DEFAULT nextval('door_refusal_id'),
    hour      timestamptz NOT NULL,
    reason    text        NOT NULL,
    network   inet        NOT NULL,
    slug      text        NOT NULL DEFAULT '',
    count     integer     NOT NULL DEFAULT 1,
    first_at  timestamptz NOT NULL,
    last_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, hour, reason, network, slug)
);
CREATE INDEX ix_door_refusals_hour ON door_refusals (hour, id);
ALTER TABLE door_refusals ENABLE ROW LEVEL SECURITY;
ALTER TABLE door_refusals FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON door_refusals USING (tenant_id = fn.current_tenant() OR fn.all_tenants());
