"""How much a subscriber takes: at once, and per second."""

from __future__ import annotations

from aiolimiter import AsyncLimiter

from shared.broker.base import Subscription
from shared.consuming.subscriber import Subscriber
from shared.settings import Settings

OUTSIDE_EFFECTS_IN_FLIGHT_MAX = 100
"""Events in flight where a handler has effects outside the database: so many at most may repeat theirs."""


class Intake:
    """In flight are at most two batches, or a hundred events with effects outside the database; with a limit to
    the rate, a batch is at most a second's worth."""

    def __init__(self, subscriber: Subscriber, settings: Settings) -> None:
        self._limiter: AsyncLimiter | None = None
        queue = f"{subscriber.name}.{subscriber.channel}"
        in_flight_max, batch_max = 2 * settings.batch_max, settings.batch_max
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
        )

    async def admit(self, count: int) -> None:
        """Return when so many events more may be taken."""
        if self._limiter is not None:
            for _ in range(count):
                await self._limiter.acquire()
