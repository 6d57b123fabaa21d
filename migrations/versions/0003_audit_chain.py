"""The audit chain: seals, checkpoints, and the order in which events are sealed."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        DROP TRIGGER audit_events_not_truncated ON audit_events;
        DROP TABLE audit_checkpoints, audit_seals;
        DROP INDEX ix_audit_events_id;
        """,
    )
