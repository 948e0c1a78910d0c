"""One attempt of a leased step, from its lease to its end: in the worker's loop, or in a child."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal
from uuid import UUID

import structlog
from sqlalchemy import Executable

from shared.children import Call, ChildLost, Children, Failed, Progress, describe
from shared.errors import PermanentError, TransientError
from shared.event import EventData
from shared.jobs import results, stepping
from shared.jobs.advance import Ended, cause_in_job
from shared.jobs.context import JobContext, ReadChunk
from shared.jobs.effects import Effect, Effects
from shared.jobs.errors import TimeLimitError
from shared.jobs.limits import QueueLimits
from shared.jobs.retries import Retry, may_pass, next_wait_s
from shared.jobs.signatures import Job
from shared.process import Parts
from shared.publishing import Cause

_log = structlog.get_logger(__name__)

SOFT_S: Final = 240.0
HARD_S: Final = 300.0
_HARD_BEHIND_SOFT_S: Final = 60.0
_GRACE_S: Final = 5.0

LeaseKey = tuple[UUID, UUID, int]
AttemptOutcome = Literal["succeeded", "failed", "cancelled", "lost"]


@dataclass(frozen=True, slots=True)
class Lane:
    """Handlers of one queue that run in the loop, or those that run in children."""

    queue: str
    for_children: bool
    handlers: tuple[str, ...]
    limits: QueueLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A step that is this worker's. `args`, `inputs` (or what is stored of them) and `cursor` are JSON values."""

    worker: UUID
    step_id: UUID
    job_id: UUID
    queue: str
    attempt: int
    tries: int
    """How many attempts that is since the job was last retried as a whole."""
    due_at: datetime
    handler: Job[..., Any]
    args: Any
    inputs: Sequence[Any]
    cursor: Any
    cause: Cause
    is_solo: bool
    """Its job has no other step."""

    @property
    def key(self) -> LeaseKey:
        """What tells it from other leases of the same step."""
        return self.worker, self.step_id, self.attempt


@dataclass(frozen=True, slots=True)
class Finished:
    """How an attempt ended, and what it told that is to be carried out with that."""

    lease: Lease
    ended: Ended
    outcome: AttemptOutcome
    effects: Sequence[Effect] = ()
    peak_rss_mib: float | None = None


Checkpoint = Callable[[Lease, Any, Sequence[Effect]], Awaitable[None]]
"""Commits a cursor, a JSON value, and effects. Raises when the step is not this worker's any more."""


def limits_s(handler: Job[..., Any]) -> tuple[float, float]:
    """A leased step's soft and hard limit."""
    soft_s = handler.soft_s or min(SOFT_S, handler.hard_s or SOFT_S)
    return soft_s, handler.hard_s or max(HARD_S, soft_s + _HARD_BEHIND_SOFT_S)


def is_for_children(handler: Job[..., Any]) -> bool:
    """Whether its steps run in a child: what is asked to, and every plain function, which would block the loop."""
    return handler.process or not inspect.iscoroutinefunction(handler.function)


@dataclass(slots=True)
class Attempt:
    """What a step in the loop has instead of a transaction."""

    lease: Lease
    commit: Checkpoint
    on_progress: Callable[[Progress], None]
    parts: Parts
    effects: Effects = field(default_factory=Effects)

    def report(self, current: float, total: float, message: str = "") -> None:
        self.on_progress(Progress(float(current), float(total), message))

    def tell(self, statement: Executable, row: Mapping[str, Any]) -> None:
        self.effects.tell(statement, row)

    def publish(self, data: EventData, *, subject: str, key: str | None = None) -> None:
        self.effects.publish(data, subject=subject, key=key)

    async def iterate(self, read: ReadChunk) -> AsyncIterator[Any]:
        cursor = self.lease.cursor
        while (chunk := await read(cursor)) is not None:
            yield chunk.items
            cursor = chunk.cursor
            await self.commit(self.lease, cursor, self.effects.take())


