"""The worker: leases steps of this service's queues, runs them, and has them written down when they end.

PostgreSQL is the queue, and a notification in the transaction that made a step ready is the wake-up: neither waits
for the broker. A slow look besides finds what nobody told of. A worker that is told to stop lets its steps end
within the grace period, and gives back those that do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog

from shared import cancellation, failpoints
from shared.backoff import jittered_s
from shared.children import Children, Limits
from shared.errors import TransientError
from shared.failpoints import FailPoints
from shared.jobs import attempt, leases
from shared.jobs.attempt import Lane, Lease, LeaseKey
from shared.jobs.bell import Bell
from shared.jobs.completions import BatchOf, Completions
from shared.jobs.heart import Heart
from shared.jobs.keeping import Keeping
from shared.jobs.limits import QueueLimits
from shared.jobs.signatures import Job
from shared.jobs.slots import Slots, WaitedTooLongError
from shared.jobs.stepping import reference
from shared.jobs.taking import Taking, taking
from shared.process import Parts
from shared.settings import Settings

_log = structlog.get_logger(__name__)

_PROGRESS_INTERVAL_S: Final = 1.0
_RECLAIM_INTERVAL_S: Final = 2.0
_AGAIN_S: Final = 1.0
_CHILD_RESULT_BYTES_MAX: Final = 16 * 2**20
"""Of what a child sends: a result, and what its step told."""
_STOPPING_S: Final = 7.0
"""Of the grace period, what is kept for steps that are stopped, and for giving them back."""


class Worker:
    """One worker; `run` until it is cancelled, which is when it drains."""

    def __init__(self, parts: Parts, handlers: Mapping[str, Job[..., Any]], batch_of: BatchOf) -> None:
        self._settings = parts.settings
        self._units = parts.units
        self._parts = parts
        self._handlers = {name: handler for name, handler in handlers.items() if handler.leased}
        self._lanes = _lanes(self._handlers.values(), parts.settings.queue_rate_per_s)
        queues = {lane.queue for lane in self._lanes}
        self._slots = {
            queue: Slots(parts.settings.worker_slots.get(queue, parts.settings.worker_slots_default))
            for queue in queues
        }
        self.slots = sum(slots.count for slots in self._slots.values())
        wanted = sum(
            self._slots[queue].count for queue in {lane.queue for lane in self._lanes if lane.for_children}
        )
        self._child_slots = Slots(min(parts.settings.worker_children_max, wanted))
        self._children: Children | None = None
        self._tasks: dict[LeaseKey, asyncio.Task[None]] = {}
        self._to_cancel: set[LeaseKey] = set()
        self._bell = Bell(self._lanes)
        self._alarms = _Alarms(self.wake)
        self._taking = asyncio.Lock()
        self._keeping = Keeping(parts.units, self._handlers, batch_of)
        self._heart = Heart(parts.settings, parts.process_name, self)
        self._fail_points = FailPoints.told(parts.settings.failpoints)
        self._completions = Completions(
            parts.units, batch_of, lambda worker: worker == self._heart.worker, self._fail_points
        )

    async def run(self) -> None:
        """Raises `ConfigurationError` for a handler that a child would not find.

        Children, and the process that forks them, begin with the first step that needs one.
        """
        if not self._lanes:
            return
        async with AsyncExitStack() as stack:
            if self._child_slots.count:
                self._children = _children(self._handlers.values(), self._child_slots.count, self._settings)
                stack.push_async_callback(self._children.close)
            vital = [
                asyncio.create_task(loop)
                for loop in (
                    self._heart.run(),
                    self._completions.run(),
                    self._every(_PROGRESS_INTERVAL_S, self._keeping.write_progress),
                    self._every(_RECLAIM_INTERVAL_S, self._keeping.reclaim),
                    self._every(self._settings.worker_beat_interval_s, self._reconcile),
                )
            ]
            leasing = asyncio.create_task(self._keep_taking())
            try:
                done, _ = await asyncio.wait([*vital, leasing], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                await cancellation.end(leasing)
                await self._drain()
                for task in vital:
                    await cancellation.end(task)

    # -- what its heart tells it

    @property
    def running(self) -> int:
        return len(self._tasks)

    def wake(self, handler: str = "", step: UUID | None = None) -> None:
        self._bell.ring(handler, step)

    def cancel(self, steps: Collection[UUID]) -> None:
        for key, task in self._tasks.items():
            if key[1] in steps and key not in self._to_cancel:
                self._to_cancel.add(key)
                task.cancel()

    def lose(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    # -- taking

    async def _keep_taking(self) -> None:
        while True:
            try:
                async with taking(self._settings, self._parts.process_name, self.wake) as session:
                    while True:
                        lanes = await self._bell.heard(self._settings.worker_poll_interval_s)
                        await self._take(session, lanes)
            except TransientError as error:
                _log.warning("worker.waiting", error=str(error))
                await asyncio.sleep(_AGAIN_S)
                self.wake()

    async def _take(self, session: Taking, lanes: Mapping[Lane, UUID | None]) -> None:
        worker = None if self._heart.draining else self._heart.worker
        for lane, only in lanes.items():
            free = min(slots.free() for slots in self._slots_of(lane))
            self._bell.looked(lane, is_empty=False)
            if free > 0 and worker is not None:
                async with self._taking:  # what is committed is held before anybody compares the two
                    taken, wait_s = await self._keeping.lease(session, worker, lane, free, only)
                    self._bell.looked(lane, is_empty=not lane.limits and len(taken) < free)
                    if wait_s is not None:
                        self._alarms.set(lane, wait_s)
                    elif taken and lane.limits:
                        self.wake()  # others may have room where these have none
                    if taken and self._fail_points is not None:
                        self._fail_points.reach(failpoints.WORKER_LEASED)
                    for lease, is_cancelled in taken:
                        self._completions.held.add(lease.key)
                        if is_cancelled:
                            await self._completions.put(attempt.cancelled(lease))
                        else:
                            self._begin(lease, lane)

    def _slots_of(self, lane: Lane) -> Sequence[Slots]:
        queue = self._slots[lane.queue]
        return (queue, self._child_slots) if lane.for_children else (queue,)

    # -- running

    def _begin(self, lease: Lease, lane: Lane) -> None:
        for slots in self._slots_of(lane):
            slots.used += 1
        task = asyncio.create_task(self._run(lease, lane), name=f"lease-{lease.step_id}")
        self._tasks[lease.key] = task
        task.add_done_callback(partial(self._end, lease, lane))

    def _end(self, lease: Lease, lane: Lane, task: asyncio.Task[None]) -> None:
        for slots in self._slots_of(lane):
            slots.used -= 1
        del self._tasks[lease.key]
        self._to_cancel.discard(lease.key)
        self._keeping.forget_progress(lease)
        if task.cancelled():
            self._completions.held.discard(lease.key)
        self._bell.ring_for_room()

    async def _run(self, lease: Lease, lane: Lane) -> None:
        on_progress = partial(self._keeping.on_progress, lease)
        try:
            async with AsyncExitStack() as held:
                for slots in self._slots_of(lane):
                    await held.enter_async_context(slots.one())
                finished = await attempt.traced(
                    self._parts, lease, self._children, self._keeping.checkpoint, on_progress
                )
        except WaitedTooLongError:
            self._completions.held.discard(lease.key)  # so that it is given back
            return
        except asyncio.CancelledError:
            if lease.key not in self._to_cancel:
                raise
            finished = attempt.cancelled(lease)
        except Exception as error:  # noqa: BLE001  whatever it is, the attempt has an end
            finished = attempt.failed(lease, error)
        await self._completions.put(finished)

    # -- all the time

    async def _every(self, seconds: float, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(jittered_s(seconds, random.random))
            try:
                await action()
            except TransientError as error:
                _log.warning("worker.waiting", error=str(error))

    async def _reconcile(self) -> None:
        worker = self._heart.worker
        if worker is not None:
            async with self._taking:
                await self._keeping.reconcile(worker, self._completions.held)

    # -- the end

    async def _drain(self) -> None:
        """Let steps end within the grace period, stop the others, and give them back."""
        if self._tasks:
            await asyncio.wait(
                list(self._tasks.values()), timeout=max(0.0, self._settings.shutdown_grace_s - _STOPPING_S)
            )
        running = list(self._tasks.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=_STOPPING_S)
        await self._completions.written(_AGAIN_S)
        worker, self._heart.worker = self._heart.worker, None
        if worker is None:
            return
        with contextlib.suppress(TransientError):  # the leases end by themselves
            async with self._units.begin() as uow:
                given = await leases.give_back(uow.connection, worker, ())
                await leases.unregister(uow.connection, worker)
            _log.info("worker.drained", given_back=len(given))


class _Alarms:
    """Wakes the worker when the rate of a lane's queue allows a step again; one for each lane."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._handles: dict[Lane, asyncio.TimerHandle] = {}

    def set(self, lane: Lane, wait_s: float) -> None:
        if lane in self._handles:
            self._handles[lane].cancel()
        self._handles[lane] = asyncio.get_running_loop().call_later(wait_s, self._wake)


def _lanes(handlers: Collection[Job[..., Any]], rates: Mapping[str, float]) -> list[Lane]:
    named: dict[tuple[str, bool], list[Job[..., Any]]] = {}
    for handler in handlers:
        named.setdefault((handler.queue, attempt.is_for_children(handler)), []).append(handler)
    return [
        Lane(
            queue,
            for_children,
            tuple(handler.name for handler in members),
            QueueLimits(
                queue,
                rates.get(queue),
                {one.name: one.concurrency for one in members if one.concurrency is not None},
            ),
        )
        for (queue, for_children), members in named.items()
    ]


def _children(handlers: Collection[Job[..., Any]], count: int, settings: Settings) -> Children:
    processed = [handler for handler in handlers if attempt.is_for_children(handler)]
    modules = dict.fromkeys([reference(handler).partition(":")[0] for handler in processed])
    limits = Limits(
        steps_max=settings.child_steps_max,
        rss_bytes_max=settings.child_rss_max_mib * 2**20,
        result_bytes_max=_CHILD_RESULT_BYTES_MAX,
    )
    return Children(count, ["shared.jobs.stepping", *modules], limits=limits)
