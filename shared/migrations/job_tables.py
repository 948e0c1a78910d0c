"""The tables of `shared.jobs`, as the first migration of a service that has jobs creates them.

Frozen once released: a change is a new function here and a new version in each service that has jobs.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

JOB_TABLES_1 = ("job", "job_step", "job_edge", "job_attempt", "job_worker", "job_unique", "job_schedule")
"""What `create_jobs_1` creates, for a downgrade to drop."""


def create_jobs_1() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("form", sa.Text, nullable=False),
        sa.Column("step_count", sa.Integer, nullable=False),
        sa.Column("open_steps", sa.Integer, nullable=False),
        sa.Column("failed_steps", sa.Integer, nullable=False),
        sa.Column("lost_outputs", sa.Integer, nullable=False),
        sa.Column("error", sa.JSON),
        _time("cancel_requested_at"),
        sa.Column("correlation", sa.Text),
        sa.Column("traceparent", sa.Text),
        sa.Column("schedule_id", sa.Uuid),
        _time("due_at"),
        sa.Column("result_ttl_s", sa.Integer, nullable=False),
        _time("submitted_at", nullable=False),
        _time("finished_at"),
        _time("expires_at"),
        sa.CheckConstraint(
            "state in ('waiting', 'scheduled', 'running', 'succeeded', 'failed', 'cancelled')", name="job_state"
        ),
        sa.CheckConstraint("open_steps between 0 and step_count", name="job_open_steps"),
    )
    op.create_index("ix_job_state_id", "job", ["state", "id"])
    op.create_index("ix_job_kind_id", "job", ["kind", "id"])
    _create_step()
    op.create_table(
        "job_edge",
        sa.Column("parent", sa.Uuid, primary_key=True),
        sa.Column("child", sa.Uuid, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("on_failure", sa.Text, nullable=False),
        sa.CheckConstraint("on_failure in ('fail', 'pass', 'ignore')", name="job_edge_on_failure"),
    )
    op.create_index("ix_job_edge_child", "job_edge", ["child"])
    op.create_table(
        "job_attempt",
        sa.Column("step_id", sa.Uuid, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("worker", sa.Text),
        _time("started_at"),
        _time("ended_at"),
        sa.Column("outcome", sa.Text),
        sa.Column("error", sa.JSON),
        sa.Column("peak_rss_mib", sa.Float),
    )
    op.create_table(
        "job_worker",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("running", sa.Integer, nullable=False),
        sa.Column("rss_mib", sa.Float),
        sa.Column("draining", sa.Boolean, nullable=False),
        _time("started_at", nullable=False),
        _time("beat_at", nullable=False),
        _time("alive_until", nullable=False),
    )
    op.create_table(
        "job_unique",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("job_id", sa.Uuid, nullable=False),
        _time("expires_at"),
    )
    _create_schedule()


def create_jobs_2() -> None:
    """Jobs are listed by the queues of their leased steps."""
    leased = sa.text("leased")
    op.create_index("ix_job_step_queue", "job_step", ["queue", "job_id"], postgresql_where=leased)


def drop_jobs_2() -> None:
    op.drop_index("ix_job_step_queue")


def create_jobs_3() -> None:
    """Limits to leased steps: rates, keys, and turns between tenants."""
    op.create_table(
        "job_queue",
        sa.Column("queue", sa.Text, primary_key=True),
        _time("whole_at"),
        _time("served"),
    )
    op.create_table(
        "job_tenant",
        sa.Column("queue", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("steps", sa.Integer, nullable=False),
        _time("last_turn", nullable=False),
    )
    op.create_index(
        "ix_job_step_key",
        "job_step",
        ["concurrency_key"],
        postgresql_where=sa.text("state = 'running' and concurrency_key is not null"),
    )


def drop_jobs_3() -> None:
    op.drop_index("ix_job_step_key")
    op.drop_table("job_tenant")
    op.drop_table("job_queue")


def create_jobs_4() -> None:
    """The objects of the archive, and of results that are too large for a row."""
    op.add_column("job_step", sa.Column("result_object", sa.JSON))
    op.create_table(
        "archive_object",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        # Null, and so refused, where not all rows were deleted that the object has.
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        _time("first_at", nullable=False),
        _time("last_at", nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.create_index("ix_archive_object_archived_at", "archive_object", ["archived_at"])


def drop_jobs_4() -> None:
    op.drop_table("archive_object")
    op.drop_column("job_step", "result_object")


def create_jobs_5() -> None:
    """Whether a step of some handlers is ready is known without reading what else waits in the queue."""
    leasable = sa.text("state = 'ready' and leased")
    columns = ["queue", "handler", "concurrency_key"]
    op.create_index("ix_job_step_ready", "job_step", columns, postgresql_where=leasable)


def drop_jobs_5() -> None:
    op.drop_index("ix_job_step_ready")


def _create_schedule() -> None:
    op.create_table(
        "job_schedule",
        sa.Column("id", sa.Uuid, primary_key=True),
        # No constraint of its own: the id is the name's, and `on conflict` minds one index only.
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("cron", sa.Text),
        sa.Column("every_s", sa.Integer),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("grace_s", sa.Integer, nullable=False),
        sa.Column("made_up", sa.Integer, nullable=False),
        sa.Column("overlap", sa.Text, nullable=False),
        sa.Column("declared", sa.Boolean, nullable=False),
        _time("paused_at"),
        _time("planned_at", nullable=False),
        _time("next_due", nullable=False),
        sa.Column("held", sa.ARRAY(sa.DateTime(timezone=True)), nullable=False, server_default="{}"),
        _time("last_due"),
        sa.Column("last_job", sa.Uuid),
        sa.CheckConstraint("(cron is null) <> (every_s is null)", name="job_schedule_rule"),
        sa.CheckConstraint("overlap in ('skip', 'queue', 'allow')", name="job_schedule_overlap"),
    )
    op.create_index(
        "ix_job_schedule_open", "job", ["schedule_id"], postgresql_where=sa.text("finished_at is null")
    )


def _create_step() -> None:
    op.create_table(
        "job_step",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("handler", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("leased", sa.Boolean, nullable=False),
        sa.Column("args", sa.JSON, nullable=False),
        sa.Column("takes", sa.Text, nullable=False),
        sa.Column("output", sa.Integer),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("waiting_on", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("first_attempt", sa.Integer, nullable=False),
        sa.Column("delay_s", sa.Float, nullable=False),
        _time("due_at"),
        sa.Column("leased_by", sa.Uuid),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        _time("fair_at"),
        sa.Column("concurrency_key", sa.Text),
        sa.Column("cursor", sa.JSON),
        sa.Column("progress", sa.JSON),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.JSON),
        _time("started_at"),
        _time("finished_at"),
        sa.CheckConstraint(
            "state in ('waiting', 'scheduled', 'ready', 'running', 'succeeded', 'failed', 'cancelled', 'skipped')",
            name="job_step_state",
        ),
        sa.CheckConstraint("waiting_on >= 0", name="job_step_waiting_on"),
    )
    op.create_index("ix_job_step_job_id", "job_step", ["job_id", "number"])
    leasable, leased = sa.text("state = 'ready' and leased"), sa.text("state = 'running'")
    op.create_index(
        "ix_job_step_leasable",
        "job_step",
        ["queue", sa.text("priority desc"), "fair_at", "id"],
        postgresql_where=leasable,
    )
    op.create_index("ix_job_step_leased_by", "job_step", ["leased_by"], postgresql_where=leased)
    op.create_index("ix_job_step_due", "job_step", ["due_at"], postgresql_where=sa.text("state = 'scheduled'"))
    op.create_index(
        "ix_job_step_announced", "job_step", ["due_at"], postgresql_where=sa.text("state = 'ready' and not leased")
    )
    # A queue's rows come and go: vacuum by number, not by share, so that taking the next stays cheap.
    op.execute(
        "alter table job_step set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, "
        "autovacuum_vacuum_cost_delay = 0)"
    )


def _time(name: str, *, nullable: bool = True) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)
