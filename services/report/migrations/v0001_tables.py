"""Orders, recipients and reports, jobs and the inbox, and the answers kept for idempotency keys."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.job_tables import JOB_TABLES_1, create_jobs_1, create_jobs_2, create_jobs_3, drop_jobs_3
from shared.migrations.messaging_tables import create_idempotency_key_1, create_inbox_1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "report_order",
        sa.Column("order_id", sa.Uuid, primary_key=True),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("placed_on", sa.Date),
        sa.CheckConstraint("state in ('placed', 'paid', 'cancelled')", name="report_order_state"),
    )
    op.create_index("ix_report_order_placed_on", "report_order", ["placed_on"])
    op.create_table(
        "recipient",
        sa.Column("user_id", sa.Uuid, primary_key=True),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "report",
        sa.Column("job_id", sa.Uuid, primary_key=True),
        sa.Column("start_date", sa.Date, nullable=False),
        sa.Column("end_date", sa.Date, nullable=False),
        sa.Column("pdf", sa.LargeBinary),
        sa.Column("sha256", sa.Text),
        sa.Column("pages", sa.Integer),
        sa.Column("made_at", sa.DateTime(timezone=True)),
        sa.Column("mailed_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "report_day",
        sa.Column("job_id", sa.Uuid, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("currency", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, primary_key=True),
        sa.Column("orders", sa.BigInteger, nullable=False),
        sa.Column("amount", sa.Numeric, nullable=False),
    )
    create_jobs_1()
    create_jobs_2()
    create_jobs_3()
    create_inbox_1()
    create_idempotency_key_1()


def downgrade() -> None:
    drop_jobs_3()
    for table in ("report_order", "recipient", "report", "report_day", *JOB_TABLES_1, "inbox", "idempotency_key"):
        op.drop_table(table)
