"""Many members in one tenant: found by an index, counted by the hour."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        DROP TABLE member_hours;
        DROP INDEX ix_delivery_events_challenge, ix_members_name;
        CREATE INDEX ix_members_name ON members (tenant_id, sort_name, id);
        DROP POLICY tenant_rows ON members;
        CREATE POLICY tenant_rows ON members USING (tenant_id = fn.current_tenant() OR fn.all_tenants());
        """,
    )
