"""What administrators do, and the lists that they read."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "act",
        sa.Column("sequence", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("administrator", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("details", postgresql.JSONB, nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    )
    op.create_index("ix_act_subject_sequence", "act", ["subject", "sequence"])
    op.create_index("ix_transfer_user_id_id", "transfer", ["user_id", "id"])
    op.create_index("ix_transfer_sender_id_id", "transfer", ["sender_id", "id"])
    op.create_index("ix_transfer_receiver_id_id", "transfer", ["receiver_id", "id"])


def downgrade() -> None:
    for index in ("ix_transfer_user_id_id", "ix_transfer_sender_id_id", "ix_transfer_receiver_id_id"):
        op.drop_index(index, "transfer")
    op.drop_table("act")
