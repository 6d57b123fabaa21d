"""What is refused has its true time, also what is refused before anybody is known."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0016"
down_revision = "0015"

_DOWN = """
DROP FUNCTION IF EXISTS fn.note_door;
DROP TABLE door_refusals;
DROP SEQUENCE door_refusal_id;
ALTER TABLE refusals DROP COLUMN first_at, DROP COLUMN last_at;
"""


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(op.get_bind(), _DOWN)
