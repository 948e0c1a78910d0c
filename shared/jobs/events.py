"""The event that a step is ready to run. Each service with jobs has its own subclass, on a channel of its own.

class JobStepReady(StepReady):
    channel = "job"
    event_type = "job.step_ready"
"""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from shared.event import EventData


class StepReady(EventData):
    """Attempt `attempt` of a step can begin; what it is called with stands in its row.

    Of a first attempt that waited for nothing, `args` may say it, too, and `alone` whether its job has no other
    step: then its row need not be read before it begins.
    """

    told_directly: ClassVar[bool] = True

    job_id: UUID
    step_id: UUID
    attempt: int
    handler: str
    args: dict[str, Any] | None = None
    alone: bool = False
