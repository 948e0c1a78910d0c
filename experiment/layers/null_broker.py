"""A broker that is none: it hands over what stands in memory, and its answers come at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from shared.broker import (
    Delivery,
    Message,
    PreparingHandler,
    PublishFailure,
    Settlement,
    Subscription,
)
from shared.envelope import CONTENT_TYPE


class NullBroker:
    """As much of `Broker` as a pipeline needs whose events are all good."""

    def __init__(self, messages: Sequence[Message], batch_max: int, mark: Callable[[int], None]) -> None:
        """`mark` is told of each batch how many events it had, once they are settled."""
        self._messages = messages
        self._batch_max = batch_max
        self._mark = mark

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        """Everything is confirmed."""
        del messages
        return []

    async def subscribe(self, subscription: Subscription, handler: PreparingHandler) -> None:
        """Hand over all of the subscription's messages, batch by batch, the next one prepared while one runs.

        Raises `RuntimeError` when one is not acknowledged.
        """
        wanted = [each for each in self._messages if each.channel == subscription.channel]
        batch = await handler.prepare(self._batch(wanted, 0))
        for start in range(0, len(wanted), self._batch_max):
            following = asyncio.create_task(handler.prepare(self._batch(wanted, start + self._batch_max)))
            settlements = await batch.run()
            if any(settlement is not Settlement.ACK for settlement in settlements):
                raise RuntimeError("an event was not acknowledged")
            self._mark(len(settlements))
            batch = await following
        await batch.abandon()

    def _batch(self, wanted: Sequence[Message], start: int) -> list[Delivery]:
        """From there on, as many as a batch may have; behind the last, none."""
        return [
            _delivery(message, start + place)
            for place, message in enumerate(wanted[start : start + self._batch_max])
        ]


def _delivery(message: Message, place: int) -> Delivery:
    return Delivery(
        message.body,
        {"content-type": CONTENT_TYPE},
        message.channel,
        message.key,
        redelivered=False,
        position=f"null@{place}",
        token=None,
    )
