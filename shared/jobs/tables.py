"""The tables of jobs, in the database of each service that has jobs of its own.

`shared/migrations/job_tables.py` creates them. Plain tables, not partitioned: what is old is deleted in portions,
as the ids of a backfill lie in any past. JSON columns are `json`, not `jsonb`: what a handler returned comes back
as it was, text with NUL and large numbers too.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
)

metadata = MetaData()

# A graph that was submitted. Its state is waiting or scheduled, then running, then succeeded, failed or cancelled.
job = Table(
    "job",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("tenant", Text),
    Column("priority", SmallInteger, nullable=False),
    Column("form", Text, nullable=False),  # its result is the "value" of one step, or the "list" of several steps'
    Column("step_count", Integer, nullable=False),
    Column("open_steps", Integer, nullable=False),
    Column("failed_steps", Integer, nullable=False),
    Column("lost_outputs", Integer, nullable=False),  # steps whose result is the job's, and that have none
    Column("error", JSON(none_as_null=True)),  # of the first step that failed
    Column("cancel_requested_at", DateTime(timezone=True)),
    Column("correlation", Text),
    Column("traceparent", Text),
    Column("schedule_id", Uuid),
    Column("due_at", DateTime(timezone=True)),
    Column("result_ttl_s", Integer, nullable=False),
    Column("submitted_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
)

# A call of a handler. Its state is waiting (for parents), scheduled (for `due_at`), ready, running (leased ones),
# then succeeded, failed, cancelled, or skipped because a parent failed.
job_step = Table(
    "job_step",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),  # from 0; a parent's is less than its children's
    Column("handler", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("leased", Boolean, nullable=False),
    Column("args", JSON, nullable=False),
    Column("takes", Text, nullable=False),  # of its parents' results: "nothing", a "value", a "list"
    Column("output", Integer),  # its place in the job's result
    Column("state", Text, nullable=False),
    Column("waiting_on", Integer, nullable=False),  # parents that have not ended
    Column("attempt", Integer, nullable=False),  # that is to run or runs, from 1: counted before it starts
    Column("first_attempt", Integer, nullable=False),  # since the job was last retried as a whole
    Column("delay_s", Float, nullable=False),
    Column("due_at", DateTime(timezone=True)),
    Column("leased_by", Uuid),
    Column("priority", SmallInteger, nullable=False),
    Column("fair_at", DateTime(timezone=True)),
    Column("concurrency_key", Text),
    Column("cursor", JSON(none_as_null=True)),
    Column("progress", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Column("result_object", JSON(none_as_null=True)),  # of a large one in the object storage: see `results`
    Column("error", JSON(none_as_null=True)),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
)

job_edge = Table(
    "job_edge",
    metadata,
    Column("parent", Uuid, primary_key=True),
    Column("child", Uuid, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("on_failure", Text, nullable=False),  # "fail", "pass" or "ignore"
)

# Attempts that failed, and all of leased steps: an inline step that succeeds at once has no row.
job_attempt = Table(
    "job_attempt",
    metadata,
    Column("step_id", Uuid, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("worker", Text),
    Column("started_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    Column("outcome", Text),
    Column("error", JSON(none_as_null=True)),
    Column("peak_rss_mib", Float),
)

# What is submitted when. Code declares it; people pause it; `next_due` is what it waits for, as it was planned at
# `planned_at`, and `held` the due times that wait for an earlier one's job to end.
job_schedule = Table(
    "job_schedule",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("cron", Text),
    Column("every_s", Integer),
    Column("zone", Text, nullable=False),
    Column("grace_s", Integer, nullable=False),
    Column("made_up", Integer, nullable=False),
    Column("overlap", Text, nullable=False),
    Column("declared", Boolean, nullable=False),
    Column("paused_at", DateTime(timezone=True)),
    Column("planned_at", DateTime(timezone=True), nullable=False),
    Column("next_due", DateTime(timezone=True), nullable=False),
    Column("held", ARRAY(DateTime(timezone=True)), nullable=False, server_default="{}"),
    Column("last_due", DateTime(timezone=True)),
    Column("last_job", Uuid),
)

# A process that runs leased steps, which are its own as long as this row lives.
job_worker = Table(
    "job_worker",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("process", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("rss_mib", Float),
    Column("draining", Boolean, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("beat_at", DateTime(timezone=True), nullable=False),
    Column("alive_until", DateTime(timezone=True), nullable=False),
)

# Of a queue of leased steps: when its rate owes nothing any more, and the turn that was served last. See `limits`.
job_queue = Table(
    "job_queue",
    metadata,
    Column("queue", Text, primary_key=True),
    Column("whole_at", DateTime(timezone=True)),
    Column("served", DateTime(timezone=True)),
)

# Of a tenant in a queue: how many steps it submitted last, and the turn of the last one.
job_tenant = Table(
    "job_tenant",
    metadata,
    Column("queue", Text, primary_key=True),
    Column("tenant", Text, primary_key=True),
    Column("steps", Integer, nullable=False),
    Column("last_turn", DateTime(timezone=True), nullable=False),
)

# An object of the archive, and what it has: see `archive`. Its rows are in no table any more.
archive_object = Table(
    "archive_object",
    metadata,
    Column("key", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("first_at", DateTime(timezone=True), nullable=False),
    Column("last_at", DateTime(timezone=True), nullable=False),
    Column("archived_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

job_unique = Table(
    "job_unique",
    metadata,
    Column("key", Text, primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("expires_at", DateTime(timezone=True)),
)
