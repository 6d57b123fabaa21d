"""A tenant's history, and the tenants whose contact is bad, are found by an index."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(op.get_bind(), "DROP INDEX ix_contact_health_own, ix_audit_events_changes;")
