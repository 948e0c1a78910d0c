"""The user's own table, the outbox, and the answers kept for idempotency keys."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.messaging_tables import create_idempotency_key_1, create_outbox_1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status in ('active', 'deactivated')", name="users_status"),
    )
    create_outbox_1()
    create_idempotency_key_1()


def downgrade() -> None:
    for table in ("users", "outbox", "idempotency_key"):
        op.drop_table(table)
