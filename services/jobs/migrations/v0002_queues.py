"""Jobs are listed by queue."""

from shared.migrations.job_tables import create_jobs_2, drop_jobs_2

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_jobs_2()


def downgrade() -> None:
    drop_jobs_2()
