-- How a tenant's messages look and whom they come from. A tenant without a row has nothing of its own. The limits here
-- are the last line; app/delivery/brand_rules.py says what is allowed.
CREATE TABLE tenant_branding (
    tenant_id       uuid        NOT NULL PRIMARY KEY,
    sender_name     text,
    reply_to        text,
    colour          text,
    code_in_subject boolean     NOT NULL DEFAULT true,
    email_intro     text,
    sms_text        text,
    logo            bytea,
    logo_version    text,
    logo_type       text,
    logo_width      integer,
    logo_height     integer,
    version         integer     NOT NULL DEFAULT 0,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT fk_tenant_branding_tenant FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    CONSTRAINT ck_tenant_branding_names CHECK (sender_name !~ '[\x01-\x1f\x7f]' AND reply_to !~ '[\x01-\x20\x7f,]'),
    CONSTRAINT ck_tenant_branding_colour CHECK (colour ~ '^#[0-9a-f]{6}$'),
    CONSTRAINT ck_tenant_branding_logo CHECK (
        num_nulls(logo, logo_version, logo_type, logo_width, logo_height) IN (0, 5) AND octet_length(logo) <= 65536),
    CONSTRAINT ck_tenant_branding_logo_type CHECK (logo_type IN ('image/png', 'image/jpeg', 'image/webp'))
);
-- Images are compressed already.
ALTER TABLE tenant_branding ALTER COLUMN logo SET STORAGE EXTERNAL;

ALTER TABLE tenant_branding ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_branding FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON tenant_branding USING (tenant_id = fn.current_tenant() OR fn.all_tenants());
