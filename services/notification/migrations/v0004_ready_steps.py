"""An index of the steps that are ready, by their handlers."""

from shared.migrations.job_tables import create_jobs_5, drop_jobs_5

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_jobs_5()


def downgrade() -> None:
    drop_jobs_5()
