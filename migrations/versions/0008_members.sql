-- Members: the people inside a tenant, what they agreed to, and addresses that somebody says are theirs.

CREATE TABLE members (
    tenant_id           uuid        NOT NULL,
    id                  uuid        NOT NULL,
    name                text        NOT NULL,
    email               text,
    phone_number        text,
    preferred_method    text,
    locale              text        NOT NULL DEFAULT 'en',
    status              text        NOT NULL DEFAULT 'active',
    codes_enabled       boolean     NOT NULL DEFAULT true,
    -- Argon2id, in its own format (PHC string); NULL for whoever has no password.
    password_hash       text,
    email_verified_at   timestamptz,
    phone_verified_at   timestamptz,
    must_verify         boolean     NOT NULL DEFAULT false,
    version             integer     NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    last_sign_in_at     timestamptz,
    sort_name           text        NOT NULL GENERATED ALWAYS AS (lower(name)) STORED,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT fk_members_tenant FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    CONSTRAINT uq_members_email UNIQUE (tenant_id, email),
    CONSTRAINT uq_members_phone UNIQUE (tenant_id, phone_number),
    CONSTRAINT ck_members_status CHECK (status IN ('active', 'suspended', 'pending')),
    CONSTRAINT ck_members_method CHECK (preferred_method IN ('email', 'sms', 'whatsapp'))
);
CREATE INDEX ix_members_name ON members (tenant_id, sort_name, id);

-- Which text somebody agreed to, when and from where (GDPR, article 7).
CREATE TABLE consents (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL,
    member_id    uuid        NOT NULL,
    document     text        NOT NULL,
    version      text        NOT NULL,
    given_at     timestamptz NOT NULL,
    ip           inet,
    withdrawn_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_consents_member ON consents (tenant_id, member_id);

-- An address that somebody says is theirs, under the id of the challenge that is to prove it: of a newcomer, with what
-- they told of themselves (name NULL: nothing yet), or of a member who changes theirs. Nobody is a member by a claim.
CREATE TABLE claims (
    tenant_id        uuid        NOT NULL,
    id               uuid        NOT NULL,
    member_id        uuid        NOT NULL,
    name             text,
    email            text,
    phone_number     text,
    password_hash    text,
    locale           text        NOT NULL,
    document         text,
    document_version text,
    -- Proven, and not yet a member: who holds the token may become one.
    token_hash       bytea,
    proven_by        text,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_claims_token ON claims (tenant_id, token_hash) WHERE token_hash IS NOT NULL;
CREATE INDEX ix_claims_expires ON claims (expires_at);

-- What was proven before the code was asked for: `password`.
ALTER TABLE challenges ADD COLUMN proven text[] NOT NULL DEFAULT '{}';
-- Since when a device may stand for the code, by policy for so many days.
ALTER TABLE devices ADD COLUMN remembered_at timestamptz;
-- Passwords that were tried within the hour and not found right.
ALTER TABLE quota ADD COLUMN password_tries timestamptz[] NOT NULL DEFAULT '{}';

DO $$
DECLARE v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['members', 'consents', 'claims'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', v_table);
        EXECUTE format('CREATE POLICY tenant_rows ON %I USING (tenant_id = fn.current_tenant() OR fn.all_tenants())',
                       v_table);
    END LOOP;
END $$;

-- Their arguments or results change with this revision.
DROP FUNCTION IF EXISTS fn.resolve_recipient, fn.request_code, fn.count_attempt;
