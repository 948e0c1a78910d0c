"""The objects of the archive, and of large results."""

from shared.migrations.job_tables import create_jobs_4, drop_jobs_4

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_jobs_4()


def downgrade() -> None:
    drop_jobs_4()
