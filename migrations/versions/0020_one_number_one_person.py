"""Phone numbers that are written two ways are kept one way (`app.tenants.contacts`): Argentina, Brazil, Côte d'Ivoire,
Benin. Where another member of the tenant has the new form already, the old row is left for staff to decide.
"""

from alembic import op

from app.storage.migrate import run_script

revision = "0020"
down_revision = "0019"

_NEW = """
    CASE
        WHEN phone_number ~ '^[+]54[123][0-9]{9}$' THEN '+549' || substr(phone_number, 4)
        WHEN phone_number ~ '^[+]55[1-9][1-9]([689][0-9]|7[1-6])[0-9]{6}$'
            THEN substr(phone_number, 1, 5) || '9' || substr(phone_number, 6)
        WHEN phone_number ~ '^[+]225[04-9][0-3][0-9]{6}$' THEN '+22501' || substr(phone_number, 5)
        WHEN phone_number ~ '^[+]225[04-9][4-6][0-9]{6}$' THEN '+22505' || substr(phone_number, 5)
        WHEN phone_number ~ '^[+]225[04-9][7-9][0-9]{6}$' THEN '+22507' || substr(phone_number, 5)
        WHEN phone_number ~ '^[+]229[2-9][0-9]{7}$' THEN '+22901' || substr(phone_number, 5)
    END
"""


def upgrade() -> None:
    run_script(
        op.get_bind(),
        f"""
        SELECT set_config('app.scope', 'all', true);
        UPDATE tenants SET phone_number = {_NEW} WHERE ({_NEW}) IS NOT NULL;
        UPDATE members m SET phone_number = n.phone_number
        FROM (SELECT tenant_id, id, {_NEW} AS phone_number FROM members WHERE ({_NEW}) IS NOT NULL) AS n
        WHERE m.tenant_id = n.tenant_id AND m.id = n.id AND NOT EXISTS (
            SELECT FROM members o WHERE o.tenant_id = n.tenant_id AND o.phone_number = n.phone_number);
        SELECT set_config('app.scope', '', true);
        """,
    )


def downgrade() -> None:
    """The new form is right for the previous release, too."""
