"""A service's jobs, composed: what it submits, and what its consumer runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from shared.consuming import Handler, Subscriber
from shared.event import Event
from shared.jobs import inline, store
from shared.jobs.archive import Archive
from shared.jobs.batch import JobBatch, OnEnded
from shared.jobs.due import make_due
from shared.jobs.events import StepReady
from shared.jobs.flatten import flatten, gather
from shared.jobs.leased import Worker
from shared.jobs.lost import find_lost
from shared.jobs.metering import jobs_of
from shared.jobs.pruning import prunes
from shared.jobs.signatures import Job, Signature
from shared.process import Parts, keep_pruning
from shared.publishing import Options, Submitted, UnitOfWork
from shared.telemetry import Gauges

RESULT_TTL_S = 3_600


class Jobs:
    """The handlers of one service, by name, and the event that announces its steps.

        JOBS = Jobs(JobStepReady, add, multiply)
        SERVICE = Service("jobs", publishes=(JobStepReady,), subscribers=(JOBS.subscriber("jobs"),),
                          background_tasks=(JOBS.keep_due,), workers=(JOBS.work,), jobs=JOBS)

    Raises `ValueError` for two handlers of one name. Results are kept for `result_ttl_s`, jobs for
    TANDEM_JOB_HISTORY_S; `kept_s` says of which kinds those that succeeded are kept for fewer seconds. With
    an `archive`, where there is an object storage, they are kept until that has them.
    """

    def __init__(
        self,
        ready: type[StepReady],
        *handlers: Job[..., Any],
        result_ttl_s: int = RESULT_TTL_S,
        kept_s: Mapping[str, float] | None = None,
        archive: Archive | None = None,
    ) -> None:
        self.ready = ready
        self.handlers: dict[str, Job[..., Any]] = {}
        for handler in (gather, *handlers, *(archive.handlers if archive else ())):
            if handler.name in self.handlers:
                raise ValueError(f"two handlers are called {handler.name}")
            self.handlers[handler.name] = handler
        self._result_ttl_s = result_ttl_s
        self._kept_s = kept_s or {}
        self._archive = archive
        self._doubted: set[UUID] = set()
        self._on_ended: OnEnded | None = None  # from when a process of ours runs what ends jobs

    async def submit(self, uow: UnitOfWork, graph: Signature, options: Options) -> Submitted:
        """Write a job down in `uow`, whose `submit` calls this.

        Raises `BadArgumentsError`, and `ValueError` for a graph that is too large or has a handler of others.
        """
        flat = flatten(graph)
        foreign = {step.job.name for step in flat.steps if self.handlers.get(step.job.name) is not step.job}
        if foreign:
            raise ValueError(f"no handler of this service: {', '.join(sorted(foreign))}")
        job_id = uuid7() if options.firing is None else options.firing.job_id
        batch = self.batch(uow)
        if options.unique is not None:
            holder = batch.keys.get(options.unique)
            if holder is None:
                holder = await store.hold_key(uow.connection, options.unique, job_id, options.unique_s)
                uow.can_discard_event = False  # the key is taken already
                batch.keys[options.unique] = holder
            if holder != job_id:
                return Submitted(holder, (), is_new=False)
        return batch.submit(uow, job_id, flat, options, self._result_ttl_s)

    def batch(self, uow: UnitOfWork) -> JobBatch:
        """This service's part of a unit of work."""
        return uow.part(self, lambda: JobBatch(self.ready, self._on_ended, doubted=self._doubted))

    def subscriber(self, name: str) -> Subscriber:
        """What runs the inline steps."""
        return Subscriber(
            channel=self.ready.channel,
            name=name,
            handlers=(Handler(self.ready, self._run),),
            prepare=self._prepare,
            put_aside=self._give_up,
        )

    async def keep_due(self, parts: Parts) -> None:
        """Announce scheduled steps when they are due, and again what was lost, and delete what is old, as long as
        the process runs."""
        metrics = parts.telemetry.metrics
        self._on_ended = metrics.job_ended
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Gauges(parts.settings, metrics.measurements, jobs_of(parts.database)).run())
            tasks.create_task(make_due(parts.units, self.batch))
            tasks.create_task(find_lost(parts, self.batch, self.handlers))
            is_archived = self._archive is not None and parts.settings.object_store_url is not None
            history_s = None if is_archived else parts.settings.job_history_s
            for prune, seconds in prunes(history_s, self._kept_s):
                tasks.create_task(keep_pruning(parts.database, prune, seconds))

    async def work(self, parts: Parts) -> None:
        """Run leased steps, as long as the process runs."""
        self._on_ended = parts.telemetry.metrics.job_ended
        handlers = dict(self.handlers)
        if self._archive is not None and parts.settings.object_store_url is None:
            for handler in self._archive.handlers:  # their queue need not be looked at
                del handlers[handler.name]
        await Worker(parts, handlers, self.batch).run()

    async def _prepare(self, events: Sequence[Event[Any]], uow: UnitOfWork) -> None:
        await inline.take_steps(events, uow, self.batch(uow), self.handlers)

    async def _run(self, event: Event[Any], uow: UnitOfWork) -> None:
        await inline.run_step(event, uow, self.batch(uow), self.handlers)

    async def _give_up(self, event: Event[Any], error: Exception, uow: UnitOfWork) -> None:
        await inline.give_up(event, error, uow, self.batch(uow))
