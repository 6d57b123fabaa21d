-- Guards against guessing: wrong guesses and locks by recipient, activity by tenant and hour, attack mode, known
-- devices, sign-in links.

-- On the row that a request locks anyway: what is known about wrong guesses at this recipient (in this lane).
ALTER TABLE quota
    ADD COLUMN wrong        timestamptz[] NOT NULL DEFAULT '{}',
    ADD COLUMN failures     integer       NOT NULL DEFAULT 0,
    ADD COLUMN strikes      integer       NOT NULL DEFAULT 0,
    ADD COLUMN locked_until timestamptz;

ALTER TABLE challenges
    ADD COLUMN lane      text NOT NULL DEFAULT '',
    ADD COLUMN device_id uuid;

-- How busy a tenant is, in slots of ten minutes; four rows each, so that parallel sign-ins rarely wait for one
-- another. The nil UUID's rows are the whole fleet's, summed by the worker.
CREATE TABLE activity (
    tenant_id uuid        NOT NULL,
    slot      timestamptz NOT NULL,
    shard     smallint    NOT NULL,
    requested bigint      NOT NULL DEFAULT 0,
    verified  bigint      NOT NULL DEFAULT 0,
    wrong     bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, slot, shard)
);
CREATE INDEX ix_activity_slot ON activity (slot);

-- The nil UUID stands for the whole fleet; everybody may read that row.
CREATE TABLE attack_modes (
    tenant_id uuid        NOT NULL PRIMARY KEY,
    since     timestamptz NOT NULL,
    until     timestamptz NOT NULL
);

CREATE TABLE devices (
    tenant_id     uuid        NOT NULL,
    id            uuid        NOT NULL,
    subject_kind  text        NOT NULL,
    subject_id    uuid        NOT NULL,
    name          text,
    ip            inet,
    user_agent    text,
    created_at    timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz,
    revoke_reason text,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_devices_subject ON devices (tenant_id, subject_kind, subject_id);
CREATE INDEX ix_devices_expires ON devices (expires_at);

CREATE TABLE sign_in_links (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL,
    subject_kind text        NOT NULL,
    subject_id   uuid        NOT NULL,
    secret_hash  bytea       NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_sign_in_links_expires ON sign_in_links (expires_at);

DO $$
DECLARE v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['activity', 'attack_modes', 'devices', 'sign_in_links'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', v_table);
        EXECUTE format('CREATE POLICY tenant_rows ON %I USING (tenant_id = fn.current_tenant() OR fn.all_tenants())',
                       v_table);
    END LOOP;
END $$;
CREATE POLICY fleet_row ON attack_modes FOR SELECT USING (tenant_id = '00000000-0000-0000-0000-000000000000'
                                                          AND current_setting('app.tenant_id', true) <> '');

-- Their arguments or results change with this revision.
DROP FUNCTION IF EXISTS fn.spend_quota, fn.request_code, fn.resend_code, fn.count_attempt, fn.complete_sign_in,
    fn.challenge_status;
