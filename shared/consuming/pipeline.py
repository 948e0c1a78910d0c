"""The consumer pipeline: every stage between the broker and a handler, ordered in `Pipeline.__call__`.

    decode → claim (Redis) → attempt limit → [transaction: inbox + handlers + outbox] → mark done → settle

The unit of work is a batch, the unit that a handler sees is one event. A batch that fails is rolled back and
run again one by one, so that a bad event costs the others time and nothing else. What goes on failing is put aside
in the dead-letter place: delayed if it may pass, else failed. Nobody is acknowledged before the effect is
committed or the dead letter confirmed; a letter that was given back gets a receipt when its effect is recorded.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from enum import StrEnum
from typing import Any

import structlog

from shared import failpoints
from shared.backoff import jittered_s, longest_wait_s
from shared.broker.base import Broker, Delivery, Settlement
from shared.consuming import inbox
from shared.consuming.batch import PUT_ASIDE, RECORDED, Batch, Status, Work, retry_later, retry_with_followers
from shared.consuming.claims import Claims, ClaimState
from shared.consuming.intake import Intake
from shared.consuming.key_order import run_in_key_order
from shared.consuming.subscriber import Subscriber
from shared.dead_letter.headers import LETTER_ID, Kind, redrive_number
from shared.dead_letter.sender import DeadLetterSender
from shared.envelope import Envelope
from shared.errors import (
    AttemptsExhaustedError,
    DelayError,
    PermanentError,
    TransientError,
    UnavailableError,
    UnknownEventTypeError,
)
from shared.publishing.uow import UnitOfWork, UnitsOfWork
from shared.settings import Settings
from shared.telemetry.telemetry import Telemetry

_log = structlog.get_logger(__name__)

_BUSY_POLL_S = 0.1
_REDIS_PAUSE_S = 1.0


_STATUS_OF = {Kind.FAILED: Status.DEAD_LETTERED, Kind.DELAYED: Status.DELAYED}


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
        self._intake = Intake(subscriber, settings)
        self.subscription = self._intake.subscription
        self._settings = settings
        self._subscriber = subscriber
        self._handlers = {handler.model.event_type: handler for handler in subscriber.handlers}
        self._ignores = subscriber.ignores
        self._letters = DeadLetterSender(
            settings, self.subscription, broker, subscriber.transient, self._patiently
        )
        self._claims = claims
        self._units = units
        self._telemetry = telemetry
        self._redis_away_until = 0.0
        self._fail_points = failpoints.FailPoints.told(settings.failpoints)

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
        await self._intake.admit(len(deliveries))
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
        given_back = [delivery for delivery in deliveries if LETTER_ID in delivery.headers]
        if given_back:
            await self._answer(batch, given_back)
        statuses = [batch.statuses[id(delivery)] for delivery in deliveries]
        self._telemetry.processed(self.subscription, Counter(statuses), time.perf_counter() - started)
        return [Settlement.RETRY if status is Status.RETRIED else Settlement.ACK for status in statuses]

    # -- decode

    def _decode(self, deliveries: Sequence[Delivery]) -> Batch:
        batch = Batch()
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
                    raise UnknownEventTypeError(f"{self.subscription.queue} knows no {envelope.type}")  # noqa: TRY301
                work = Work(envelope, handler.read(envelope), handler, [delivery])
                batch.works[envelope.source, envelope.id] = work
            except Exception as error:  # noqa: BLE001 - a model's own code may raise anything: this event's fault
                batch.rejected.append((delivery, error))
        return batch

    # -- claim

    async def _claim(self, batch: Batch) -> None:
        """Claim what is open; wait, bounded, for what a living process holds, so that order is kept."""
        pending = batch.open()
        # A dead holder's heartbeat runs out within its TTL; twice that, and the holder lives.
        deadline = time.monotonic() + 2 * self._settings.heartbeat_ttl_s
        while pending:
            pending = await self._claim_once(pending)
            if pending and time.monotonic() > deadline:
                retry_with_followers(pending, batch.open())
                return
            if pending:
                await asyncio.sleep(_BUSY_POLL_S)

    async def _claim_once(self, works: list[Work]) -> list[Work]:
        """Returns those that are busy."""
        if time.monotonic() < self._redis_away_until:
            self._telemetry.without_claims(self.subscription, len(works))
            return []
        try:
            claims = await self._claims.claim(self.subscription.subscriber, [work.envelope for work in works])
        except UnavailableError as error:
            self._redis_lost(error)
            self._telemetry.without_claims(self.subscription, len(works))
            return []
        busy: list[Work] = []
        outcomes: Counter[StrEnum] = Counter()
        for work, claim in zip(works, claims, strict=True):
            outcomes[claim.state] += claim.state not in work.claims_counted  # what is busy is asked for repeatedly
            work.claims_counted.add(claim.state)
            if claim.state is ClaimState.DONE:
                work.status = Status.DUPLICATE
            elif claim.state is ClaimState.BUSY:
                busy.append(work)
            else:
                work.attempt = claim.attempt
        self._telemetry.claimed(self.subscription, outcomes)
        return busy

    def _redis_lost(self, error: UnavailableError) -> None:
        """Go on without claims: the inbox alone still keeps every effect single."""
        if time.monotonic() - self._redis_away_until > _REDIS_PAUSE_S:
            _log.warning("pipeline.without_claims", queue=self.subscription.queue, error=str(error))
        self._redis_away_until = time.monotonic() + _REDIS_PAUSE_S

    # -- process

    async def _process(self, batch: Batch) -> None:
        works = batch.open()
        if any(work.attempt > 1 for work in works):
            await self._process_suspects(works)
        elif self._subscriber.outside_effects:
            await self._run_apart(works)
        elif len(works) == 1:
            await self._run_each(works)
        elif works:
            try:
                await self._patiently(lambda: self._run(works))
            except UnavailableError as error:
                retry_later(works, error)
            except Exception as error:  # noqa: BLE001 - isolated below, one by one
                _log.info("pipeline.isolating", queue=self.subscription.queue, count=len(works), error=repr(error))
                for work in works:
                    work.status = work.error = None
                await self._run_each(works)

    async def _process_suspects(self, works: list[Work]) -> None:
        """Some of these were in the hands of a process that died. Claim, run and finish them one at a time, so
        that an event that kills its consumer is counted alone."""
        await self._give_back(works)
        for index, work in enumerate(works):
            if work.status is None and await self._claim_once([work]):
                retry_with_followers([work], works[index:])
            elif work.status is None and work.attempt > self._settings.deliveries_max:
                work.status = Status.DEAD_LETTERED
                work.error = AttemptsExhaustedError(f"taken up {work.attempt - 1} times and never finished")
            elif work.status is None:
                await self._run_each(works[index : index + 1])
                if isinstance(work.error, UnavailableError):  # then the rest need not wait for it, too
                    retry_later(works[index:], work.error)
            await self._finish([work])

    async def _run_each(self, works: Sequence[Work]) -> None:
        for index, work in enumerate(works):
            try:
                await self._run_alone(work)
            except UnavailableError as error:
                retry_later(works[index:], error)
                return

    async def _run_apart(self, works: Sequence[Work]) -> None:
        """Effects outside the database: a transaction per event, `concurrency` at once, those of one key in order.
        What has not begun when a server is lost, or in good time, goes back to the broker."""
        deadline = time.monotonic() + self._settings.outage_hold_s

        async def run(chain: list[Work]) -> None:
            nonlocal deadline
            for index, work in enumerate(chain):
                if time.monotonic() > deadline:
                    retry_later(chain[index:], UnavailableError("the batch takes too long"))
                    return
                try:
                    await self._run_alone(work)
                except UnavailableError as error:
                    deadline = 0.0
                    retry_later(chain[index:], error)
                    return

        await run_in_key_order(works, lambda work: work.envelope.key, run, self._subscriber.concurrency)

    async def _run_alone(self, work: Work) -> None:
        """Retries with backoff and jitter, bounded in number and time; what still fails is put aside."""
        deadline = time.monotonic() + self._settings.handler_retry_max_s
        for attempt in range(1, self._settings.handler_attempts_max + 1):
            try:
                await self._patiently(lambda: self._run([work]))
            except UnavailableError:
                raise
            except (PermanentError, DelayError) as error:
                work.error = error
                break
            except Exception as error:  # noqa: BLE001 - unknown ones are retried like transient ones
                work.error = error
                wait_s = jittered_s(self._retry_wait_s(attempt - 1), random.random)
                if attempt == self._settings.handler_attempts_max or time.monotonic() + wait_s > deadline:
                    break
                await asyncio.sleep(wait_s)
            else:
                return
        work.status = Status.DEAD_LETTERED

    async def _patiently(self, action: Callable[[], Awaitable[None]]) -> None:
        """Run `action`, waiting up to `outage_hold_s` for a server that is away."""
        deadline = time.monotonic() + self._settings.outage_hold_s
        waits = 0
        while True:
            try:
                return await action()
            except UnavailableError as error:
                wait_s = self._retry_wait_s(waits)
                if time.monotonic() + wait_s > deadline:
                    raise
                _log.warning("pipeline.waiting", queue=self.subscription.queue, error=str(error))
            await asyncio.sleep(wait_s)
            waits += 1

    def _retry_wait_s(self, earlier_waits: int) -> float:
        return longest_wait_s(earlier_waits, self._settings.retry_wait_initial_s, self._settings.retry_wait_max_s)

    async def _run(self, works: Sequence[Work]) -> None:
        """One transaction: inbox rows, then each fresh event's handler, then everything they told."""
        spans: list[tuple[Any, Work]] = []
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
                    aside = [work.envelope for work in works if work.status in PUT_ASIDE]
                    if aside:
                        await inbox.forget(uow.connection, self.subscription.subscriber, aside)
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

    async def _handle(self, work: Work, uow: UnitOfWork, *, alone: bool) -> None:
        """What no retry will change undoes this event alone, where that can be done; else it fails the
        transaction."""
        work.runs += 1
        uow.begin_event(work.envelope)
        try:
            if self._fail_points is not None:
                self._fail_points.reach(failpoints.HANDLER + work.envelope.type)
            await work.handler.handle(work.event, uow)
        except (PermanentError, DelayError) as error:
            if alone or not uow.can_discard_event:
                raise
            uow.discard_event()
            work.error = error
            work.status = Status.DELAYED if isinstance(error, DelayError) else Status.DEAD_LETTERED
        else:
            work.status, work.error = Status.DONE, None

    # -- afterwards

    async def _reject(self, batch: Batch) -> None:
        """Dead-letter what could not even be read."""
        letters = [(delivery, reason, 1) for delivery, reason in batch.rejected]
        for (delivery, _), status in zip(batch.rejected, await self._put_aside(letters), strict=True):
            batch.statuses[id(delivery)] = status

    async def _finish(self, works: Sequence[Work]) -> None:
        """Put aside what failed, mark what is done, give back what is to be retried."""
        works = [work for work in works if work.status is not None and not work.finished]
        aside = [work for work in works if work.status in PUT_ASIDE]
        if aside:
            exhausted = AttemptsExhaustedError("no reason recorded")
            # The delivery that was given back last: its letter waits for this answer.
            newest = [max(work.deliveries, key=lambda d: redrive_number(d.headers)) for work in aside]
            letters = [
                (delivery, work.error or exhausted, max(work.attempt, work.runs))
                for delivery, work in zip(newest, aside, strict=True)
            ]
            for work, status in zip(aside, await self._put_aside(letters), strict=True):
                work.status = status
        if self._fail_points is not None and any(work.status is Status.DONE for work in works):
            self._fail_points.reach(failpoints.AFTER_COMMIT)
        await self._mark_done([work for work in works if work.status in RECORDED])
        await self._give_back([work for work in works if work.status is Status.RETRIED])
        await self._give_back([work for work in works if work.status in PUT_ASIDE], forget=True)
        for work in works:
            work.finished = True

    async def _put_aside(self, letters: Sequence[tuple[Delivery, Exception, int]]) -> list[Status]:
        """What became of each (delivery, reason, attempts)."""
        kinds = await asyncio.gather(*(self._letters.put_aside(*letter) for letter in letters))
        return [Status.RETRIED if kind is None else _STATUS_OF[kind] for kind in kinds]

    async def _answer(self, batch: Batch, given_back: Sequence[Delivery]) -> None:
        """Send a receipt for each letter whose effect is recorded, before it is settled."""
        recorded = {id(d) for work in batch.works.values() if work.status in RECORDED for d in work.deliveries}
        recorded |= {key for key, status in batch.statuses.items() if status is Status.IGNORED}
        answered = [delivery for delivery in given_back if id(delivery) in recorded]
        sent = await asyncio.gather(*(self._letters.send_receipt(delivery) for delivery in answered))
        for delivery, confirmed in zip(answered, sent, strict=True):
            if not confirmed:
                batch.statuses[id(delivery)] = Status.RETRIED

    async def _mark_done(self, works: Sequence[Work]) -> None:
        if works and time.monotonic() >= self._redis_away_until:
            try:
                await self._claims.done(self.subscription.subscriber, [work.envelope for work in works])
            except UnavailableError as error:
                self._redis_lost(error)

    async def _give_back(self, works: Sequence[Work], *, forget: bool = False) -> None:
        if works and time.monotonic() >= self._redis_away_until:
            events = [work.envelope for work in works]
            try:
                await self._claims.release(self.subscription.subscriber, events, forget=forget)
            except UnavailableError as error:
                self._redis_lost(error)
