-- The audit chain (app/audit/chain.py says what each column means and what the hash covers).
--
-- One chain for the fleet, so neither table is a tenant's: ids run through all tenants, a tenant that vanishes with
-- its whole log would take a chain of its own with it, and a seal a tenant every few seconds doesn't scale.

-- Sealing and checking read events in the order of their ids, across all months.
CREATE INDEX ix_audit_events_id ON audit_events (id);

CREATE TABLE audit_seals (
    number       bigint      PRIMARY KEY,
    kind         text        NOT NULL,
    after_id     bigint      NOT NULL,
    through_id   bigint      NOT NULL,
    month        integer     NOT NULL,
    events       integer     NOT NULL,
    marks        bytea,
    marks_digest bytea       NOT NULL,
    previous     bytea       NOT NULL,
    hash         bytea       NOT NULL,
    mac          bytea       NOT NULL,
    key_id       text        NOT NULL,
    sealed_at    timestamptz NOT NULL,
    CONSTRAINT ck_audit_seals_kind CHECK (kind IN ('events', 'removal')),
    CONSTRAINT ck_audit_seals_range CHECK (after_id <= through_id)
);
-- Marks are as good as random: compressing them is wasted time.
ALTER TABLE audit_seals ALTER COLUMN marks SET STORAGE EXTERNAL;

CREATE TABLE audit_checkpoints (
    number     bigint      PRIMARY KEY,
    checkpoint text        NOT NULL,
    key_id     text        NOT NULL,
    made_at    timestamptz NOT NULL
);

DO $$
DECLARE v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['audit_seals', 'audit_checkpoints'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', v_table);
        EXECUTE format('CREATE POLICY all_tenants ON %I USING (fn.all_tenants())', v_table);
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION '
                       'fn.refuse_change()', v_table || '_append_only', v_table);
    END LOOP;
    FOREACH v_table IN ARRAY ARRAY['audit_events', 'audit_seals', 'audit_checkpoints'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION '
                       'fn.refuse_change()', v_table || '_not_truncated', v_table);
    END LOOP;
END $$;
