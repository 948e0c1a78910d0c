"""What one unit of work does to jobs: submissions and ended attempts, collected, and sent once, at its flush."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from shared.jobs import store
from shared.jobs.advance import Announced, Ended, EndedJob, UnknownStepsError, advance, ends_alone
from shared.jobs.events import StepReady
from shared.jobs.flatten import Flat, carried
from shared.jobs.leases import notify_step
from shared.jobs.submit import Submission, written
from shared.publishing import Cause, Options, Submitted, UnitOfWork

OnEnded = Callable[[str, str, float], None]


@dataclass(slots=True)
class JobBatch:
    """A part of a unit of work: see `UnitOfWork.part`."""

    ready: type[StepReady]
    on_ended: OnEnded | None = None
    """Called once a job's end is committed, with its kind, its state, and how many seconds it took."""
    taken: dict[UUID, Any] = field(default_factory=dict)
    """The steps that are to run in this unit: read and locked, or as their announcements say."""
    begun: set[UUID] = field(default_factory=set)
    """Those of them that have: a second announcement in the same batch finds them here."""
    doubted: set[UUID] = field(default_factory=set)
    """Steps that are read before they run, whatever their announcements say: the last that were not found."""
    is_alone: bool = False
    """Whether the unit is one event's: then what its handler sent can be taken back, too."""
    keys: dict[str, UUID] = field(default_factory=dict)
    """The jobs that hold the unique keys that were asked for in this unit."""
    _submissions: list[Submission] = field(default_factory=list)
    _ended: list[Ended] = field(default_factory=list)
    _wake: dict[str, UUID | None] = field(default_factory=dict)
    """The handlers of leased steps that are ready; which step, where it is only one."""
    _before_event: tuple[int, int] = (0, 0)

    def begin_event(self) -> None:
        """An event begins: what is collected from here on is its."""
        self._before_event = (len(self._submissions), len(self._ended))

    def discard_event(self) -> None:
        """Take back what was collected since `begin_event`."""
        submitted, ended = self._before_event
        del self._submissions[submitted:], self._ended[ended:]

    def submit(self, uow: UnitOfWork, job_id: UUID, flat: Flat, options: Options, result_ttl_s: int) -> Submitted:
        """Collect a job, and publish its first steps where nothing delays them."""
        origin = uow.origin()
        submission = Submission(
            job_id=job_id,
            flat=flat,
            ids=[uuid7() for _ in flat.steps],
            options=options,
            correlation=origin.correlationid or str(job_id),
            traceparent=origin.traceparent,
            result_ttl_s=result_ttl_s,
        )
        self._submissions.append(submission)
        cause = Cause(origin.event_id, origin.traceparent, submission.correlation)
        alone = len(flat.steps) == 1
        for step_id, step in submission.first_steps():
            self.announce(
                uow, Announced(job_id, step_id, 1, step.job.name, step.job.leased, cause, carried(step), alone)
            )
        return Submitted(job_id, submission.outputs, is_new=True)

    def end(self, ended: Ended) -> None:
        """Collect the outcome of an attempt."""
        self._ended.append(ended)

    def announce(self, uow: UnitOfWork, step: Announced) -> None:
        """Publish that a step is ready, or have workers woken; only edges order steps, so each has its own key.

        Its row says which: a handler may be leased by now whose step was written down before that.
        """
        if step.leased:
            self._wake[step.handler] = None if step.handler in self._wake else step.step_id
            return
        data = self.ready(
            job_id=step.job_id,
            step_id=step.step_id,
            attempt=step.attempt,
            handler=step.handler,
            args=step.args,
            alone=step.alone,
        )
        uow.publish(data, subject=str(step.job_id), key=str(step.step_id), cause=step.cause)

    def _count(self, jobs: Sequence[EndedJob]) -> None:
        if self.on_ended is not None:
            for job in jobs:
                self.on_ended(job.kind, job.state, job.duration_s)

    async def flush(self, uow: UnitOfWork) -> None:
        """Insert what was submitted, then advance by what ended; raises `FenceLostError`."""
        submissions, self._submissions = self._submissions, []
        ended, self._ended = self._ended, []
        self._before_event = (0, 0)
        if submissions:
            uow.tell_whole(*await written(uow, submissions, self._taken_wake()))
        if len(ended) == 1 and not submissions and uow.is_lone and ends_alone(ended[0]) and ended[0].unread:
            self._tell_end(uow, ended[0])
        elif ended:
            try:
                ready, jobs = await advance(uow.connection, ended)
            except UnknownStepsError as error:
                self.doubted.clear()
                self.doubted |= error.ids
                raise
            for step in ready:
                self.announce(uow, step)
            if jobs:
                uow.after_commit(partial(self._count, jobs))
        if self._wake:
            await notify_step(uow.connection, self._taken_wake())

    def _tell_end(self, uow: UnitOfWork, ended: Ended) -> None:
        """Have the step and its job end by the statement that records the event. If it does not exist, that fails,
        and when it is run again the step is read first."""
        self.doubted.clear()
        self.doubted.add(ended.step_id)

        def answer(rows: Sequence[Any]) -> None:
            self.doubted.discard(ended.step_id)
            jobs = [EndedJob(row.kind, "succeeded", row.duration_s) for row in rows if row.kind is not None]
            uow.after_commit(partial(self._count, jobs))

        row = {"step_id": ended.step_id, "attempt": ended.attempt, "result": ended.result}
        uow.tell_whole(store.END_SOLO, row, answer)

    def _taken_wake(self) -> list[str]:
        wake, self._wake = self._wake, {}
        return [store.ready(handler, step) for handler, step in wake.items()]
