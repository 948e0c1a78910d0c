"""Inline steps: short ones that run in the consumer's own transaction, a batch of them in one.

What a handler raises is the outcome of its attempt, and is recorded, not raised: else the pipeline's retries would
multiply the job's. Raised are only what no event is to blame for (`UnavailableError`), and what no retry can mend:
a step whose handler or arguments are unknown becomes a dead letter, and fails when that is confirmed.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row

from shared.errors import UnavailableError
from shared.event import Event
from shared.jobs import store
from shared.jobs.advance import Ended
from shared.jobs.batch import JobBatch
from shared.jobs.context import JobContext
from shared.jobs.errors import (
    BadArgumentsError,
    CutOffError,
    TimeLimitError,
    UnknownHandlerError,
    UnknownStepError,
)
from shared.jobs.events import StepReady
from shared.jobs.results import stored_in, value_of
from shared.jobs.retries import Retry, retry_wait_s
from shared.jobs.signatures import Job
from shared.publishing import Cause, UnitOfWork

INLINE_LIMIT_S = 10.0
"""How long an inline step may take; it must stay under TANDEM_HANDLER_TIMEOUT_S."""
_STACK_MAX = 4_000
_MESSAGE_MAX = 1_000


class AnnouncedStep(NamedTuple):
    """A step as its announcement says it, where that says all: like a row that was read, but locked by nobody."""

    id: UUID
    job_id: UUID
    attempt: int
    handler: str
    args: Mapping[str, Any]
    is_solo: bool
    first_attempt: int = 1
    state: str = "ready"
    leased: bool = False
    takes: str = "nothing"


async def run_step(
    event: Event[Any], uow: UnitOfWork, batch: JobBatch, handlers: Mapping[str, Job[..., Any]]
) -> None:
    """Run the announced attempt, unless the step is not ready for it any more, and collect its outcome.

    Raises `UnknownStepError`, `UnknownHandlerError`, `BadArgumentsError`, `CutOffError`, `UnavailableError`.
    """
    ready: StepReady = event.data
    row = batch.taken.get(ready.step_id)
    if row is None:
        raise UnknownStepError(f"there is no step {ready.step_id}")
    if row.state != "ready" or row.attempt != ready.attempt or row.leased or row.id in batch.begun:
        return
    batch.begun.add(row.id)
    handler = handlers.get(row.handler)
    if handler is None:
        raise UnknownHandlerError(f"no handler is called {row.handler!r}")
    given = inputs(row)
    if stored_in(given):
        raise BadArgumentsError(f"{handler.name} runs inline, and its input is in the object storage: lease it")
    values = handler.arguments.to_values(row.args, *given)
    if handler.arguments.takes_context:
        context = JobContext(row.job_id, row.id, row.attempt, row.due_at, uow)
        values = handler.arguments.with_context(values, context)
    try:
        if batch.is_alone and handler.arguments.takes_context:  # no other can have sent anything
            async with uow.connection.begin_nested():
                result = await _called(handler, values)
                await uow.flush()
        else:
            result = await _called(handler, values)
    except UnavailableError:
        raise
    except Exception as error:
        if uow.connection.invalidated:  # a statement was cut off: nothing can be recorded here any more
            raise CutOffError(str(error)) from error
        if not batch.is_alone and not uow.can_discard_event:
            raise
        uow.discard_event()
        batch.end(failed_attempt(row, handler.retries, error, cause_of(event)))
    else:
        batch.end(
            Ended(
                step_id=row.id,
                attempt=row.attempt,
                state="succeeded",
                cause=cause_of(event),
                result=result,
                is_solo=row.is_solo,
                unread=isinstance(row, AnnouncedStep),
            )
        )


async def _called(handler: Job[..., Any], values: Mapping[str, Any]) -> str:
    """The result as JSON text. Raises what the handler raises, and `TimeLimitError`."""
    limit_s = min(handler.soft_s or INLINE_LIMIT_S, INLINE_LIMIT_S)
    result = handler.function(**values)
    if hasattr(result, "__await__"):  # what `inspect.isawaitable` takes a while to say of a number
        try:
            async with asyncio.timeout(limit_s) as limit:
                result = await result
        except TimeoutError as error:
            if limit.expired():
                raise TimeLimitError(f"{handler.name} was not finished within {limit_s:g} s") from error
            raise
    return handler.arguments.result_to_json(result)


def inputs(row: Any) -> Sequence[Any]:
    """What a taken step gets of its parents: one value, or none. What is in the object storage is not loaded."""
    if row.takes == "nothing":
        return ()
    results = row.inputs or []
    for position, document in row.stored or ():
        results[position] = value_of(None, document)
    return (results,) if row.takes == "list" else (results[0],)


def failed_attempt(row: Row[Any] | AnnouncedStep, retries: Retry, error: Exception, cause: Cause) -> Ended:
    """The outcome of an attempt that raised: scheduled again, or failed for good."""
    wait_s = retry_wait_s(retries, error, row.attempt - row.first_attempt + 1, random.random)
    return Ended(
        step_id=row.id,
        attempt=row.attempt,
        state="failed" if wait_s is None else "scheduled",
        cause=cause,
        error=error_document(error),
        wait_s=wait_s,
        unread=isinstance(row, AnnouncedStep),
    )


def error_document(error: BaseException) -> dict[str, Any]:
    """An exception as rows and answers show it; long texts are cut."""
    stack = "".join(traceback.format_exception(error))[-_STACK_MAX:]
    return {"type": type(error).__name__, "message": str(error)[:_MESSAGE_MAX], "stack": stack}


async def take_steps(
    events: Sequence[Event[Any]], uow: UnitOfWork, batch: JobBatch, handlers: Mapping[str, Job[..., Any]]
) -> None:
    """Make ready what a batch of events announces: read and lock the steps of which the events do not say all.

    Where they do, the handler can tell nothing, its result is all that comes of it, and the fence at the end lets
    that through or leaves it out. So a look before would be for nothing, nearly always.
    """
    batch.is_alone = len(events) == 1
    batch.begun.clear()
    told: dict[UUID, AnnouncedStep] = {}
    unsaid: set[UUID] = set()
    for event in events:
        ready: StepReady = event.data
        handler = handlers.get(ready.handler)
        if (
            ready.args is None
            or ready.attempt != 1
            or handler is None
            or handler.arguments.takes_context
            or ready.step_id in batch.doubted
        ):
            unsaid.add(ready.step_id)
        else:
            told[ready.step_id] = AnnouncedStep(
                ready.step_id, ready.job_id, 1, ready.handler, ready.args, ready.alone
            )
    batch.taken = {**told, **(await store.take_steps(uow.connection, unsaid) if unsaid else {})}


async def give_up(event: Event[Any], error: Exception, uow: UnitOfWork, batch: JobBatch) -> None:
    """Fail the step whose announcement has become a dead letter, if it is still ready for that attempt."""
    row = (await store.take_steps(uow.connection, [event.data.step_id])).get(event.data.step_id)
    if row is None or row.state != "ready" or row.attempt != event.data.attempt:
        return
    batch.end(failed_attempt(row, Retry(0), error, cause_of(event)))


def cause_of(event: Event[Any]) -> Cause:
    """What follows from an event, in its trace and its conversation."""
    return Cause(event.id, event.envelope.traceparent, event.envelope.correlationid or event.id)
