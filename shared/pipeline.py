"""The consumer pipeline: every stage between the broker and a handler, ordered in `Pipeline.__call__`.

    decode → claim (Redis) → attempt limit → [transaction: inbox + handlers + outbox] → mark done → settle

The unit of work is a batch, the unit that a handler sees is one event. A batch that fails is rolled back and
run again one by one, so that a bad event costs the others time and nothing else. Nobody is acknowledged
before the effect is committed or the dead letter confirmed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog

from shared import failpoints, inbox
from shared.broker.base import Broker, Delivery, Settlement, Subscription
from shared.dead_letter import bounded, dead_letter_headers
from shared.dedupe import Claims, ClaimState
from shared.envelope import Envelope
from shared.errors import (
    AttemptsExhaustedError,
    PermanentError,
    TransientError,
    UnavailableError,
    UnknownEventTypeError,
)
from shared.event import Event, Handler, Subscriber
from shared.settings import Settings
from shared.telemetry import Telemetry
from shared.uow import UnitOfWork, UnitsOfWork

_log = structlog.get_logger(__name__)

_BUSY_POLL_S = 0.1
_REDIS_PAUSE_S = 1.0


class Status(StrEnum):
    """What became of a delivery; the `tandem.status` of the metrics."""

    DONE = "done"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    DEAD_LETTERED = "dead_lettered"
    RETRIED = "retried"


@dataclass(slots=True)
class _Work:
    """One distinct event of a batch, with every delivery of it."""

    envelope: Envelope
    event: Event[Any]
    handler: Handler
    deliveries: list[Delivery]
    attempt: int = 1
    runs: int = 0
    status: Status | None = None
    error: Exception | None = None
    finished: bool = False
    """The dead letter is confirmed, or the claim marked or given back."""


@dataclass(slots=True)
class _Batch:
    works: dict[tuple[str, str], _Work] = field(default_factory=dict)
    statuses: dict[int, Status] = field(default_factory=dict)  # by `id` of the delivery
    rejected: list[tuple[Delivery, PermanentError]] = field(default_factory=list)

    def open(self) -> list[_Work]:
        return [work for work in self.works.values() if work.status is None]


class Pipeline:
    """One subscription's stages; an instance is the `BatchHandler` that the broker calls."""

    def __init__(
        self,
        settings: Settings,
        *,
        subscriber: Subscriber,
        broker: Broker,
        claims: Claims,
        units: UnitsOfWork,
        telemetry: Telemetry,
    ) -> None:
        self.subscription = Subscription(
            channel=subscriber.channel,
            subscriber=subscriber.name,
            types=subscriber.types,
            batch_max=settings.batch_max,
            in_flight_max=2 * settings.batch_max,
        )
        self._settings = settings
        self._handlers = {handler.model.event_type: handler for handler in subscriber.handlers}
        self._ignores = subscriber.ignores
        self._broker = broker
        self._claims = claims
        self._units = units
        self._telemetry = telemetry
        self._redis_away_until = 0.0
        self._fail_points = failpoints.FailPoints.told(settings.failpoints)

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
        started = time.perf_counter()
        batch = self._decode(deliveries)
        try:
            await self._claim(batch)
            await self._process(batch)
            await self._reject(batch)
            await self._finish(list(batch.works.values()))
        except BaseException:
            await asyncio.shield(self._give_back(list(batch.works.values())))
            raise
        for work in batch.works.values():
            batch.statuses[id(work.deliveries[0])] = work.status or Status.RETRIED
            duplicate = Status.RETRIED if work.status is Status.RETRIED else Status.DUPLICATE
            batch.statuses.update((id(again), duplicate) for again in work.deliveries[1:])
        statuses = [batch.statuses[id(delivery)] for delivery in deliveries]
        self._telemetry.processed(self.subscription, Counter(statuses), time.perf_counter() - started)
        return [Settlement.RETRY if status is Status.RETRIED else Settlement.ACK for status in statuses]

    # -- decode

    def _decode(self, deliveries: Sequence[Delivery]) -> _Batch:
        batch = _Batch()
        for delivery in deliveries:
            try:
                envelope = Envelope.decode(delivery.body)
                known = batch.works.get((envelope.source, envelope.id))
                if known is not None:
                    known.deliveries.append(delivery)
                    continue
                handler = self._handlers.get(envelope.type)
                if handler is None and envelope.type in self._ignores:
                    batch.statuses[id(delivery)] = Status.IGNORED
                    continue
                if handler is None:
                    raise UnknownEventTypeError(f"{self.subscription.queue} knows no {envelope.type}")
                work = _Work(envelope, handler.read(envelope), handler, [delivery])
                batch.works[envelope.source, envelope.id] = work
            except PermanentError as error:
                batch.rejected.append((delivery, error))
        return batch

    # -- claim

    async def _claim(self, batch: _Batch) -> None:
        """Claim what is open; wait, bounded, for what a living process holds, so that order is kept."""
        pending = batch.open()
        # A dead holder's heartbeat runs out within its TTL; twice that, and the holder lives.
        deadline = time.monotonic() + 2 * self._settings.heartbeat_ttl_s
        while pending:
            pending = await self._claim_once(pending)
            if pending and time.monotonic() > deadline:
                _retry_with_followers(pending, batch.open())
                return
            if pending:
                await asyncio.sleep(_BUSY_POLL_S)

    async def _claim_once(self, works: list[_Work]) -> list[_Work]:
        """Returns those that are busy."""
        if time.monotonic() < self._redis_away_until:
            return []
        try:
            claims = await self._claims.claim(self.subscription.subscriber, [work.envelope for work in works])
        except UnavailableError as error:
            self._redis_lost(error)
            return []
        busy: list[_Work] = []
        for work, claim in zip(works, claims, strict=True):
            if claim.state is ClaimState.DONE:
                work.status = Status.DUPLICATE
            elif claim.state is ClaimState.BUSY:
                busy.append(work)
            else:
                work.attempt = claim.attempt
        self._telemetry.claimed(self.subscription, Counter(claim.state for claim in claims))
        return busy

    def _redis_lost(self, error: UnavailableError) -> None:
        """Go on without claims: the inbox alone still keeps every effect single."""
        if time.monotonic() - self._redis_away_until > _REDIS_PAUSE_S:
            _log.warning("pipeline.without_claims", queue=self.subscription.queue, error=str(error))
        self._redis_away_until = time.monotonic() + _REDIS_PAUSE_S

    # -- process

    async def _process(self, batch: _Batch) -> None:
        works = batch.open()
        if any(work.attempt > 1 for work in works):
            await self._process_suspects(works)
        elif len(works) == 1:
            await self._run_each(works)
        elif works:
            try:
                await self._patiently(lambda: self._run(works))
            except UnavailableError as error:
                _retry_later(works, error)
            except Exception as error:  # noqa: BLE001 - isolated below, one by one
                _log.info("pipeline.isolating", queue=self.subscription.queue, count=len(works), error=repr(error))
                for work in works:
                    work.status = work.error = None
                await self._run_each(works)

    async def _process_suspects(self, works: list[_Work]) -> None:
        """Some of these were in the hands of a process that died. Claim, run and finish them one at a time, so
        that an event that kills its consumer is counted alone."""
        await self._give_back(works)
        for index, work in enumerate(works):
            if work.status is None and await self._claim_once([work]):
                _retry_with_followers([work], works[index:])
            elif work.status is None and work.attempt > self._settings.deliveries_max:
                work.status = Status.DEAD_LETTERED
                work.error = AttemptsExhaustedError(f"taken up {work.attempt - 1} times and never finished")
            elif work.status is None:
                await self._run_each(works[index : index + 1])
                if isinstance(work.error, UnavailableError):  # then the rest need not wait for it, too
                    _retry_later(works[index:], work.error)
            await self._finish([work])

    async def _run_each(self, works: Sequence[_Work]) -> None:
        for index, work in enumerate(works):
            try:
                await self._run_alone(work)
            except UnavailableError as error:
                _retry_later(works[index:], error)
                return

    async def _run_alone(self, work: _Work) -> None:
        """Bounded retries with exponential backoff and full jitter; what still fails is dead-lettered."""
        for attempt in range(1, self._settings.handler_attempts_max + 1):
            try:
                await self._patiently(lambda: self._run([work]))
            except UnavailableError:
                raise
            except PermanentError as error:
                work.error = error
                break
            except Exception as error:  # noqa: BLE001 - unknown ones count like transient ones
                work.error = error
                if attempt < self._settings.handler_attempts_max:
                    wait_s = self._settings.retry_wait_initial_s * 2 ** (attempt - 1)
                    await asyncio.sleep(min(wait_s, self._settings.retry_wait_max_s) * random.uniform(0.5, 1))  # noqa: S311
            else:
                return
        work.status = Status.DEAD_LETTERED

    async def _patiently(self, action: Callable[[], Awaitable[None]]) -> None:
        """Run `action`, waiting up to `outage_hold_s` for a server that is away."""
        deadline = time.monotonic() + self._settings.outage_hold_s
        wait_s = self._settings.retry_wait_initial_s
        while True:
            try:
                return await action()
            except UnavailableError as error:
                if time.monotonic() + wait_s > deadline:
                    raise
                _log.warning("pipeline.waiting", queue=self.subscription.queue, error=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, self._settings.retry_wait_max_s)

    async def _run(self, works: Sequence[_Work]) -> None:
        """One transaction: inbox rows, then each fresh event's handler, then everything they told."""
        spans: list[tuple[Any, _Work]] = []
        failure: BaseException | None = None
        events = [work.envelope for work in works]
        if self._fail_points is not None:
            self._fail_points.reach(failpoints.BEFORE_EFFECT)
        limit = asyncio.timeout(self._settings.handler_timeout_s)
        try:
            with self._telemetry.process_batch(self.subscription, events) as batch_span:
                async with limit, self._units.begin() as uow:
                    fresh = await inbox.record(uow.connection, self.subscription.subscriber, events)
                    for work in works:
                        if (work.envelope.source, work.envelope.id) not in fresh:
                            work.status = Status.DUPLICATE
                            continue
                        span = self._telemetry.start_process(self.subscription, work.envelope, batch_span)
                        if span is not None:
                            spans.append((span, work))
                        with nullcontext() if span is None else self._telemetry.inside(span):
                            await self._handle(work, uow, alone=len(works) == 1)
                    impossible = [work.envelope for work in works if work.status is Status.DEAD_LETTERED]
                    if impossible:
                        await inbox.forget(uow.connection, self.subscription.subscriber, impossible)
                    if self._fail_points is not None:
                        await uow.flush()
                        self._fail_points.reach(failpoints.AFTER_EFFECT)
        except TimeoutError as error:
            failure = error
            if not limit.expired():
                raise
            raise TransientError(f"not finished within {self._settings.handler_timeout_s:g} s") from error
        except BaseException as error:
            failure = error
            raise
        finally:
            for span, work in spans:
                status = (work.status or Status.DONE).value
                if failure is not None:
                    status = Status.DEAD_LETTERED.value if isinstance(failure, PermanentError) else "rolled_back"
                self._telemetry.end_process(span, status, failure or work.error)

    async def _handle(self, work: _Work, uow: UnitOfWork, *, alone: bool) -> None:
        """A permanent failure undoes this event alone, where that can be done; else it fails the transaction."""
        work.runs += 1
        uow.begin_event(work.envelope)
        try:
            if self._fail_points is not None:
                self._fail_points.reach(failpoints.HANDLER + work.envelope.type)
            await work.handler.handle(work.event, uow)
        except PermanentError as error:
            if alone or not uow.can_discard_event:
                raise
            uow.discard_event()
            work.status, work.error = Status.DEAD_LETTERED, error
        else:
            work.status, work.error = Status.DONE, None

    # -- afterwards

    async def _reject(self, batch: _Batch) -> None:
        """Dead-letter what could not even be read."""
        letters = [(delivery, reason, 1) for delivery, reason in batch.rejected]
        for (delivery, _), sent in zip(batch.rejected, await self._dead_letter_each(letters), strict=True):
            batch.statuses[id(delivery)] = Status.DEAD_LETTERED if sent else Status.RETRIED

    async def _finish(self, works: Sequence[_Work]) -> None:
        """Dead-letter what cannot succeed, mark what is done, give back what is to be retried."""
        works = [work for work in works if work.status is not None and not work.finished]
        dead = [work for work in works if work.status is Status.DEAD_LETTERED]
        exhausted = AttemptsExhaustedError("no reason recorded")
        letters = [(work.deliveries[0], work.error or exhausted, max(work.attempt, work.runs)) for work in dead]
        for work, sent in zip(dead, await self._dead_letter_each(letters), strict=True):
            if not sent:
                work.status = Status.RETRIED
        if self._fail_points is not None and any(work.status is Status.DONE for work in works):
            self._fail_points.reach(failpoints.AFTER_COMMIT)
        await self._mark_done([w for w in works if w.status is Status.DONE or w.status is Status.DUPLICATE])
        await self._give_back([work for work in works if work.status is Status.RETRIED])
        await self._give_back([work for work in works if work.status is Status.DEAD_LETTERED], forget=True)
        for work in works:
            work.finished = True

    async def _dead_letter_each(self, letters: Sequence[tuple[Delivery, Exception, int]]) -> list[bool]:
        """Which of them the broker confirmed. Once it is away, the rest do not wait for it one by one."""
        sent: list[bool] = []
        for delivery, error, attempts in letters:
            sent.append(all(sent[-1:]) and await self._dead_letter(delivery, error, attempts))
        return sent

    async def _dead_letter(self, delivery: Delivery, error: Exception, attempts: int) -> bool:
        headers = dead_letter_headers(self.subscription, delivery, error, attempts)

        async def publish() -> None:
            await self._broker.publish_dead_letter(self.subscription, bounded(delivery), headers)

        try:
            await self._patiently(publish)
        except UnavailableError as unavailable:
            _log.warning("pipeline.dead_letter_failed", position=delivery.position, error=str(unavailable))
            return False
        _log.error(
            "pipeline.dead_lettered",
            queue=self.subscription.queue,
            position=delivery.position,
            error_type=type(error).__name__,
            error=str(error)[:500],
        )
        return True

    async def _mark_done(self, works: Sequence[_Work]) -> None:
        if works and time.monotonic() >= self._redis_away_until:
            try:
                await self._claims.done(self.subscription.subscriber, [work.envelope for work in works])
            except UnavailableError as error:
                self._redis_lost(error)

    async def _give_back(self, works: Sequence[_Work], *, forget: bool = False) -> None:
        if works and time.monotonic() >= self._redis_away_until:
            events = [work.envelope for work in works]
            try:
                await self._claims.release(self.subscription.subscriber, events, forget=forget)
            except UnavailableError as error:
                self._redis_lost(error)


def _retry_later(works: Sequence[_Work], error: UnavailableError) -> None:
    for work in works:
        work.status, work.error = Status.RETRIED, error


def _retry_with_followers(held: Sequence[_Work], works: Sequence[_Work]) -> None:
    """Retry `held`, and with them what comes after them in `works` under the same key, so that order is kept."""
    keys: set[str] = set()
    for work in works:
        if any(work is one for one in held) or (work.status is None and work.envelope.key in keys):
            work.status = Status.RETRIED
            keys.add(work.envelope.key)
