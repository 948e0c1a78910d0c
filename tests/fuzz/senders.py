"""A stranger's own client of each broker: sends what it likes, and looks on at what becomes a dead letter."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Protocol, Self

import aio_pika
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError
from aiormq import spec

from shared.dead_letter.headers import KIND, Kind
from tests.fuzz.alphabet import PARTITIONS, Input
from tests.integration.world import TYPE, World


class Stranger(Protocol):
    """What a test asks of either client."""

    letters: list[bytes]
    """The bodies of all that was put aside so far, receipts left out."""

    async def send(self, given: Input, body: bytes | None) -> bool:
        """Send one message, once; returns when the broker has it, or False when it does not take it."""

    async def send_good(self, bodies: list[bytes]) -> None:
        """Send one event behind all that was sent: to each partition, where there are some."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class RabbitStranger:
    """On RabbitMQ."""

    places = 1

    def __init__(self, world: World) -> None:
        self.letters: list[bytes] = []
        self._world = world
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        url = self._world.runtime.server_urls()["rabbit"]
        connection = await self._stack.enter_async_context(await aio_pika.connect(url))
        self._channel: Any = await (await connection.channel()).get_underlay_channel()
        queue = await (await connection.channel()).get_queue(f"{self._world.subscription.queue}.dlq")
        await queue.consume(self._on_letter, no_ack=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _on_letter(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        if message.headers.get(KIND) != Kind.RECEIPT:
            self.letters.append(message.body)

    async def send(self, given: Input, body: bytes | None) -> bool:
        await self._publish(body or b"", spec.Basic.Properties(headers=dict(given.headers), **given.properties))
        return True

    async def send_good(self, bodies: list[bytes]) -> None:
        for body in bodies:
            await self._publish(body, spec.Basic.Properties(delivery_mode=2))

    async def _publish(self, body: bytes, properties: spec.Basic.Properties) -> None:
        exchange = f"{self._world.channel}.events"
        await self._channel.basic_publish(body, exchange=exchange, routing_key=TYPE, properties=properties)


class KafkaStranger:
    """On Kafka."""

    places = PARTITIONS

    def __init__(self, world: World) -> None:
        self.letters: list[bytes] = []
        self._world = world
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        servers = self._world.runtime.server_urls()["kafka"]
        plain, squeezing = (
            AIOKafkaProducer(bootstrap_servers=servers, max_request_size=2**26, compression_type=squeezed)
            for squeezed in (None, "gzip")
        )
        for producer in (plain, squeezing):
            self._stack.push_async_callback(producer.stop)
            await producer.start()
        self._producers = {False: plain, True: squeezing}
        consumer = AIOKafkaConsumer(
            bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        self._stack.push_async_callback(consumer.stop)
        await consumer.start()
        topic = f"{self._world.subscription.queue}.dlt"
        consumer.assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])
        looking = asyncio.create_task(self._look(consumer))
        self._stack.callback(looking.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            if (KIND, Kind.RECEIPT.encode()) not in record.headers:
                self.letters.append(record.value or b"")

    async def send(self, given: Input, body: bytes | None) -> bool:
        key = b"" if given.key is None and body is None else given.key  # the client asks for one of them
        try:
            await self._producers[given.squeezed].send_and_wait(
                f"{self._world.channel}-events", body, key=key, partition=given.partition,
                headers=list(given.headers), timestamp_ms=given.timestamp_ms,
            )  # fmt: skip
        except MessageSizeTooLargeError:
            return False
        return True

    async def send_good(self, bodies: list[bytes]) -> None:
        for partition, body in enumerate(bodies):
            await self._producers[False].send_and_wait(f"{self._world.channel}-events", body, partition=partition)


def stranger(world: World) -> RabbitStranger | KafkaStranger:
    return RabbitStranger(world) if world.broker_name == "rabbit" else KafkaStranger(world)
