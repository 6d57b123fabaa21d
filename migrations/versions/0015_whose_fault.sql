-- A mark at a contact says that there is no such address or number, nothing else; and it ends with the address.

-- The contact was another one when this message was sent: what becomes of it tells nothing about the one there is now.
ALTER TABLE outbox ADD COLUMN former boolean NOT NULL DEFAULT false;

-- Stands in app/delivery/sql from now on. The revisions after this one already change contacts, and the functions of a
-- release are put in place after its revisions.
CREATE OR REPLACE FUNCTION fn.forget_contact(p_tenant uuid, p_subject uuid, p_channels text[]) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    v_marked   text[];
    v_messages uuid[];
BEGIN
    IF p_subject = p_tenant THEN
        -- Of a message whose challenge is gone nobody knows any more whose it was: most are the tenant's.
        SELECT array_agg(o.id) INTO v_messages FROM outbox o
        LEFT JOIN challenges c ON c.tenant_id = o.tenant_id AND c.id = o.challenge_id
        WHERE o.tenant_id = p_tenant AND o.channel = ANY (p_channels) AND o.kind IN ('code', 'test')
          AND coalesce(c.subject_id, p_tenant) = p_tenant;
    ELSE
        SELECT array_agg(o.id) INTO v_messages FROM challenges c
        JOIN outbox o ON o.tenant_id = c.tenant_id AND o.challenge_id = c.id AND o.kind = 'code'
        WHERE c.tenant_id = p_tenant AND c.subject_id = p_subject AND o.channel = ANY (p_channels);
    END IF;
    UPDATE outbox SET former = true
    WHERE (tenant_id, id) IN (
        SELECT o.tenant_id, o.id FROM outbox o
        WHERE o.tenant_id = p_tenant AND o.id = ANY (v_messages) AND NOT o.former
        FOR UPDATE SKIP LOCKED);
    WITH gone AS (
        DELETE FROM contact_health WHERE tenant_id = p_tenant AND subject_id = p_subject AND channel = ANY (p_channels)
        RETURNING channel
    )
    SELECT coalesce(array_agg(g.channel ORDER BY g.channel), '{}') INTO v_marked FROM gone g;
    RETURN v_marked;
END $$;

-- A new contact starts without a past, whoever changed it, a tenant's and a member's.
CREATE OR REPLACE FUNCTION fn.forget_contact_health() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_tenant   uuid;
    v_channels text[] := '{}';
BEGIN
    IF tg_table_name = 'tenants' THEN
        v_tenant := new.id;
    ELSE
        v_tenant := new.tenant_id;
    END IF;
    IF new.email IS DISTINCT FROM old.email THEN
        v_channels := v_channels || ARRAY['email'];
    END IF;
    IF new.phone_number IS DISTINCT FROM old.phone_number THEN
        v_channels := v_channels || ARRAY['sms', 'whatsapp'];
    END IF;
    IF cardinality(v_channels) > 0 THEN
        PERFORM fn.forget_contact(v_tenant, new.id, v_channels);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER members_contact_changed AFTER UPDATE OF email, phone_number ON members
    FOR EACH ROW WHEN (new.email IS DISTINCT FROM old.email OR new.phone_number IS DISTINCT FROM old.phone_number)
    EXECUTE FUNCTION fn.forget_contact_health();

-- What marked a contact so far and is not its fault: a recipient who wants no messages, a server that refused us, a
-- mailbox that was full, an answer that meant "later".
SELECT set_config('app.scope', 'all', true);
DELETE FROM contact_health
WHERE error_class = 'opted-out'
   OR (channel = 'email' AND error_class = 'recipient'
       AND (error_text ~ '^4\d\d' OR error_text ~ '(^|\s)(4\.\d|5\.[2-7])\.\d')
       AND error_text !~ '(^|\s)5\.1\.\d');
SELECT set_config('app.scope', '', true);
