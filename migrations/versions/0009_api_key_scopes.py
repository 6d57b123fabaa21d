"""What an API key may be used for."""

from alembic import op

from app.storage.migrate import run_script

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_script(
        op.get_bind(),
        """
        ALTER TABLE api_keys
            ADD COLUMN scopes text[] NOT NULL DEFAULT '{sign-in,introspect,admin}',
            ADD CONSTRAINT ck_api_keys_scopes CHECK (scopes <@ ARRAY['sign-in', 'introspect', 'admin']);
        DROP FUNCTION IF EXISTS fn.api_key;
        """,
    )


def downgrade() -> None:
    run_script(op.get_bind(), "DROP FUNCTION IF EXISTS fn.api_key; ALTER TABLE api_keys DROP COLUMN scopes;")
