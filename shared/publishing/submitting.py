"""What a unit of work asks of jobs, which stand above it: to write a graph of steps down in its transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from shared.publishing.uow import UnitOfWork


@dataclass(frozen=True, slots=True)
class Firing:
    """What makes a job that of a schedule: its id follows from the schedule and the due time."""

    job_id: UUID
    schedule_id: UUID
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a job is submitted: see `UnitOfWork.submit`."""

    kind: str | None = None
    unique: str | None = None
    unique_s: float | None = None
    priority: int = 0
    delay_s: float = 0.0
    firing: Firing | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that is written down. `outputs` are the steps whose results are the job's, in their order.

    Where another job held the key of `unique`, it is that job, `is_new` is False and `outputs` is empty.
    """

    job_id: UUID
    outputs: tuple[UUID, ...]
    is_new: bool


class Submitter(Protocol):
    """A service's jobs."""

    async def submit(self, uow: UnitOfWork, graph: Any, options: Options) -> Submitted:
        """Write `graph` down in `uow`."""
        ...