async def traced(
    parts: Parts,
    lease: Lease,
    children: Children | None,
    commit: Checkpoint,
    on_progress: Callable[[Progress], None],
) -> Finished:
    """`run` in a span of its own, in the trace of the job."""
    told = {
        "tandem.event.subject": str(lease.job_id),
        "tandem.job.step": str(lease.step_id),
        "tandem.job.queue": lease.queue,
    }
    with parts.telemetry.steps.attempt(lease.handler.name, lease.attempt, told, lease.cause.traceparent) as span:
        finished = await run(parts, lease, children, commit, on_progress)
        error = finished.ended.error
        span.end(finished.outcome, None if error is None else str(error["type"]))
        return finished


async def run(
    parts: Parts,
    lease: Lease,
    children: Children | None,
    commit: Checkpoint,
    on_progress: Callable[[Progress], None],
) -> Finished:
    """Run the attempt to its end; whatever the handler raises is its outcome, and what the object storage does.

    Cancelled, it stops the handler first. Raises `ChildStartError` when no child can be started.
    """
    try:
        lease = await _with_inputs(parts, lease)
        if not is_for_children(lease.handler):
            finished = await _in_loop(lease, Attempt(lease, commit, on_progress, parts))
        elif children is None:
            raise RuntimeError(f"{lease.handler.name} needs a child")
        else:
            finished = await _in_child(lease, children, on_progress, results.bytes_max(parts.settings))
        return await _stored(parts, finished)
    except (TransientError, PermanentError) as error:
        return failed(lease, error)


# -- what is in the object storage


async def _with_inputs(parts: Parts, lease: Lease) -> Lease:
    wanted = results.stored_in(lease.inputs)
    if not wanted:
        return lease
    loaded = await results.LargeResults(parts.settings, parts.circuit_breakers).load(wanted)
    return replace(lease, inputs=[results.filled(value, loaded) for value in lease.inputs])


async def _stored(parts: Parts, finished: Finished) -> Finished:
    """What a row cannot hold, stored."""
    result, lease = finished.ended.result, finished.lease
    if result is None or not results.is_large(result):
        return finished
    large = results.LargeResults(parts.settings, parts.circuit_breakers)
    stored = await large.store(lease.job_id, lease.step_id, lease.attempt, result)
    return replace(finished, ended=replace(finished.ended, result=None, stored=stored.document))


# -- in the loop


async def _in_loop(lease: Lease, attempt: Attempt) -> Finished:
    handler, (soft_s, hard_s) = lease.handler, limits_s(lease.handler)
    task = asyncio.create_task(_called(lease, attempt, soft_s), name=f"step-{lease.step_id}")
    try:
        await asyncio.wait([task], timeout=hard_s)
        if not task.done():
            await _stopped(task)
            return failed(lease, TimeLimitError(f"{handler.name} was not finished within {hard_s:g} s"))
    except asyncio.CancelledError:
        await _stopped(task)
        raise
    error = asyncio.CancelledError("the step cancelled itself") if task.cancelled() else task.exception()
    if error is None:
        return succeeded(lease, task.result(), attempt.effects.take())
    return failed(lease, error)


async def _called(lease: Lease, attempt: Attempt, soft_s: float) -> str:
    handler = lease.handler
    context = JobContext(
        lease.job_id, lease.step_id, lease.attempt, lease.due_at, port=attempt, process=attempt.parts
    )
    values = handler.arguments.with_context(handler.arguments.to_values(lease.args, *lease.inputs), context)
    try:
        async with asyncio.timeout(soft_s) as limit:
            result = await handler.function(**values)
    except TimeoutError as error:
        if limit.expired():
            raise TimeLimitError(f"{handler.name} was not finished within {soft_s:g} s") from error
        raise
    return handler.arguments.result_to_json(result, results.bytes_max(attempt.parts.settings))


