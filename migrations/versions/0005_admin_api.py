"""The admin API: idempotency keys, lists by index, counts by the hour."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        DROP TABLE channel_hours, idempotency_keys;
        DROP INDEX ix_audit_events_at, ix_delivery_events_at, ix_tenants_created, ix_tenants_updated, ix_tenants_name;
        ALTER TABLE tenants DROP COLUMN sort_name;
        """,
    )
