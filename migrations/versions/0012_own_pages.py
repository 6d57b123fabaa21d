"""Known devices tell until when they are remembered."""

from alembic import op

from app.storage.migrate import run_script

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_script(op.get_bind(), "DROP FUNCTION IF EXISTS fn.subject_devices;")


def downgrade() -> None:
    run_script(op.get_bind(), "DROP FUNCTION IF EXISTS fn.subject_devices, fn.remembered_until, fn.own_member;")
