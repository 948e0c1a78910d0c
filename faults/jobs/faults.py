"""The faults that jobs alone have to bear; what else is broken is broken under them, too.

What lives in PostgreSQL alone (workers, schedules) is broken on one broker, in turns: it does not know which.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

import psutil

from deploy.topology import BrokerName
from experiment.clock import until
from experiment.side import StalledError
from faults.clock_step import ClockStep
from faults.deaths import dies_at_each, restores
from faults.fault import Fault
from faults.jobs.side import JobSide
from faults.scene import PATIENCE_S, Scene
from shared import failpoints

_SERVICE, _CONSUMER, _WORKER = "jobs", "jobs-consumer", "jobs-worker"
_STOPPED_S = 8.0
"""Longer than a worker's steps are its own without a sign of life."""
_LONGER_THAN_KEPT_S = 8 * 86_400
_KILLED_CHILD = "select count(*) from job_attempt where error ->> 'type' = 'ChildLost'"
_POLL_S = 0.3


async def _child_killed(scene: Scene) -> None:
    """Kill what computes, again and again, until one was in the middle of a step."""
    [before] = await JobSide(scene.side).query(_KILLED_CHILD)
    scene.begin()

    async def one_was_busy() -> bool:
        for child in await scene.call(_children, scene):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
        [now] = await JobSide(scene.side).query(_KILLED_CHILD)
        return bool(now[0] > before[0])

    if not await until(one_was_busy, PATIENCE_S, _POLL_S):
        raise StalledError("no child was killed in the middle of a step")
    scene.end()


def _children(scene: Scene) -> list[psutil.Process]:
    """The processes in which steps compute: those of the worker's fork server; none where one ends just now."""
    try:
        [worker, *_] = scene.runtime.processes.pids(scene.process(_WORKER))
        servers = psutil.Process(worker).children()
        return [child for server in servers for child in server.children()]
    except (ValueError, psutil.NoSuchProcess):
        return []


async def _worker_stopped(scene: Scene) -> None:
    """A worker stands still for longer than its leases last, and another takes over."""
    await scene.call(scene.runtime.processes.start_extra, scene.process(_WORKER), "second")
    scene.begin()
    await scene.call(scene.runtime.processes.kill, scene.process(_WORKER), signal.SIGSTOP)
    await asyncio.sleep(_STOPPED_S)
    await scene.wake(scene.process(_WORKER))
    scene.end()


async def _worker_wakes(scene: Scene) -> None:
    await scene.wake(scene.process(_WORKER))
    await scene.remove_extras(_WORKER)


async def _three_schedulers(scene: Scene) -> None:
    """Two more, then the first is killed, and comes back."""
    for suffix in ("second", "third"):
        await scene.call(scene.runtime.processes.start_extra, scene.process(_CONSUMER), suffix)
    await asyncio.sleep(3)
    await scene.kill(scene.process(_CONSUMER))


async def _one_scheduler(scene: Scene) -> None:
    await scene.remove_extras(_CONSUMER)


async def _service_killed(scene: Scene) -> None:
    await scene.kill(scene.process(_SERVICE))


def _clock(name: str, title: str, step: ClockStep, broker: BrokerName) -> Fault:
    return Fault(name, title, step.act, 8, step.prepare, step.restore, brokers=(broker,))


JOB_FAULTS: tuple[Fault, ...] = (
    Fault(
        "jobs-consumer-sigkill",
        "jobs: consumer SIGKILL around a commit",
        dies_at_each(_CONSUMER, failpoints.BEFORE_EFFECT, failpoints.AFTER_EFFECT, failpoints.AFTER_COMMIT),
        load_s=10,
        restore=restores(_CONSUMER),
    ),
    Fault(
        "jobs-relay-sigkill",
        "jobs: relay SIGKILL around a publish",
        dies_at_each(_SERVICE, failpoints.BEFORE_PUBLISH, failpoints.AFTER_PUBLISH),
        load_s=8,
        restore=restores(_SERVICE),
        brokers=("rabbit",),
    ),
    Fault("jobs-service-sigkill", "jobs: service SIGKILL", _service_killed, load_s=8, brokers=("kafka",)),
    Fault(
        "worker-sigkill",
        "jobs: worker SIGKILL around a commit",
        dies_at_each(
            _WORKER, failpoints.WORKER_LEASED, failpoints.WORKER_BEFORE_COMMIT, failpoints.WORKER_AFTER_COMMIT
        ),
        load_s=10,
        restore=restores(_WORKER),
        brokers=("rabbit",),
    ),
    Fault(
        "worker-zombie",
        f"jobs: worker SIGSTOP for {_STOPPED_S:g} s",
        _worker_stopped,
        load_s=14,
        restore=_worker_wakes,
        brokers=("kafka",),
    ),
    Fault("child-sigkill", "jobs: children SIGKILL", _child_killed, load_s=8, brokers=("rabbit",)),
    Fault(
        "scheduler-sigkill",
        "jobs: scheduler SIGKILL around a commit",
        dies_at_each(_CONSUMER, failpoints.SCHEDULER_BEFORE_COMMIT, failpoints.SCHEDULER_AFTER_COMMIT),
        load_s=8,
        restore=restores(_CONSUMER),
        brokers=("kafka",),
    ),
    Fault(
        "three-schedulers",
        "jobs: three schedulers, one SIGKILL",
        _three_schedulers,
        load_s=10,
        restore=_one_scheduler,
        brokers=("rabbit",),
    ),
    _clock("scheduler-clock-back", "jobs: scheduler's clock back 1 h", ClockStep(_CONSUMER, -3_600), "rabbit"),
    _clock(
        "scheduler-clock-ahead",
        "jobs: scheduler's clock 8 days ahead",
        ClockStep(_CONSUMER, _LONGER_THAN_KEPT_S),
        "kafka",
    ),
)
