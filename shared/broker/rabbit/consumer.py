"""Consumes one RabbitMQ queue: gathers what has arrived into batches, hands them over and settles them.

While a full batch is being handled the next one is taken up, once it is here; behind a RETRY it is abandoned.

A RETRY is not sent back to the queue: the message stays ours, unsettled, and is handed over again before
everything behind it. A `nack(requeue)` would let the messages of its key that this consumer already holds
overtake it, and on RabbitMQ before 4.3 every one of them would count towards the delivery limit.

Nor is anything sent back by a consumer that leaves, where order matters. A stand-by is active as soon as the
server has read `basic.cancel`, while the one before still holds what comes first; and what is sent back by one who
does not cancel comes to itself again. When its channel is closed, what it held is back in its place before the
next is active.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aio_pika.abc import AbstractChannel, AbstractQueue

from shared.broker.asking import TIMEOUT_MS
from shared.broker.base import BatchHandler, Delivery, Settlement, Subscription
from shared.broker.batches import Ahead, BatchInHand, takes_ahead
from shared.broker.rabbit import arriving
from shared.broker.rabbit.acknowledging import Acknowledging
from shared.broker.rabbit.arriving import Arrived
from shared.broker.rabbit.connection import say_goodbye
from shared.broker.rabbit.errors import LOST
from shared.broker.rabbit.replies import asked
from shared.broker.rabbit.sent import sent_as, text_headers
from shared.broker.rabbit.window import Held, Window

_log = structlog.get_logger(__name__)

_GATHER_WAIT_S = 0.003
_BUSY_BATCH = 32
_RETRY_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages in their handler's hands."""

    held: Sequence[Held]
    work: BatchInHand


