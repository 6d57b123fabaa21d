-- Foundation: tenants, admins, API keys, challenges, quota, outbox, sessions, audit log.
--
-- Every tenant-owned table leads its key with tenant_id (so it can be distributed by tenant) and has row-level
-- security forced on its owner too. Policies read transaction-local settings:
--   app.tenant_id    one tenant
--   app.tenant_slug  the one row of `tenants` a sign-in is about, before its id is known
--   app.scope        'all', named explicitly by the admin service and the worker

CREATE SCHEMA fn;

-- PL/pgSQL plans the body at first use, so these read as constants inside a statement (STABLE).
CREATE FUNCTION fn.current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT nullif(current_setting('app.tenant_id', true), '')::uuid $$;

CREATE FUNCTION fn.all_tenants() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT coalesce(current_setting('app.scope', true), '') = 'all' $$;

CREATE TABLE tenants (
    id                  uuid        PRIMARY KEY,
    slug                text        NOT NULL,
    name                text        NOT NULL,
    status              text        NOT NULL DEFAULT 'active',
    status_reason       text,
    email               text,
    phone_number        text,
    otp_delivery_method text        NOT NULL DEFAULT 'email',
    fallback_methods    text[]      NOT NULL DEFAULT '{}',
    locale              text        NOT NULL DEFAULT 'en',
    timezone            text        NOT NULL DEFAULT 'UTC',
    policy              jsonb       NOT NULL DEFAULT '{}',
    version             integer     NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    CONSTRAINT uq_tenants_slug UNIQUE (slug),
    CONSTRAINT ck_tenants_slug CHECK (slug = '_system' OR slug ~ '^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$'),
    CONSTRAINT ck_tenants_status CHECK (status IN ('active', 'suspended')),
    CONSTRAINT ck_tenants_method CHECK (otp_delivery_method IN ('email', 'sms', 'whatsapp', 'push')),
    CONSTRAINT ck_tenants_fallback CHECK (fallback_methods <@ ARRAY['email', 'sms', 'whatsapp', 'push'])
);

CREATE TABLE admins (
    tenant_id       uuid        NOT NULL,
    id              uuid        NOT NULL,
    email           text        NOT NULL,
    name            text        NOT NULL,
    role            text        NOT NULL,
    status          text        NOT NULL DEFAULT 'active',
    version         integer     NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    last_sign_in_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT fk_admins_tenant FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    CONSTRAINT uq_admins_email UNIQUE (tenant_id, email),
    CONSTRAINT ck_admins_role CHECK (role IN ('owner', 'manager', 'viewer')),
    CONSTRAINT ck_admins_status CHECK (status IN ('active', 'suspended'))
);

CREATE TABLE api_keys (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL,
    name         text        NOT NULL,
    role         text        NOT NULL,
    secret_hash  bytea       NOT NULL,
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT fk_api_keys_tenant FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    CONSTRAINT ck_api_keys_role CHECK (role IN ('owner', 'manager', 'viewer'))
);

-- No foreign keys on challenges, quota, refusals and outbox: a slug nobody has gets a decoy through the very
-- same statements, under a tenant id derived from the slug.
CREATE TABLE challenges (
    tenant_id     uuid        NOT NULL,
    id            uuid        NOT NULL,
    recipient_key bytea       NOT NULL,
    subject_kind  text        NOT NULL,
    subject_id    uuid        NOT NULL,
    decoy         boolean     NOT NULL,
    purpose       text        NOT NULL DEFAULT 'sign_in',
    channel       text        NOT NULL,
    asked_channel text,
    generation    integer     NOT NULL DEFAULT 1,
    code_length   smallint    NOT NULL,
    salt          bytea,
    digest        bytea,
    key_id        text        NOT NULL,
    attempts      smallint    NOT NULL DEFAULT 0,
    max_attempts  smallint    NOT NULL,
    ip            inet,
    user_agent    text,
    locale        text        NOT NULL,
    created_at    timestamptz NOT NULL,
    sent_at       timestamptz NOT NULL,
    resend_at     timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    ended_at      timestamptz,
    end_reason    text,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_challenges_length CHECK (code_length IN (6, 8)),
    CONSTRAINT ck_challenges_attempts CHECK (attempts <= max_attempts),
    CONSTRAINT ck_challenges_end CHECK (end_reason IN ('used', 'void', 'attempts', 'expired')),
    -- An ended challenge keeps nothing a code could be checked against.
    CONSTRAINT ck_challenges_erased CHECK (ended_at IS NULL OR (salt IS NULL AND digest IS NULL))
);
CREATE INDEX ix_challenges_open ON challenges (tenant_id, recipient_key) WHERE ended_at IS NULL;
CREATE INDEX ix_challenges_expires ON challenges (expires_at);

