"""Members: people inside a tenant, their consents, addresses that are yet to be proven."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        DROP FUNCTION IF EXISTS fn.resolve_recipient, fn.request_code, fn.count_attempt, fn.counts, fn.find_member,
            fn.known_device, fn.needs_no_code, fn.subject_name, fn.try_password, fn.fail_password, fn.count_wrong_guess,
            fn.sign_in_without_code, fn.remember_device, fn.take_address, fn.admit_member, fn.complete_registration,
            fn.register_proven, fn.judge_claim, fn.reachable_at, fn.note_proven, fn.forget_password_try;
        ALTER TABLE quota DROP COLUMN password_tries;
        ALTER TABLE devices DROP COLUMN remembered_at;
        ALTER TABLE challenges DROP COLUMN proven;
        DROP TABLE claims, consents, members;
        """,
    )
