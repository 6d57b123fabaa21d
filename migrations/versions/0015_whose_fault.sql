-- A mark at a contact says that there is no such address or number, nothing else; and it ends with the address.

-- The contact was another one when this message was sent: what becomes of it tells nothing about the one there is now.
ALTER TABLE outbox ADD COLUMN former boolean NOT NULL DEFAULT false;

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