CREATE TABLE quota (
    tenant_id     uuid          NOT NULL,
    recipient_key bytea         NOT NULL,
    lane          text          NOT NULL DEFAULT '',
    sends         timestamptz[] NOT NULL,
    seen_at       timestamptz   NOT NULL,
    PRIMARY KEY (tenant_id, recipient_key, lane)
);
CREATE INDEX ix_quota_seen ON quota (seen_at);

CREATE TABLE refusals (
    tenant_id     uuid        NOT NULL,
    recipient_key bytea       NOT NULL,
    reason        text        NOT NULL,
    minute        timestamptz NOT NULL,
    count         integer     NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, recipient_key, reason, minute)
);
CREATE INDEX ix_refusals_minute ON refusals (minute);

CREATE TABLE outbox (
    tenant_id           uuid        NOT NULL,
    id                  uuid        NOT NULL,
    kind                text        NOT NULL,
    challenge_id        uuid,
    generation          integer,
    channel             text        NOT NULL,
    destination         text,
    payload             jsonb,
    state               text        NOT NULL DEFAULT 'queued',
    attempts            smallint    NOT NULL DEFAULT 0,
    available_at        timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL,
    lease_until         timestamptz,
    lease_owner         text,
    provider            text,
    provider_message_id text,
    error_class         text,
    error_text          text,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_outbox_kind CHECK (kind IN ('code', 'decoy', 'notice', 'test')),
    CONSTRAINT ck_outbox_state CHECK (state IN ('queued', 'sending', 'sent', 'delivered', 'failed', 'expired', 'void'))
);
CREATE INDEX ix_outbox_due ON outbox (available_at) WHERE state = 'queued';
CREATE INDEX ix_outbox_leased ON outbox (lease_until) WHERE state = 'sending';
CREATE INDEX ix_outbox_challenge ON outbox (tenant_id, challenge_id);
CREATE INDEX ix_outbox_created ON outbox (created_at);

CREATE SEQUENCE delivery_event_id;
CREATE TABLE delivery_events (
    tenant_id           uuid        NOT NULL,
    at                  timestamptz NOT NULL,
    id                  bigint      NOT NULL DEFAULT nextval('delivery_event_id'),
    outbox_id           uuid        NOT NULL,
    challenge_id        uuid,
    kind                text        NOT NULL,
    channel             text        NOT NULL,
    state               text        NOT NULL,
    provider            text,
    provider_message_id text,
    error_class         text,
    error_text          text,
    took_ms             integer,
    PRIMARY KEY (tenant_id, at, id)
) PARTITION BY RANGE (at);

