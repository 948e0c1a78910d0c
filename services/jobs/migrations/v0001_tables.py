"""Jobs, outbox, inbox, and the answers kept for idempotency keys."""

from alembic import op

from shared.migrations.job_tables import JOB_TABLES_1, create_jobs_1
from shared.migrations.messaging_tables import create_idempotency_key_1, create_inbox_1, create_outbox_1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_jobs_1()
    create_outbox_1()
    create_inbox_1()
    create_idempotency_key_1()


def downgrade() -> None:
    for table in (*JOB_TABLES_1, "outbox", "inbox", "idempotency_key"):
        op.drop_table(table)
