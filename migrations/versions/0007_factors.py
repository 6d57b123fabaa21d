"""Second factors: authenticator apps, backup codes, sign-ins that wait for one."""

from pathlib import Path

from alembic import op

from app.storage.migrate import run_script

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        DROP FUNCTION IF EXISTS fn.begin_session, fn.complete_sign_in, fn.use_sign_in_link, fn.live_session,
            fn.start_session, fn.next_step, fn.subject_contacts, fn.subject_factors, fn.half_sign_in, fn.may_change_factors,
            fn.after_factor_change, fn.tell_of_factors, fn.begin_enrolment, fn.pending_enrolment, fn.confirm_factor,
            fn.confirm_enrolment, fn.count_factor_attempt, fn.fail_factor_attempt, fn.complete_half_sign_in,
            fn.remove_factor, fn.reset_factors, fn.replace_backup_codes;
        DROP TABLE half_sign_ins, backup_codes, factors;
        """,
    )
