-- How tenants' messages look. The logo itself is read by fn.tenant_logo alone.
CREATE OR REPLACE FUNCTION fn.brandings(p_tenants uuid[]) RETURNS TABLE (
    tenant_id uuid, sender_name text, reply_to text, colour text, code_in_subject boolean, email_intro text,
    sms_text text, logo_version text, logo_type text, logo_width integer, logo_height integer, version integer
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.scope', 'all', true);
    RETURN QUERY
    SELECT b.tenant_id, b.sender_name, b.reply_to, b.colour, b.code_in_subject, b.email_intro, b.sms_text,
           b.logo_version, b.logo_type, b.logo_width, b.logo_height, b.version
    FROM tenant_branding b WHERE b.tenant_id = ANY (p_tenants);
END $$;

-- The logo of the tenant with this slug, if it has one. Whether the caller may have it is for the caller to compare.
CREATE OR REPLACE FUNCTION fn.tenant_logo(p_slug text) RETURNS TABLE (logo bytea, logo_type text, logo_version text)
LANGUAGE plpgsql AS $$
DECLARE v_tenant uuid;
BEGIN
    PERFORM set_config('app.tenant_slug', p_slug, true);
    SELECT t.id INTO v_tenant FROM tenants t WHERE t.slug = p_slug;
    PERFORM set_config('app.tenant_id', v_tenant::text, true);
    RETURN QUERY
    SELECT b.logo, b.logo_type, b.logo_version FROM tenant_branding b
    WHERE b.tenant_id = v_tenant AND b.logo IS NOT NULL;
END $$;
