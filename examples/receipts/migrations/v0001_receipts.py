"""Receipts, and what every service that consumes and publishes has: inbox and outbox."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.messaging_tables import create_inbox_1, create_outbox_1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "receipt",
        sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
    )
    create_inbox_1()
    create_outbox_1()


def downgrade() -> None:
    for table in ("receipt", "inbox", "outbox"):
        op.drop_table(table)
