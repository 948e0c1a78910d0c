"""The event by which this service's steps become ready. It publishes and accepts it itself."""

from __future__ import annotations

from shared.jobs import StepReady


class JobStepReady(StepReady):
    channel = "job"
    event_type = "job.step_ready"
