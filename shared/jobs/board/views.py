"""Jobs, steps and attempts as answers show them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from shared.http import pages

JOB_ID = "0198c0de-0000-7000-8000-000000000001"

JobState = Literal["waiting", "scheduled", "running", "succeeded", "failed", "cancelled"]


class ErrorView(BaseModel):
    """What a handler raised."""

    type: str = Field(examples=["ValueError"])
    message: str


class ProgressView(BaseModel):
    """How far a step says that it is: `current` of `total`, both in its own unit."""

    current: float | None
    total: float | None
    message: str


class JobView(BaseModel):
    """A job as lists show it."""

    id: UUID = Field(examples=[JOB_ID])
    kind: str = Field(examples=["add"])
    state: JobState
    step_count: int
    open_steps: int
    failed_steps: int
    submitted_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="Until when the result is kept.")
    cancel_requested_at: datetime | None
    error: ErrorView | None


class StepState(BaseModel):
    """A step, and how it stands."""

    id: UUID
    number: int
    handler: str
    queue: str
    state: str
    attempt: int = Field(description="The one that is to run, runs, or ran last.")
    progress: ProgressView | None = Field(description="Of a leased step, as its last attempt reported it.")
    started_at: datetime | None
    finished_at: datetime | None
    error: ErrorView | None


class AttemptView(BaseModel):
    """An attempt that failed."""

    attempt: int
    ended_at: datetime | None
    error: ErrorView | None


class StepView(StepState):
    """A step in its job's tree; `parents` are the steps that it waits for."""

    parents: list[UUID]
    due_at: datetime | None
    failed_attempts: list[AttemptView]


class JobTree(JobView):
    """A job with its steps, by number; `more_after` continues them, as `after`."""

    steps: list[StepView]
    more_after: int | None


class JobPage(BaseModel):
    """Jobs, newest first; `next_cursor` continues the list, null at its end."""

    items: list[JobView]
    next_cursor: str | None = Field(examples=[pages.encode_cursor(JOB_ID)])
