"""What our role must be allowed for people to sign in, asked of the catalogue."""

from typing import Final

# r: SELECT, a: INSERT, w: UPDATE. A table that isn't there yet is the schema's business and lacks nothing.
CAN_WRITE: Final = """
SELECT current_setting('transaction_read_only')::boolean AS read_only,
       coalesce(has_schema_privilege(to_regnamespace('fn'), 'USAGE'), true) AS calls,
       ARRAY(SELECT lower(needed) || ' on ' || name
             FROM (VALUES ('tenants', 'r'), ('members', 'r'), ('admins', 'r'), ('attack_modes', 'r'),
                          ('audit_events', 'a'), ('quota', 'raw'), ('challenges', 'raw'), ('outbox', 'raw'),
                          ('refusals', 'raw'), ('sessions', 'raw'), ('devices', 'raw'), ('factors', 'r'),
                          ('half_sign_ins', 'raw'), ('repeats', 'raw'), ('contact_health', 'raw')
                  ) AS wanted (name, letters)
             CROSS JOIN (VALUES ('r', 'SELECT'), ('a', 'INSERT'), ('w', 'UPDATE')) AS rights (letter, needed)
             WHERE strpos(letters, letter) > 0 AND NOT has_table_privilege(to_regclass('public.' || name), needed)
             ORDER BY 1) AS lacking
"""