async def _stopped(task: asyncio.Task[Any]) -> None:
    """Cancel it, and wait a while. One that goes on all the same can do no harm to rows: its lease is gone."""
    task.cancel()
    await asyncio.wait([task], timeout=_GRACE_S)
    if not task.done():
        _log.error("jobs.step_does_not_stop", task=task.get_name())


# -- in a child


async def _in_child(
    lease: Lease, children: Children, on_progress: Callable[[Progress], None], bytes_max: int
) -> Finished:
    handler, (soft_s, hard_s) = lease.handler, limits_s(lease.handler)
    context = JobContext(lease.job_id, lease.step_id, lease.attempt, lease.due_at)
    payload = stepping.payload(handler, context, [lease.args, *lease.inputs], bytes_max)
    call = Call(target=stepping.TARGET, payload=payload, soft_s=soft_s, hard_s=hard_s)
    outcome = await children.run(call, on_progress)
    if isinstance(outcome, ChildLost):
        error = {"type": "ChildLost", "message": str(outcome), "stack": ""}
        return _failed(lease, error, may_pass=True)
    if outcome.progress is not None:
        on_progress(outcome.progress)
    peak_rss_mib = outcome.peak_rss_bytes / 2**20
    if isinstance(outcome, Failed):  # what no handler raises: a result that is too large, a step that was stopped
        described = {"type": outcome.type, "message": outcome.message, "stack": outcome.stack}
        finished = _failed(
            lease, stepping.document(described), may_pass=not outcome.type.endswith("TooLargeError")
        )
    else:
        told = stepping.outcome_of(outcome.result)
        if isinstance(told, stepping.Returned):
            finished = succeeded(lease, told.result, told.effects)
        else:
            finished = _failed(lease, told.error, may_pass=told.may_pass)
    return replace(finished, peak_rss_mib=peak_rss_mib)


# -- ends


def succeeded(lease: Lease, result: str, effects: Sequence[Effect]) -> Finished:
    """It returned; `result` is JSON text."""
    return Finished(lease, _ended(lease, "succeeded", result=result), "succeeded", effects)


def failed(lease: Lease, error: BaseException) -> Finished:
    """It raised: tried again, or failed for good, as the handler's retries say."""
    document = stepping.document(describe(error))
    return _failed(lease, document, may_pass=may_pass(lease.handler.retries, error))


def cancelled(lease: Lease) -> Finished:
    """It was stopped, because its job was cancelled."""
    return Finished(lease, _ended(lease, "cancelled"), "cancelled")


def lost(row: Any, retries: Retry) -> Ended:
    """Its worker is gone: cancelled where that is wanted, else tried again at once, as often as it may be,
    whatever its retries are `on`."""
    ended = partial(Ended, step_id=row.id, attempt=row.attempt, cause=cause_in_job(row), worker=row.leased_by)
    if row.cancel_requested_at is not None:
        return ended(state="cancelled")
    error = {"type": "WorkerLost", "message": "the worker was lost while the step ran", "stack": ""}
    if row.attempt - row.first_attempt + 1 > retries.times:
        return ended(state="failed", error=error)
    return ended(state="scheduled", error=error, wait_s=0.0)


def _failed(lease: Lease, error: Mapping[str, Any], *, may_pass: bool) -> Finished:
    wait_s = next_wait_s(lease.handler.retries, lease.tries, random.random)
    if wait_s is None or not may_pass:
        return Finished(lease, _ended(lease, "failed", error=error), "failed")
    return Finished(lease, _ended(lease, "scheduled", error=error, wait_s=wait_s), "failed")


def _ended(lease: Lease, state: Literal["succeeded", "failed", "scheduled", "cancelled"], **more: Any) -> Ended:
    return Ended(
        step_id=lease.step_id,
        attempt=lease.attempt,
        state=state,
        cause=lease.cause,
        worker=lease.worker,
        is_solo=lease.is_solo,
        **more,
    )