class RabbitConsumer:
    """One subscription's deliveries. The channel is its own, so that prefetch is its `in_flight_max`.

    aio-pika opens the channel again, with prefetch and consumer, when the connection comes back; deliveries
    of a closed channel are dropped here, because the broker has already put them back in the queue.
    """

    def __init__(
        self,
        subscription: Subscription,
        handler: BatchHandler,
        queue: str,
        cut_off: Callable[[], None],
        *,
        ordered: bool,
    ) -> None:
        """`queue` is where to consume; `cut_off` is called when the server ends that, as when it is deleted.
        A dead-letter queue has as many active consumers as there are replicas, and so is not `ordered`."""
        self._subscription = subscription
        self._ordered = ordered
        self.queue = queue
        self._handler = handler
        self._batch_max = min(subscription.batch_max, subscription.in_flight_max)
        self._window = Window(subscription.in_flight_bytes_max, ordered=ordered)
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        """As many may be taken as are a batch, when somebody waits for that."""
        self._ahead: Ahead[Batch] = Ahead()
        self._stopping = asyncio.Event()
        self._channel: AbstractChannel | None = None
        self._source: AbstractQueue | None = None
        self._tag = arriving.new_tag()
        self._tell_cut_off = cut_off
        self._cut_off = False
        self._task: asyncio.Task[None] | None = None
        self._acknowledging = Acknowledging(queue, subscription.in_flight_max)
        self._settled = 0

    async def start(self, connection: Any) -> None:
        """Begin to consume; the queue exists. Raises one of `LOST`."""
        self._channel = await connection.channel(publisher_confirms=False)
        self._task = asyncio.create_task(self._work(), name=f"work-{self.queue}")
        await self._consume(self._channel)

    async def _consume(self, channel: AbstractChannel) -> None:
        await channel.set_qos(prefetch_count=self._subscription.in_flight_max)
        self._source = await channel.declare_queue(self.queue, passive=True)
        await arriving.consume(self._source, self._tag, self._arrive, self._tell_cut_off)

    async def look(self, connection: Any, ready: int, consumers: int) -> int | None:
        """How far it got, if something waits for it; None if nothing does, or another replica is at work. `ready`
        and `consumers` are what the server counts in its queue.

        Cut off, as aio-pika leaves a consumer whose channel the server closed while it was being restored, it
        consumes anew: at the second look, since aio-pika may be about to. Raises one of `LOST`.
        """
        cut_off = not consumers or self._channel is None or self._channel.is_closed
        if cut_off and self._cut_off:
            _log.warning("rabbit.consumes_anew", queue=self.queue)
            gone, self._channel = self._channel, await connection.channel(publisher_confirms=False)
            if gone is not None:
                await say_goodbye(gone.close())
            await self._consume(self._channel)
            cut_off = False
        self._cut_off = cut_off
        return self._settled if self._window.unsettled() or (ready and consumers <= 1) else None

    async def stop(self, grace_s: float) -> None:
        """Begin nothing more, let the running batch settle within `grace_s`, let go of what waits."""
        self._stopping.set()
        self._arrived.set()
        if self._source is not None and not self._ordered:
            await say_goodbye(self._source.cancel(self._tag))
        if self._task is not None:
            await asyncio.wait([self._task], timeout=grace_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await say_goodbye(self._acknowledging.send_now())
        if not self._ordered:
            await self._give_back()
        if self._channel is not None:
            await say_goodbye(self._channel.close())
        self._window.clear()
        arriving.forget(self._tag)

    @property
    def settlement_failures(self) -> int:
        """How many messages come again although they were settled, since the server could not be told."""
        return self._acknowledging.failures

    async def _give_back(self) -> None:
        """Return what is unsettled with a nack: closing the channel alone would count as a failed delivery."""
        unsettled = self._window.unsettled()
        if unsettled:
            newest = max(unsettled, key=lambda held: held.tag)
            await say_goodbye(newest.channel.basic_nack(newest.tag, multiple=True, requeue=True))

    def _arrive(self, raw: Arrived) -> None:
        self._window.arrive(Held.of(raw))
        if self._window.waiting:
            self._arrived.set()
            if self._window.waiting >= self._batch_max:
                self._full.set()

    async def _work(self) -> None:
        last_count = 0
        try:
            while not self._stopping.is_set():
                try:
                    batch = await self._ahead.take() or self._batch(await self._gather(last_count))
                    last_count = len(batch.held)
                    if self._stopping.is_set():
                        await batch.work.abandon()
                        break
                    kept = bool(batch.held) and await self._work_off(batch)
                except Exception:  # noqa: BLE001  a consumer that dies in silence is the worst of all
                    _log.exception("rabbit.consumer_failed", queue=self.queue)
                    await self._drop_ahead()
                    kept = True
                if kept:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), _RETRY_PAUSE_S)
        finally:
            await self._drop_ahead()

    async def _gather(self, last_count: int) -> list[Held]:
        """What is ready now, up to a batch; a few milliseconds more while the stream is dense."""
        if self._window.incomplete:
            await self._recall()
        else:
            await self._arrived.wait()
        if last_count >= _BUSY_BATCH and self._window.waiting < self._batch_max:
            await asyncio.sleep(_GATHER_WAIT_S)
        batch = self._window.take(self._batch_max)
        if not self._window.waiting and not self._stopping.is_set():
            self._arrived.clear()
        return batch

    async def _recall(self) -> None:
        """Have the broker send again what there is room for, and wait until something is here, bounded."""
        with contextlib.suppress(*LOST):  # then its channel is gone, and they come again by another
            for place in self._window.recall():
                await place.channel.basic_nack(place.tag, requeue=True)
        try:
            await asyncio.wait_for(self._arrived.wait(), self._window.patience_s)
        except TimeoutError:
            self._window.forget_recalled()

    def _batch(self, held: Sequence[Held]) -> Batch:
        deliveries = [_delivery(each, self._subscription.channel, self.queue) for each in held]
        return Batch(held, BatchInHand(self._handler, deliveries))

    async def _take_ahead(self) -> Batch | None:
        """Take up the next batch as soon as a full one is here; none where bodies were let go."""
        while self._window.waiting < self._batch_max:
            self._full.clear()
            await self._full.wait()
        if self._window.incomplete:
            return None
        batch = self._batch(self._window.take_ahead(self._batch_max))
        await batch.work.prepare()
        return batch

    async def _drop_ahead(self) -> None:
        await self._ahead.drop()
        self._window.put_back()

    async def _work_off(self, batch: Batch) -> bool:
        """Have a batch handled, and settle it; True when something is to be retried after a pause."""
        if takes_ahead(self._handler, self._subscription, len(batch.held)):
            await batch.work.prepare()
            self._ahead.begin(self._take_ahead(), f"ahead-{self.queue}")
        settlements = await batch.work.run()
        kept = [held for held, s in zip(batch.held, settlements, strict=True) if s is not Settlement.ACK]
        if kept or not self._window.taken_ahead:
            await self._drop_ahead()
        await self._acknowledging.settle(batch.held, settlements, self._window)
        self._settled += len(batch.held) - len(kept)
        self._window.settled(kept)
        if kept:
            self._arrived.set()
        return bool(kept)


def _delivery(held: Held, channel: str, queue: str) -> Delivery:
    raw = held.raw
    headers = text_headers(raw)
    return Delivery(
        body=raw.body,
        headers=headers,
        channel=channel,
        key=None,
        redelivered=bool(raw.redelivered),
        position=f"{queue}#{raw.delivery_tag}",
        token=raw,
        asked=asked(raw, headers, held.arrived_s) if TIMEOUT_MS in headers else None,
        sent=sent_as,
    )
