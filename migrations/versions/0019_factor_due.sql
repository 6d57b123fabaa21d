-- Whose key it is: it ends with its owner's access. NULL for one that was made at the command line.
ALTER TABLE api_keys ADD COLUMN admin_id uuid;

-- Whoever made a key owns it; a key that was made with a key belongs to that one's owner.
SELECT set_config('app.scope', 'all', true);
WITH RECURSIVE made AS (
    SELECT e.tenant_id, e.subject_id AS key_id, e.actor_kind, e.actor_id
    FROM audit_events e
    WHERE e.tenant_id = '00000000-0000-0000-0000-000000000001' AND e.action = 'api-key.created'
      AND e.actor_kind IN ('admin', 'api-key')
), owned AS (
    SELECT m.tenant_id, m.key_id, m.actor_id AS admin_id FROM made m WHERE m.actor_kind = 'admin'
    UNION
    SELECT m.tenant_id, m.key_id, o.admin_id FROM made m
    JOIN owned o ON m.actor_kind = 'api-key' AND m.tenant_id = o.tenant_id AND m.actor_id = o.key_id
)
UPDATE api_keys k SET admin_id = o.admin_id FROM owned o WHERE k.tenant_id = o.tenant_id AND k.id = o.key_id;
SELECT set_config('app.scope', '', true);

-- How far ahead of time a session's refreshes are: see fn.refresh_session.
ALTER TABLE sessions ADD COLUMN refresh_paced_at timestamptz;

-- What codes that a resend voided are recognised by, the oldest first; the last has the generation before the present.
ALTER TABLE challenges
    ADD COLUMN earlier_salts   bytea[] NOT NULL DEFAULT '{}',
    ADD COLUMN earlier_digests bytea[] NOT NULL DEFAULT '{}',
    ADD COLUMN earlier_keys    text[]  NOT NULL DEFAULT '{}';

-- They go with the challenge, whatever ends it, also the release before this one.
CREATE FUNCTION fn.forget_earlier() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.earlier_salts := '{}';
    NEW.earlier_digests := '{}';
    NEW.earlier_keys := '{}';
    RETURN NEW;
END $$;
CREATE TRIGGER tr_forget_earlier BEFORE UPDATE ON challenges FOR EACH ROW
    WHEN (NEW.ended_at IS NOT NULL AND cardinality(NEW.earlier_digests) > 0) EXECUTE FUNCTION fn.forget_earlier();

-- Steps to come whose code was typed too early: it was told that it was one, so it signs nobody in.
ALTER TABLE factors ADD COLUMN told_steps bigint[] NOT NULL DEFAULT '{}';
