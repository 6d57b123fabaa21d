"""What a form, or a POST of an app, was answered: kept for a moment, so that it can be sent twice and done once."""

from alembic import op

from app.storage.migrate import run_script

revision = "0018"
down_revision = "0017"

# `id` is a keyed hash and `answer` is sealed under a key that is in no store (app/auth/repeats.py).
_TABLE = """
CREATE TABLE repeats (
    tenant_id   uuid        NOT NULL,
    id          bytea       NOT NULL,
    fingerprint bytea       NOT NULL,
    begun_at    timestamptz NOT NULL,
    answer      bytea,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_repeats_begun ON repeats (begun_at);
ALTER TABLE repeats ENABLE ROW LEVEL SECURITY;
ALTER TABLE repeats FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON repeats USING (tenant_id = fn.current_tenant() OR fn.all_tenants());
"""


def upgrade() -> None:
    run_script(op.get_bind(), _TABLE)


def downgrade() -> None:
    run_script(op.get_bind(), "DROP TABLE repeats; DROP FUNCTION IF EXISTS fn.begin_repeat, fn.end_repeat;")
