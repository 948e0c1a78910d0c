"""Who signs in, and the sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sign_in",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("user_id", sa.Uuid, unique=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.CheckConstraint("role in ('member', 'administrator')", name="sign_in_role"),
        sa.CheckConstraint("(role = 'member') = (user_id is not null)", name="sign_in_user"),
    )
    op.create_table(
        "session",
        sa.Column("token_sha256", sa.LargeBinary, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, index=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False, index=True),
    )


def downgrade() -> None:
    op.drop_table("session")
    op.drop_table("sign_in")
