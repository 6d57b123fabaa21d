"""Foundation: tenants, admins, challenges, quota, outbox, sessions, audit log; row-level security forced."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        DROP TABLE audit_events, delivery_events, sessions, outbox, refusals, quota, challenges, api_keys, admins,
                   tenants, workers;
        DROP SEQUENCE audit_event_id, delivery_event_id;
        DROP SCHEMA fn CASCADE;
        """,
    )
