"""Jobs: graphs of steps, submitted in a unit of work, that run over either broker and always end."""

from shared.jobs import board, control, reading, schedules, workers
from shared.jobs.context import Chunk, JobContext
from shared.jobs.control import JobStateError
from shared.jobs.errors import Reject, ResultTooLargeError
from shared.jobs.events import StepReady
from shared.jobs.jobs import Jobs
from shared.jobs.reading import (
    JobCancelledError,
    JobFailedError,
    Outcome,
    Result,
    ResultExpiredError,
    require_result,
)
from shared.jobs.retries import Retry
from shared.jobs.signatures import Job, Signature, chain, group, job, map_over
from shared.jobs.tables import metadata

__all__ = [
    "Chunk",
    "Job",
    "JobCancelledError",
    "JobContext",
    "JobFailedError",
    "JobStateError",
    "Jobs",
    "Outcome",
    "Reject",
    "Result",
    "ResultExpiredError",
    "ResultTooLargeError",
    "Retry",
    "Signature",
    "StepReady",
    "archive",
    "board",
    "chain",
    "control",
    "group",
    "job",
    "map_over",
    "metadata",
    "reading",
    "require_result",
    "schedules",
    "workers",
]
