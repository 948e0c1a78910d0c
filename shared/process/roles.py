"""The roles of a process, and what each runs once the broker is connected.

`api` serves the service's own HTTP, `relay` publishes its outbox, `consumer` runs its subscriptions, `worker` the
leased steps of its jobs. That is a role of its own because what runs in it may keep the event loop busy, and a
consumer would then miss its broker's heartbeats. One process may have all or one of them. What only one role needs
is imported when that role begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import structlog

from shared.consuming import Intake, Subscriber
from shared.process.parts import Parts, until_available
from shared.process.service import Service
from shared.process.upkeep import keep_pruning
from shared.settings import Role
from shared.telemetry import Gauges, queues_of

_log = structlog.get_logger(__name__)

_IDEMPOTENCY_RETENTION_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Work:
    """What the roles of one process work on; their loops run in `tasks`."""

    service: Service
    parts: Parts
    subscribers: tuple[Subscriber, ...]
    tasks: asyncio.TaskGroup


async def run_roles(
    service: Service, parts: Parts, subscribers: tuple[Subscriber, ...], connected: asyncio.Event
) -> None:
    """Connect the broker and run the roles that the settings name; sets `connected` once all of them have begun.

    Never returns by itself: cancel it to stop. Raises what a role raises.
    """
    settings, broker = parts.settings, parts.broker
    subscriptions = [Intake(subscriber, settings).subscription for subscriber in subscribers]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(parts.claims.heartbeat())
        await until_available(lambda: stack.enter_async_context(broker))
        await until_available(lambda: broker.declare(service.channels, subscriptions))
        work = Work(service, parts, subscribers, await stack.enter_async_context(asyncio.TaskGroup()))
        for role, begin in ROLES.items():
            if role in settings.roles:
                await begin(work)
        connected.set()
        _log.info("process.started", process=parts.process_name, roles=sorted(settings.roles))
        await asyncio.Event().wait()  # a process whose roles have no loop stays connected, too


async def consume(work: Work) -> None:
    """Subscribe; then run the service's background tasks, measure its queues, and keep its inbox bounded."""
    from shared.consuming import Pipeline, hear_directly, inbox

    parts, tasks = work.parts, work.tasks
    pipelines = [
        Pipeline(
            parts.settings,
            subscriber=subscriber,
            broker=parts.broker,
            claims=parts.claims,
            units=parts.units,
            telemetry=parts.telemetry,
        )
        for subscriber in work.subscribers
    ]
    # Side by side: on Kafka each has a group to join, which takes the longer half of a second.
    async with asyncio.TaskGroup() as subscribing:
        for pipeline in pipelines:
            subscribe = partial(parts.broker.subscribe, pipeline.subscription, pipeline)
            subscribing.create_task(until_available(subscribe))
    if ways := [pipeline.direct for pipeline in pipelines if pipeline.direct is not None]:
        tasks.create_task(hear_directly(parts.settings, parts.process_name, ways))
    for background_task in work.service.background_tasks:
        tasks.create_task(background_task(parts))
    if pipelines:
        queues = queues_of(parts.broker, parts.settings.broker, [pipeline.subscription for pipeline in pipelines])
        tasks.create_task(Gauges(parts.settings, parts.telemetry.metrics.measurements, queues).run())
        tasks.create_task(keep_pruning(parts.database, inbox.prune, parts.settings.inbox_retention_s))


async def relay(work: Work) -> None:
    """Run a relay for each shard of the outbox, and measure the outbox."""
    from shared.publishing import Relay, outbox_of

    parts, tasks = work.parts, work.tasks
    if not work.service.publishes:
        return
    for shard in range(parts.settings.relay_shards):
        parts.relays.append(Relay(parts.settings, parts.broker, parts.telemetry, shard, leading=parts.leading))
    for one in parts.relays:
        tasks.create_task(one.run())
    tasks.create_task(
        Gauges(parts.settings, parts.telemetry.metrics.measurements, outbox_of(parts.database)).run()
    )


async def serve(work: Work) -> None:
    """Keep the stored answers bounded. HTTP itself is served from the start, whether or not the broker answers."""
    from shared.http import idempotency

    work.tasks.create_task(keep_pruning(work.parts.database, idempotency.prune, _IDEMPOTENCY_RETENTION_S))


async def work_off(work: Work) -> None:
    """Run the leased steps of the service's jobs."""
    for worker in work.service.workers:
        work.tasks.create_task(worker(work.parts))


ROLES: Mapping[Role, Callable[[Work], Awaitable[None]]] = {
    "consumer": consume,
    "relay": relay,
    "worker": work_off,
    "api": serve,
}
"""What each role runs, in the order in which they begin."""
