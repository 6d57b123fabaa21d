-- Second factors of tenants, members and admins alike: authenticator apps, backup codes, and the sign-ins that wait
-- for one.

-- An authenticator app (RFC 6238). At most one is in force for a person, and at most one is being set up: `begun_by`
-- is the session, or the half sign-in, that shows its secret, and nobody else may confirm it.
CREATE TABLE factors (
    tenant_id    uuid          NOT NULL,
    id           uuid          NOT NULL,
    subject_kind text          NOT NULL,
    subject_id   uuid          NOT NULL,
    kind         text          NOT NULL DEFAULT 'totp',
    -- Encrypted under the key that key_id names; bound to the tenant, the subject and the id.
    secret       bytea         NOT NULL,
    key_id       text          NOT NULL,
    begun_by     uuid          NOT NULL,
    created_at   timestamptz   NOT NULL,
    confirmed_at timestamptz,
    used_at      timestamptz,
    -- The newest time step that was accepted: a code works once.
    last_step    bigint,
    -- Codes that were tried within a day and not found right.
    guesses      timestamptz[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_factors_kind CHECK (kind IN ('totp')),
    CONSTRAINT ck_factors_confirmed CHECK ((confirmed_at IS NULL) = (last_step IS NULL))
);
CREATE UNIQUE INDEX uq_factors_confirmed ON factors (tenant_id, subject_kind, subject_id, kind)
    WHERE confirmed_at IS NOT NULL;
CREATE UNIQUE INDEX uq_factors_pending ON factors (tenant_id, subject_kind, subject_id, kind)
    WHERE confirmed_at IS NULL;

-- Codes to keep on paper, each good once: a hash, and that encrypted. What is used is deleted.
CREATE TABLE backup_codes (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL,
    subject_kind text        NOT NULL,
    subject_id   uuid        NOT NULL,
    code_hash    bytea       NOT NULL,
    key_id       text        NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_backup_codes_subject ON backup_codes (tenant_id, subject_kind, subject_id);

-- The first factor is proven, the second isn't: no session yet. Only a hash of its secret is kept.
CREATE TABLE half_sign_ins (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL,
    secret_hash  bytea       NOT NULL,
    subject_kind text        NOT NULL,
    subject_id   uuid        NOT NULL,
    next         text        NOT NULL,
    kind         text        NOT NULL,
    methods      text[]      NOT NULL,
    challenge_id uuid,
    device_id    uuid,
    device_name  text,
    attempts     smallint    NOT NULL DEFAULT 0,
    max_attempts smallint    NOT NULL DEFAULT 5,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_half_sign_ins_next CHECK (next IN ('totp', 'enrol')),
    CONSTRAINT ck_half_sign_ins_kind CHECK (kind IN ('api', 'browser')),
    CONSTRAINT ck_half_sign_ins_attempts CHECK (attempts <= max_attempts)
);
CREATE INDEX ix_half_sign_ins_subject ON half_sign_ins (tenant_id, subject_kind, subject_id) WHERE ended_at IS NULL;
CREATE INDEX ix_half_sign_ins_expires ON half_sign_ins (expires_at);

DO $$
DECLARE v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['factors', 'backup_codes', 'half_sign_ins'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', v_table);
        EXECUTE format('CREATE POLICY tenant_rows ON %I USING (tenant_id = fn.current_tenant() OR fn.all_tenants())',
                       v_table);
    END LOOP;
END $$;

-- Their arguments or results change with this revision.
DROP FUNCTION IF EXISTS fn.begin_session, fn.complete_sign_in, fn.use_sign_in_link, fn.live_session;
