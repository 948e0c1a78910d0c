"""Jobs: graphs of steps, submitted in a unit of work, that run over either broker and always end."""

from shared.jobs import control, reading, schedules
from shared.jobs.control import JobNotFoundError, JobStateError
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
from shared.jobs.signatures import Signature, chain, group, job
from shared.jobs.tables import metadata

__all__ = [
    "JobCancelledError",
    "JobFailedError",
    "JobNotFoundError",
    "JobStateError",
    "Jobs",
    "Outcome",
    "Result",
    "ResultExpiredError",
    "Signature",
    "StepReady",
    "chain",
    "control",
    "group",
    "job",
    "metadata",
    "reading",
    "require_result",
    "schedules",
]
