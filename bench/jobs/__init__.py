"""Jobs with stored results, measured: of this engine, and the same as tasks of Celery with results in Redis."""

from bench.jobs.runs import JobRuns
from bench.jobs.tables import JobTables

__all__ = ["JobRuns", "JobTables"]
