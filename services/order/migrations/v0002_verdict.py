"""What the fraud service says of orders."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "order_verdict",
        sa.Column("order_id", sa.Uuid, primary_key=True),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.CheckConstraint("verdict in ('approve', 'review', 'reject')", name="order_verdict_verdict"),
    )


def downgrade() -> None:
    op.drop_table("order_verdict")
