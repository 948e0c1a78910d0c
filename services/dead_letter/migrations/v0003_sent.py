"""Messages exactly as they were sent: repeated headers, their order, bytes and types, and AMQP's properties."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dead_letter", sa.Column("sent", sa.JSON))


def downgrade() -> None:
    op.drop_column("dead_letter", "sent")
