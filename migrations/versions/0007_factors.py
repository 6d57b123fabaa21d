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
            fn.start_session, fn.count_factor_attempt, fn.fail_factor_attempt, fn.complete_half_sign_in,
            fn.half_sign_in, fn.subject_factors, fn.begin_enrolment, fn.pending_enrolment, fn.confirm_factor,
            fn.confirm_enrolment, fn.remove_factor, fn.reset_factors, fn.replace_backup_codes, fn.delete_factors,
            fn.after_factor_change, fn.audit_factor, fn.tell_of_factors, fn.subject_contacts, fn.may_change_factors,
            fn.factors_off, fn.next_step, fn.must_have_factor, fn.has_factor, fn.lock_subject;
        DROP TABLE half_sign_ins, backup_codes, factors;
        """,
    )
