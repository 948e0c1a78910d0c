"""Notifications and the inbox."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.messaging_tables import create_idempotency_key_1, create_inbox_1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notification",
        sa.Column("sequence", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("event_source", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("order_id", sa.Uuid),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()
        ),
        sa.UniqueConstraint("event_source", "event_id"),
    )
    op.create_index("ix_notification_user_id_sequence", "notification", ["user_id", "sequence"])
    op.create_index(
        "ix_notification_order_id_sequence",
        "notification",
        ["order_id", "sequence"],
        postgresql_where=sa.text("order_id is not null"),
    )
    create_inbox_1()
    create_idempotency_key_1()


def downgrade() -> None:
    for table in ("notification", "inbox", "idempotency_key"):
        op.drop_table(table)
