"""One quota a person: a door's row names whose it was last, and a challenge the door it was asked for at."""

from alembic import op

from app.storage.migrate import run_script

revision = "0017"
down_revision = "0016"

_UP = """
ALTER TABLE quota
    ADD COLUMN person_key  bytea,
    ADD COLUMN admitted    boolean       NOT NULL DEFAULT true,
    ADD COLUMN short_wrong timestamptz[] NOT NULL DEFAULT '{}';
ALTER TABLE challenges ADD COLUMN door_key bytea;
"""
# What a release before this one doesn't know: its own stay, or are put in place anew.
_DOWN = """
DROP FUNCTION IF EXISTS
    fn.has_room(quota, timestamptz, integer, integer),
    fn.has_room(timestamptz, timestamptz[], timestamptz, integer, integer),
    fn.may_try_password(quota, timestamptz, integer),
    fn.spend_quota(timestamptz, uuid, bytea, text, bytea, integer, integer),
    fn.spend_unseen(timestamptz, uuid, bytea, integer, integer, boolean),
    fn.take_back_send(uuid, bytea, text),
    fn.exposed(timestamptz, uuid, bytea, integer),
    fn.spend_code(timestamptz, uuid, bytea, bytea, uuid, integer, integer, integer, integer, boolean),
    fn.count_wrong_guess(timestamptz, uuid, bytea, bytea, text, integer),
    fn.forgive_failures(uuid, bytea, bytea, text),
    fn.forget_password_tries(uuid, bytea, bytea, boolean),
    fn.fail_password(timestamptz, uuid, text, uuid, bytea, bytea, text, jsonb),
    fn.open_challenge(timestamptz, text, uuid, uuid, uuid),
    fn.recipient_standing(timestamptz, uuid, uuid, bytea[]),
    fn.unlock_recipient(uuid, uuid, bytea[]),
    fn.cap_devices(timestamptz, uuid, text, uuid, integer, jsonb);
DO $$
DECLARE v_function regprocedure;
BEGIN
    -- Of these, the ones with the arguments of this release.
    FOR v_function IN
        SELECT p.oid::regprocedure FROM pg_proc p
        WHERE p.pronamespace = 'fn'::regnamespace
          AND p.proname IN ('request_code', 'try_password', 'sign_in_without_code')
          AND 'p_door_key' = ANY (p.proargnames)
    LOOP
        EXECUTE 'DROP FUNCTION ' || v_function;
    END LOOP;
END $$;
ALTER TABLE challenges DROP COLUMN door_key;
ALTER TABLE quota DROP COLUMN person_key, DROP COLUMN admitted, DROP COLUMN short_wrong;
"""


def upgrade() -> None:
    run_script(op.get_bind(), _UP)


def downgrade() -> None:
    run_script(op.get_bind(), _DOWN)
