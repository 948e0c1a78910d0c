"""A service's real process that stamps what passes: `python -m experiment.stamping.process order`.

Nothing of it is replaced: three calls at its seams are wrapped (publish, the handler of a batch, a unit of work),
and digests are computed after the time was read.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

from experiment.stamping.planted import Plants
from experiment.stamping.stamp_file import DIRECTORY, NO_EVENT, Kind, StampFile, body_digest, event_digest
from shared.broker import (
    BatchHandler,
    Delivery,
    Message,
    Prepared,
    PreparingHandler,
    PublishFailure,
    Settlement,
    Subscription,
)
from shared.envelope import Envelope
from shared.process import Parts, build_parts, run
from shared.publishing import UnitOfWork, UnitsOfWork
from shared.settings import Settings

_CYCLE_MAX_NS = 1_000_000_000
"""A batch that came after a longer silence was waited for."""


class StampedUnits(UnitsOfWork):
    """Units of work that stamp the events whose effects they committed, as soon as COMMIT has returned."""

    def __init__(self, parts: Parts, service: str, stamps: StampFile, plants: Plants) -> None:
        super().__init__(parts.database, service, parts.telemetry.spans, parts.leading)
        self._stamps = stamps
        self._plants = plants
        self._serves = "api" in parts.settings.roles

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        begun: list[Envelope] = []
        if self._serves and (delay_s := self._plants.now().delay_s):
            began_ns = time.monotonic_ns()
            await asyncio.sleep(delay_s)
            self._stamps.write(Kind.PLANTED, time.monotonic_ns() - began_ns, [(NO_EVENT, None)])
        async with super().begin() as uow:
            _watch(uow, begun)
            yield uow
        if begun:
            at_ns = time.monotonic_ns()
            events = [(event_digest(event.source, event.id), None) for event in begun]
            self._stamps.write(Kind.DURABLE, at_ns, events)


def _watch(uow: UnitOfWork, begun: list[Envelope]) -> None:
    """Keep in `begun` the events that take effect in a unit of work."""
    begin, discard = uow.begin_event, uow.discard_event

    def begin_event(event: Envelope) -> None:
        begin(event)
        begun.append(event)

    def discard_event() -> None:
        discard()
        begun.pop()

    _put(uow, "begin_event", begin_event)
    _put(uow, "discard_event", discard_event)


def stamp_broker(broker: Any, stamps: StampFile, plants: Plants) -> None:
    """Wrap what an adapter publishes and hands over. What is planted lies between the stamps of both ends."""
    publish, subscribe = broker.publish, broker.subscribe

    async def stamped_publish(messages: Sequence[Message]) -> list[PublishFailure]:
        sent_ns = time.monotonic_ns()
        failures: list[PublishFailure] = await publish(plants.tampered(messages))
        confirmed_ns = time.monotonic_ns()
        failed = {id(failure.message) for failure in failures}
        events = [*_events(message.body for message in messages if id(message) not in failed)]
        stamps.write(Kind.SENT, sent_ns, events)
        stamps.write(Kind.CONFIRMED, confirmed_ns, events)
        return failures

    async def stamped_subscribe(subscription: Subscription, handler: BatchHandler) -> None:
        kind = _StampedPreparing if isinstance(handler, PreparingHandler) else _Stamped
        await subscribe(subscription, kind(handler, stamps, plants))

    _put(broker, "publish", stamped_publish)
    _put(broker, "subscribe", stamped_subscribe)


class _Stamped:
    """The handler of a batch, with what it was given stamped when it has ended."""

    def __init__(self, handler: Any, stamps: StampFile, plants: Plants) -> None:
        self._handler = handler
        self._stamps = stamps
        self._plants = plants
        self._ended_ns = time.monotonic_ns()

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
        return await self._run(self._handler(deliveries), deliveries, time.monotonic_ns())

    async def _run(
        self, work: Awaitable[Sequence[Settlement]], deliveries: Sequence[Delivery], received_ns: int
    ) -> Sequence[Settlement]:
        try:
            return await work
        finally:
            self._stamps.write(Kind.RECEIVED, received_ns, _events(each.body for each in deliveries))
            if slowdown := self._plants.now().slowdown:
                busy_ns = min(time.monotonic_ns() - self._ended_ns, _CYCLE_MAX_NS)
                # The whole process stands still, as if all that it does took longer.
                time.sleep(slowdown * busy_ns / 1e9)  # noqa: ASYNC251
            self._ended_ns = time.monotonic_ns()


class _StampedPreparing(_Stamped):
    """One that is given the next batch meanwhile. What is abandoned comes again, and is stamped then."""

    async def prepare(self, deliveries: Sequence[Delivery]) -> Prepared:
        received_ns = time.monotonic_ns()
        prepared = await self._handler.prepare(deliveries)
        return _StampedBatch(partial(self._run, deliveries=deliveries, received_ns=received_ns), prepared)


@dataclass(frozen=True, slots=True)
class _StampedBatch:
    """What it has prepared."""

    stamped: Callable[[Awaitable[Sequence[Settlement]]], Awaitable[Sequence[Settlement]]]
    prepared: Prepared

    async def run(self) -> Sequence[Settlement]:
        return await self.stamped(self.prepared.run())

    async def abandon(self) -> None:
        await self.prepared.abandon()


def _events(bodies: Iterable[bytes]) -> Iterable[tuple[bytes, bytes]]:
    for body in bodies:
        try:
            document = orjson.loads(body)
            yield event_digest(document["source"], document["id"]), body_digest(body)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue  # no event of ours: the pipeline says so, too


def _put(owner: object, name: str, wrapped: object) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} to stamp"
    setattr(owner, name, wrapped)


def build(service: str, settings: Settings) -> Parts:
    """The parts of a process of `service`, stamped."""
    return stamped(build_parts(service, settings), service)


def stamped(parts: Parts, service: str) -> Parts:
    """The same parts, which write stamps into the directory that the environment names."""
    directory = Path(os.environ[DIRECTORY])
    stamps, plants = StampFile(directory / f"{parts.process_name}-{os.getpid()}.stamps"), Plants(directory)
    stamp_broker(parts.broker, stamps, plants)
    return replace(parts, units=StampedUnits(parts, service, stamps, plants))


def main(service: str) -> int:
    """Run it until it is told to stop."""
    return run(import_module(f"services.{service}.app").SERVICE, build)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
