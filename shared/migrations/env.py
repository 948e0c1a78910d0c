"""Alembic runs this. It upgrades over the connection that `shared.migrate` opened, in that connection's transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
