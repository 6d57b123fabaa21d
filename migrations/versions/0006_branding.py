"""How tenants' messages look: sender, reply-to, colour, logo, words."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        DROP FUNCTION IF EXISTS fn.brandings, fn.tenant_logo, fn.disown_challenge;
        DROP TABLE tenant_branding;
        """,
    )
