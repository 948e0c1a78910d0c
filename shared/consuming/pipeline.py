"""The consumer pipeline: the order of the stages between the broker and a handler.

    read → claim (Redis) → attempt limit → [transaction: inbox + handlers + outbox] → mark done, settle

The unit of work is a batch, of one transaction or of several at once; the unit that a handler sees is one event. A
transaction that fails is rolled back and its events run one by one, so that a bad event costs the others time
and nothing else. What goes on failing is put aside in the dead-letter place: delayed if it may pass, else failed.
Nobody is acknowledged before the effect is committed or the dead letter confirmed; Redis is told beside that. A
letter that was given back gets a receipt when its effect is recorded.

While one batch is in its transaction the next may be read and claimed (`prepare`), which has no effect; its
attempts begin when the one before has ended. Where none is, an event that comes alone, and whose handler needs a
transaction, is claimed while that begins; its handler waits for both, and unless the event is new that is rolled
back. An event alone whose handler needs none is one statement, its row in the inbox included.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.broker import DeadLetterChannel, Delivery, Settlement
from shared.consuming.attempts import Attempts, Patience
from shared.consuming.batch import Batch, Status
from shared.consuming.claiming import Claiming
from shared.consuming.claims import Claims
from shared.consuming.direct import DirectWay, hears_directly
from shared.consuming.finishing import Finishing
from shared.consuming.intake import Intake
from shared.consuming.subscriber import Subscriber
from shared.consuming.suspects import Suspects
from shared.consuming.transaction import Transaction
from shared.dead_letter.sender import DeadLetterSender
from shared.failpoints import FailPoints
from shared.publishing import UnitsOfWork
from shared.settings import Settings
from shared.telemetry import Telemetry


class Pipeline:
    """One subscription's stages; an instance is the `PreparingHandler` that the broker calls."""

    def __init__(
        self,
        settings: Settings,
        *,
        subscriber: Subscriber,
        broker: DeadLetterChannel,
        claims: Claims,
        units: UnitsOfWork,
        telemetry: Telemetry,
    ) -> None:
        self._intake = Intake(subscriber, settings)
        self.subscription = subscription = self._intake.subscription
        fail_points = FailPoints.told(settings.failpoints, subscription.channel)
        patience = Patience(settings, subscription)
        transaction = Transaction(
            settings,
            subscription,
            units,
            telemetry.spans,
            fail_points,
            prepare=subscriber.prepare,
            outside_effects=subscriber.outside_effects,
        )
        letters = DeadLetterSender(settings, subscription, broker, subscriber.transient, patience.run)
        self._transaction = transaction
        self._claiming = Claiming(settings, subscription, claims, telemetry.metrics)
        self._attempts = Attempts(settings, subscriber, subscription, transaction.run, patience)
        self._finishing = Finishing(letters, self._claiming, fail_points, units=units, record=subscriber.put_aside)
        self._suspects = Suspects(settings, self._claiming, self._attempts, self._finishing)
        self._metrics = telemetry.metrics
        self.direct: DirectWay | None = None
        """Where it is told of events that are tried beside what the broker delivers, if it is told of any."""
        if hears_directly(subscriber, settings):
            self.direct = DirectWay(self._intake, self._claiming, transaction, self._finishing)
        self._suspecting = False
        """What runs may kill this process."""

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
        """Process a batch; return one settlement for each delivery, in the same order.

        Whatever is raised, cancellation included, the batch's claims are given back first.
        """
        return await (await self._take_up(deliveries, idle=True)).run()

    async def prepare(self, deliveries: Sequence[Delivery]) -> TakenUp:
        """Read and claim a batch. Behind one with suspects it is claimed when it runs: if that one kills the
        process, it is not to be counted against what waited."""
        return await self._take_up(deliveries, idle=False)

    async def _take_up(self, deliveries: Sequence[Delivery], *, idle: bool) -> TakenUp:
        await self._intake.admit(len(deliveries))
        started = time.perf_counter()
        taken = TakenUp(self, self._intake.read(deliveries))
        if self.direct is None:
            await self._claim_now(taken, idle=idle)
        else:
            self.direct.enter()
            try:
                taken.spent_s = await self.direct.make_way(taken.batch)
                await self._claim_now(taken, idle=idle)
            except BaseException:
                self.direct.leave()
                raise
        taken.spent_s += time.perf_counter() - started
        return taken

    async def _claim_now(self, taken: TakenUp, *, idle: bool) -> None:
        if not self._suspecting:
            if idle:
                self._begin(taken.batch)
            await self.claim(taken)

    def _begin(self, batch: Batch) -> None:
        """Begin the transaction of an event that comes alone beside its claim. Not if it comes again: then another
        process may be in the midst of it, and keep this one waiting."""
        lone = batch.lone()
        if lone is not None and lone.seems_new and (self.direct is None or self.direct.is_alone):
            self._transaction.begin(lone)

    async def claim(self, taken: TakenUp) -> None:
        """Claim what is open of it. Suspects are claimed one by one, when it is each one's turn."""
        try:
            await self._claiming.claim(taken.batch)
        except BaseException:
            await self.give_back(taken)
            raise
        taken.claimed = True
        if taken.batch.has_suspects():
            await self._claiming.give_back(taken.batch.open())

    async def run(self, taken: TakenUp) -> Sequence[Settlement]:
        """Give it its effects; one settlement for each delivery. The batch before it has ended."""
        started = time.perf_counter()
        batch = taken.batch
        if not taken.claimed:
            await self.claim(taken)
        self._suspecting = batch.has_suspects()
        try:
            if self._suspecting:
                await self._suspects.run(batch)
            else:
                await self._attempts.run(batch)
            await self._finishing.reject(batch)
            await self._finishing.finish(list(batch.works.values()))
        except BaseException:
            await self.give_back(taken)
            raise
        finally:
            self._suspecting = False
            await batch.roll_back()
        batch.close()
        await self._finishing.send_receipts(batch)
        outcome = batch.outcome()
        spent_s = taken.spent_s + time.perf_counter() - started
        done = outcome.count(Status.DONE)
        # Nearly always all of them.
        counts: Mapping[StrEnum, int] = {Status.DONE: done} if done == len(outcome) else Counter(outcome)
        self._metrics.processed(self.subscription, counts, spent_s)
        if Status.RETRIED not in counts:
            return [Settlement.ACK] * len(outcome)
        return [Settlement.RETRY if status is Status.RETRIED else Settlement.ACK for status in outcome]

    async def give_back(self, taken: TakenUp) -> None:
        """Release its claims, as far as they are ours, also while this task is being cancelled."""
        await asyncio.shield(self._give_back(taken.batch))

    async def _give_back(self, batch: Batch) -> None:
        await batch.roll_back()
        await self._claiming.give_back(list(batch.works.values()))


@dataclass(slots=True)
class TakenUp:
    """A batch that is read and, nearly always, claimed: what `Pipeline.prepare` leaves."""

    pipeline: Pipeline
    batch: Batch
    claimed: bool = False
    spent_s: float = 0.0

    async def run(self) -> Sequence[Settlement]:
        """As `Pipeline.run`."""
        try:
            return await self.pipeline.run(self)
        finally:
            self._leave()

    async def abandon(self) -> None:
        """Give its claims back without counting this delivery."""
        try:
            await self.pipeline.give_back(self)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self.pipeline.direct is not None:
            self.pipeline.direct.leave()
