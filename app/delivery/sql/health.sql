-- What is known of contacts: whose fault it was that a message didn't arrive stands with the contact only where there is
-- no such address or number (app/audit/blame.py).

-- Whose own contact a message went to, so that what becomes of it tells of that contact: a tenant's, a member's, an
-- admin's. NULL: nobody's any more, or nobody's yet, such as a notice to an address of before, a code that is to prove a
-- new address, and whatever was sent before the contact changed.
CREATE OR REPLACE FUNCTION fn.contact_of(p_row outbox) RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    IF p_row.former THEN
        RETURN NULL;
    ELSIF p_row.kind = 'test' THEN
        RETURN p_row.tenant_id;
    ELSIF p_row.kind = 'code' THEN
        RETURN (SELECT c.subject_id FROM challenges c
                WHERE c.tenant_id = p_row.tenant_id AND c.id = p_row.challenge_id
                  AND c.purpose NOT IN ('register', 'contact'));
    END IF;
    RETURN NULL;
END $$;

-- A contact starts anew: its marks go, and what becomes of messages that are out tells nothing about it. Messages that
-- are just being settled are not waited for: whoever settles them may wait for us. Answers which channels were marked.
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

-- The contacts of a tenant that providers say are no good, the newest fault first.
CREATE OR REPLACE FUNCTION fn.unhealthy_contacts(p_tenant uuid)
RETURNS TABLE (subject_id uuid, channel text, since timestamptz, error_class text, error_text text)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant_id', p_tenant::text, true);
    RETURN QUERY SELECT h.subject_id, h.channel, h.since, h.error_class, h.error_text FROM contact_health h
    WHERE h.tenant_id = p_tenant ORDER BY h.since DESC, h.channel;
END $$;
