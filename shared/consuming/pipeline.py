"""The consumer pipeline: the order of the stages between the broker and a handler.

    read → claim (Redis) → attempt limit → [transaction: inbox + handlers + outbox] → mark done, settle

The unit of work is a batch, the unit that a handler sees is one event. A batch that fails is rolled back and
run again one by one, so that a bad event costs the others time and nothing else. What goes on failing is put aside
in the dead-letter place: delayed if it may pass, else failed. Nobody is acknowledged before the effect is
committed or the dead letter confirmed; Redis is told beside that. A letter that was given back gets a receipt when
its effect is recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from shared.broker import DeadLetterChannel, Delivery, Settlement
from shared.consuming.attempts import Attempts, Patience
from shared.consuming.batch import Status
from shared.consuming.claiming import Claiming
from shared.consuming.claims import Claims
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
    """One subscription's stages; an instance is the `BatchHandler` that the broker calls."""

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
            settings, subscription, units, telemetry.spans, fail_points, prepare=subscriber.prepare
        )
        letters = DeadLetterSender(settings, subscription, broker, subscriber.transient, patience.run)
        self._claiming = Claiming(settings, subscription, claims, telemetry.metrics)
        self._attempts = Attempts(settings, subscriber, subscription, transaction.run, patience)
        self._finishing = Finishing(letters, self._claiming, fail_points, units=units, record=subscriber.put_aside)
        self._suspects = Suspects(settings, self._claiming, self._attempts, self._finishing)
        self._metrics = telemetry.metrics

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
        """Process a batch; return one settlement for each delivery, in the same order.

        Whatever is raised, cancellation included, the batch's claims are given back first.
        """
        await self._intake.admit(len(deliveries))
        started = time.perf_counter()
        batch = self._intake.read(deliveries)
        try:
            await self._claiming.claim(batch)
            if batch.has_suspects():
                await self._suspects.run(batch)
            else:
                await self._attempts.run(batch)
            await self._finishing.reject(batch)
            await self._finishing.finish(list(batch.works.values()))
        except BaseException:
            await asyncio.shield(self._claiming.give_back(list(batch.works.values())))
            raise
        batch.close()
        await self._finishing.send_receipts(batch)
        outcome = batch.outcome()
        self._metrics.processed(self.subscription, Counter(outcome), time.perf_counter() - started)
        return [Settlement.RETRY if status is Status.RETRIED else Settlement.ACK for status in outcome]
