"""Limits to leased steps."""

from shared.migrations.job_tables import create_jobs_3, drop_jobs_3

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_jobs_3()


def downgrade() -> None:
    drop_jobs_3()
