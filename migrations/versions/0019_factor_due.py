"""A second factor is asked for wherever it is due; API keys have an owner; old codes and wrong clocks are known."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0019"
down_revision = "0018"

_DROP = """
DROP TRIGGER IF EXISTS tr_forget_earlier ON challenges;
DROP FUNCTION IF EXISTS fn.forget_earlier();
ALTER TABLE challenges DROP COLUMN earlier_salts, DROP COLUMN earlier_digests, DROP COLUMN earlier_keys;
ALTER TABLE factors DROP COLUMN told_steps;
ALTER TABLE sessions DROP COLUMN refresh_paced_at;
ALTER TABLE api_keys DROP COLUMN admin_id;
"""


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(op.get_bind(), _DROP)
