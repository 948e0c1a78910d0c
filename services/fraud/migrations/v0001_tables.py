"""Orders, users, evaluations and threats, jobs, outbox and inbox, and the answers kept for idempotency keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from shared.migrations.job_tables import JOB_TABLES_1, create_jobs_1, create_jobs_2, create_jobs_3, drop_jobs_3
from shared.migrations.messaging_tables import create_idempotency_key_1, create_inbox_1, create_outbox_1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_OWN = ("known_order", "known_user", "evaluation", "threat", "threat_list")


def upgrade() -> None:
    _create_orders()
    _create_threats()
    create_jobs_1()
    create_jobs_2()
    create_jobs_3()
    create_outbox_1()
    create_inbox_1()
    create_idempotency_key_1()


def downgrade() -> None:
    drop_jobs_3()
    for table in (*_OWN, *JOB_TABLES_1, "outbox", "inbox", "idempotency_key"):
        op.drop_table(table)


def _create_orders() -> None:
    op.create_table(
        "known_order",
        sa.Column("order_id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("client_ip", sa.Text),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_known_order_user_id_placed_at", "known_order", ["user_id", "placed_at"])
    op.create_index("ix_known_order_placed_at_order_id", "known_order", ["placed_at", "order_id"])
    op.create_table(
        "known_user",
        sa.Column("user_id", sa.Uuid, primary_key=True),
        sa.Column("email", sa.Text),
        sa.Column("registered_at", sa.DateTime(timezone=True)),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "evaluation",
        sa.Column("order_id", sa.Uuid, primary_key=True),
        sa.Column("sequence", sa.BigInteger, sa.Identity(), nullable=False, unique=True),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("score", sa.Integer, nullable=False),
        sa.Column("reasons", postgresql.JSONB, nullable=False),
        sa.Column("evaluated_by", sa.Text, nullable=False),
        sa.Column("evaluated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("verdict in ('approve', 'review', 'reject')", name="evaluation_verdict"),
        sa.CheckConstraint("evaluated_by in ('event', 'batch')", name="evaluation_evaluated_by"),
    )
    op.create_index("ix_evaluation_verdict_sequence", "evaluation", ["verdict", "sequence"])


def _create_threats() -> None:
    op.create_table(
        "threat",
        sa.Column("value", sa.Text, primary_key=True),
        sa.Column("network", postgresql.INET),
    )
    op.create_index(
        "ix_threat_network",
        "threat",
        ["network"],
        postgresql_using="gist",
        postgresql_ops={"network": "inet_ops"},
    )
    op.create_table(
        "threat_list",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("etag", sa.Text),
        sa.Column("last_modified", sa.Text),
        sa.Column("entries", sa.Integer, nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("number = 1", name="threat_list_number"),
    )
