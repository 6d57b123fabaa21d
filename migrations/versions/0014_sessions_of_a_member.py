"""The sessions of a tenant and those of one of its members are listed and ended by the same functions."""

from alembic import op

from app.storage.migrate import run_script

revision = "0014"
down_revision = "0013"

_DROP = "DROP FUNCTION IF EXISTS fn.tenant_sessions, fn.end_tenant_sessions;"


def upgrade() -> None:
    run_script(op.get_bind(), _DROP)


def downgrade() -> None:
    run_script(op.get_bind(), _DROP)
