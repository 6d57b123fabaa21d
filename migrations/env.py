"""Alembic's entry: runs on the connection `app.storage.migrate` hands over, in its transaction."""

from alembic import context

from app.storage.models import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
