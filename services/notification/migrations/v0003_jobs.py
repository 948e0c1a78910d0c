"""Jobs, which move what has grown old to the archive, and the objects of the archive."""

from alembic import op

from shared.migrations.job_tables import (
    JOB_TABLES_1,
    create_jobs_1,
    create_jobs_2,
    create_jobs_3,
    create_jobs_4,
    drop_jobs_3,
    drop_jobs_4,
)

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_jobs_1()
    create_jobs_2()
    create_jobs_3()
    create_jobs_4()


def downgrade() -> None:
    drop_jobs_4()
    drop_jobs_3()
    for table in JOB_TABLES_1:
        op.drop_table(table)
