"""Guards against guessing: counters, locks, attack mode, known devices, sign-in links."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        DROP FUNCTION IF EXISTS fn.spend_quota, fn.request_code, fn.resend_code, fn.count_attempt,
                                fn.complete_sign_in, fn.challenge_status;
        DROP TABLE sign_in_links, devices, attack_modes, activity;
        ALTER TABLE challenges DROP COLUMN lane, DROP COLUMN device_id;
        ALTER TABLE quota DROP COLUMN wrong, DROP COLUMN failures, DROP COLUMN strikes, DROP COLUMN locked_until;
        """,
    )
