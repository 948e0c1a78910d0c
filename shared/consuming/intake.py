"""The first stage: how much a subscriber takes, at once and per second, and what it reads of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from aiolimiter import AsyncLimiter

from shared.broker import Delivery, Subscription
from shared.consuming.batch import Batch, Status, Work
from shared.consuming.subscriber import Subscriber
from shared.dead_letter.headers import LETTER_ID
from shared.envelope import Envelope
from shared.errors import UnknownEventTypeError
from shared.event import Asked
from shared.settings import Settings

OUTSIDE_EFFECTS_IN_FLIGHT_MAX = 100
"""Events in flight where a handler has effects outside the database: so many at most may repeat theirs."""


TAKEN_UP_MIN = 64
"""So many events at least are taken up together, where that is more than one transaction's: enough to be claimed,
marked and settled at a small part of what that costs for one, and few enough to wait for each other."""


def transactions_at_once(settings: Settings) -> int:
    """Of one subscription. Half of the pool is left for others of the process, and for its probes."""
    return min(settings.transactions_max, max(1, settings.postgres_pool_max // 2))


def taken_up_max(settings: Settings) -> int:
    """The largest batch of a subscription with its effects in the database and no limit to its rate."""
    return max(settings.batch_max, TAKEN_UP_MIN) if transactions_at_once(settings) > 1 else settings.batch_max


class Intake:
    """Turns deliveries into a batch, at the rate and in the portions that the settings allow.

    A batch is what one transaction may hold, or more where several run at once. In flight are at most two batches,
    or a hundred events with effects outside the database; with a limit to the rate, a batch is at most a second's
    worth.
    """

    def __init__(self, subscriber: Subscriber, settings: Settings) -> None:
        self._handlers = {handler.model.event_type: handler for handler in subscriber.handlers}
        self._ignores = subscriber.ignores
        self._limiter: AsyncLimiter | None = None
        queue = f"{subscriber.name}.{subscriber.channel}"
        batch_max = settings.batch_max if subscriber.outside_effects else taken_up_max(settings)
        in_flight_max = 2 * batch_max
        if subscriber.outside_effects:
            in_flight_max = min(in_flight_max, OUTSIDE_EFFECTS_IN_FLIGHT_MAX)
        rate_per_s = settings.rate_limit_per_s.get(queue)
        if rate_per_s is not None:
            self._limiter = AsyncLimiter(rate_per_s, 1)
            batch_max = min(batch_max, int(rate_per_s))
            in_flight_max = min(in_flight_max, 2 * batch_max)
        self.subscription = Subscription(
            channel=subscriber.channel,
            subscriber=subscriber.name,
            types=subscriber.types,
            batch_max=min(batch_max, in_flight_max),
            in_flight_max=in_flight_max,
            answers=subscriber.answers,
        )

    async def admit(self, count: int) -> None:
        """Wait until so many events more may be taken; without a limit to the rate, not at all."""
        if self._limiter is not None:
            for _ in range(count):
                await self._limiter.acquire()

    def read(self, deliveries: Sequence[Delivery]) -> Batch:
        """Decode each delivery and gather those of one event; what cannot be read is in the batch's `rejected`."""
        batch = Batch(deliveries)
        works, handlers, decode = batch.works, self._handlers, Envelope.decode
        for delivery in deliveries:
            try:
                envelope = decode(delivery.body)
                identity = (envelope.source, envelope.id)
                known = works.get(identity)
                if known is not None:
                    known.deliveries.append(delivery)
                    continue
                handler = handlers.get(envelope.type)
                if handler is None and envelope.type in self._ignores:
                    batch.statuses[id(delivery)] = Status.IGNORED
                    continue
                if handler is None:
                    raise UnknownEventTypeError(f"{self.subscription.queue} knows no {envelope.type}")  # noqa: TRY301
                event = handler.read(envelope, _asked(delivery))
                works[identity] = Work(envelope, event, handler, [delivery])
            except Exception as error:  # noqa: BLE001 - a model's own code may raise anything: this event's fault
                batch.rejected.append((delivery, error))
        return batch


def _asked(delivery: Delivery) -> Asked | None:
    """Who waits for an answer. One that was put aside and is given back waits for longer than the broker says."""
    if delivery.asked is not None and LETTER_ID in delivery.headers:
        return replace(delivery.asked, begin_by_s=-inf)
    return delivery.asked
