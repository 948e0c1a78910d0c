"""aio-pika by itself: publishes with confirmations, and consumes and acknowledges by batches without any effect.

Queues, prefetch and batches are those of the adapter; everything else is as aio-pika's guide writes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from experiment.layers.raw_modes import Mode
from shared.broker import Message
from shared.broker.rabbit import urls_of
from shared.envelope import CONTENT_TYPE
from shared.settings import Settings

_WINDOW = 500
_GATHER_WAIT_S = 0.003


class RawRabbit:
    """A connection for one mode, as an async context manager."""

    def __init__(self, settings: Settings, mode: Mode) -> None:
        self._settings = settings
        self._mode = mode
        self._name = mode.name_in(settings.broker_prefix)
        self._queues = mode.queues(settings.broker_prefix)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        [url, *_] = urls_of(self._settings)
        connecting = await aio_pika.connect(url, timeout=self._settings.connect_timeout_s)
        connection = await self._stack.enter_async_context(connecting)
        self._channel = await connection.channel(publisher_confirms=True)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def declare(self) -> None:
        """Make the mode's exchange and its queues; a stream is made anew."""
        hashed = self._mode.places > 1
        kind: Any = "x-consistent-hash" if hashed else aio_pika.ExchangeType.FANOUT
        exchange = await self._channel.declare_exchange(self._name, kind, durable=True)
        if self._mode.name == "stream":  # it keeps what was read, and is read from its beginning
            await self._channel.queue_delete(self._queues[0])
        for name in self._queues:
            queue = await self._channel.declare_queue(name, durable=True, arguments=_arguments(self._mode))
            await queue.bind(exchange, routing_key="1" if hashed else "")

    async def publish(self, messages: Sequence[Message], mark: Callable[[int], None]) -> None:
        """Publish in windows of 500; `mark` is told of each once it is confirmed."""
        exchange = await self._channel.get_exchange(self._name)
        for start in range(0, len(messages), _WINDOW):
            window = messages[start : start + _WINDOW]
            await asyncio.gather(*(self._publish(exchange, each) for each in window))
            mark(len(window))

    async def _publish(self, exchange: aio_pika.abc.AbstractExchange, message: Message) -> None:
        sent = aio_pika.Message(
            message.body, content_type=CONTENT_TYPE, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        await exchange.publish(sent, message.key, mandatory=True)

    async def consume(self, places: Sequence[int], mark: Callable[[int], None], until: asyncio.Event) -> None:
        """Consume what comes to these places until told: what has arrived is a batch, which one acknowledgement
        closes; then `mark` is told of it."""
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        prefetch = max(1, 2 * self._settings.batch_max // len(places))
        await self._channel.set_qos(prefetch_count=prefetch)
        for place in places:
            queue = await self._channel.get_queue(self._queues[place])
            arguments: Any = {"x-stream-offset": "first"} if self._mode.name == "stream" else None
            await queue.consume(arrived.put, arguments=arguments)
        ending = asyncio.create_task(until.wait())
        while not until.is_set():
            first = asyncio.create_task(arrived.get())
            await asyncio.wait({first, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                first.cancel()
                break
            batch = [first.result()]
            if arrived.qsize() < self._settings.batch_max:
                await asyncio.sleep(_GATHER_WAIT_S)
            while len(batch) < self._settings.batch_max and not arrived.empty():
                batch.append(arrived.get_nowait())
            await batch[-1].ack(multiple=True)
            mark(len(batch))
        ending.cancel()


def _arguments(mode: Mode) -> dict[str, Any]:
    if mode.name == "stream":
        return {"x-queue-type": "stream"}
    return {"x-queue-type": "quorum", "x-single-active-consumer": mode.order != "none"}
