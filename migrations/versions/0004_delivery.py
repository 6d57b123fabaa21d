"""Delivery that finds another way: fallback rows, providers' reports, contact health, caps on SMS, counts."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        DROP FUNCTION IF EXISTS fn.claim_outbox, fn.settle_outbox, fn.follow;
        DROP TRIGGER delivery_events_counted ON delivery_events;
        DROP TRIGGER tenants_contact_changed ON tenants;
        DROP FUNCTION fn.count_deliveries, fn.forget_contact_health;
        DROP TABLE delivery_counts, send_counts, provider_reports, contact_health;
        ALTER TABLE outbox DROP COLUMN previous_id, DROP COLUMN refused, DROP COLUMN report_key,
                           DROP COLUMN fallback_at, DROP COLUMN counted;
        DROP INDEX ix_outbox_decoys, ix_outbox_sms, ix_devices_revoked;
        """,
    )
