"""Only an address or number that doesn't exist marks a contact, and the mark ends with it, a member's too."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        DROP TRIGGER members_contact_changed ON members;
        CREATE OR REPLACE FUNCTION fn.forget_contact_health() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM contact_health
            WHERE tenant_id = new.id AND subject_id = new.id
              AND ((channel = 'email' AND new.email IS DISTINCT FROM old.email)
                OR (channel IN ('sms', 'whatsapp') AND new.phone_number IS DISTINCT FROM old.phone_number));
            RETURN NULL;
        END $$;
        DROP FUNCTION IF EXISTS fn.contact_of, fn.forget_contact;
        ALTER TABLE outbox DROP COLUMN former;
        """,
    )
