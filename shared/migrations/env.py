"""Alembic runs this: it upgrades over the connection, and in the transaction, of `shared.migrate`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
