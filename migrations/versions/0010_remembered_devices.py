"""A half sign-in keeps the wish that its device be remembered."""

from alembic import op

from app.storage.migrate import run_script

revision = "0010"
down_revision = "0009"

# Their arguments or results change with this revision.
_CHANGED = """
DROP FUNCTION IF EXISTS fn.complete_sign_in, fn.begin_session, fn.start_session, fn.remember_device,
    fn.needs_no_code;
"""


def upgrade() -> None:
    run_script(
        op.get_bind(),
        "ALTER TABLE half_sign_ins ADD COLUMN remember_device boolean NOT NULL DEFAULT false;" + _CHANGED,
    )


def downgrade() -> None:
    run_script(
        op.get_bind(),
        _CHANGED + "DROP FUNCTION IF EXISTS fn.wants_password; ALTER TABLE half_sign_ins DROP COLUMN remember_device;",
    )