-- A session is also its refresh-token family: one token of it is valid at a time.
CREATE TABLE sessions (
    tenant_id          uuid        NOT NULL,
    id                 uuid        NOT NULL,
    kind               text        NOT NULL,
    subject_kind       text        NOT NULL,
    subject_id         uuid        NOT NULL,
    secret_hash        bytea,
    refresh_n          integer,
    refresh_hash       bytea,
    refresh_prior_hash bytea,
    refresh_rotated_at timestamptz,
    methods            text[]      NOT NULL,
    device_name        text,
    ip                 inet,
    user_agent         text,
    authenticated_at   timestamptz NOT NULL,
    created_at         timestamptz NOT NULL,
    seen_at            timestamptz NOT NULL,
    expires_at         timestamptz NOT NULL,
    ended_at           timestamptz,
    end_reason         text,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_sessions_kind CHECK (kind IN ('api', 'browser')),
    CONSTRAINT ck_sessions_subject CHECK (subject_kind IN ('tenant', 'member', 'admin'))
);
CREATE INDEX ix_sessions_subject ON sessions (tenant_id, subject_kind, subject_id, created_at);
CREATE INDEX ix_sessions_expires ON sessions (expires_at);

CREATE SEQUENCE audit_event_id;
CREATE TABLE audit_events (
    tenant_id    uuid        NOT NULL,
    at           timestamptz NOT NULL,
    id           bigint      NOT NULL DEFAULT nextval('audit_event_id'),
    action       text        NOT NULL,
    actor_kind   text        NOT NULL,
    actor_id     uuid,
    subject_kind text,
    subject_id   uuid,
    challenge_id uuid,
    source       text        NOT NULL,
    ip           inet,
    user_agent   text,
    request_id   text,
    data         jsonb       NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, at, id)
) PARTITION BY RANGE (at);
CREATE INDEX ix_audit_events_subject ON audit_events (tenant_id, subject_id, at);

-- Not tenant-owned: which workers are alive (readiness asks).
CREATE TABLE workers (
    id         text        PRIMARY KEY,
    started_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL
);

-- Months are made ahead of time by `gatehouse migrate` and by the worker; what falls outside lands in the default
-- partition and is still there. SECURITY DEFINER because the application's role owns nothing; the function takes
-- no text from its caller.
CREATE FUNCTION fn.ensure_partitions(p_now timestamptz) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_table text;
    v_month timestamptz;
    v_name  text;
BEGIN
    PERFORM pg_advisory_xact_lock(7342001);
    FOREACH v_table IN ARRAY ARRAY['audit_events', 'delivery_events'] LOOP
        FOR v_offset IN 0..3 LOOP
            v_month := date_trunc('month', p_now, 'UTC') + make_interval(months => v_offset);
            v_name := v_table || to_char(v_month AT TIME ZONE 'UTC', '"_p"YYYYMM');
            IF to_regclass('public.' || v_name) IS NULL THEN
                BEGIN
                    EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', v_name, v_table,
                        v_month, date_trunc('month', v_month + interval '32 days', 'UTC'));
                EXCEPTION WHEN check_violation THEN
                    NULL; -- the default partition already holds rows of that month: they stay there
                END;
            END IF;
        END LOOP;
    END LOOP;
END $$;
CREATE TABLE audit_events_default PARTITION OF audit_events DEFAULT;
CREATE TABLE delivery_events_default PARTITION OF delivery_events DEFAULT;

CREATE FUNCTION fn.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION fn.refuse_change();

DO $$
DECLARE v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['admins', 'api_keys', 'challenges', 'quota', 'refusals', 'outbox',
                                   'delivery_events', 'sessions', 'audit_events'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', v_table);
        EXECUTE format('CREATE POLICY tenant_rows ON %I USING (tenant_id = fn.current_tenant() OR fn.all_tenants())',
                       v_table);
    END LOOP;
END $$;
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
-- Reading one row by its slug is how a sign-in begins; writing needs the tenant's id.
CREATE POLICY tenant_by_slug ON tenants FOR SELECT USING (slug = current_setting('app.tenant_slug', true));
CREATE POLICY tenant_rows ON tenants USING (id = fn.current_tenant() OR fn.all_tenants());

SELECT set_config('app.scope', 'all', true);
INSERT INTO tenants (id, slug, name, created_at, updated_at)
VALUES ('00000000-0000-0000-0000-000000000001', '_system', 'Gatehouse', now(), now());
