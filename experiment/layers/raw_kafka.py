"""aiokafka by itself: publishes with confirmations, and consumes and commits by batches without any effect.

Producer and consumer have the adapter's options; the consumer fetches as much at once as the adapter's at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from experiment.layers.raw_modes import Mode
from shared.broker import Message
from shared.broker.kafka import (
    AHEAD_BYTES_MAX,
    connection_options,
    consumer_options,
    producer_options,
    sync_options,
)
from shared.envelope import CONTENT_TYPE
from shared.settings import Settings

_POLL_MS = 200
_FETCHES = {"fetch_max_bytes": AHEAD_BYTES_MAX, "max_partition_fetch_bytes": 1024 * 1024}


class RawKafka:
    """Clients for one mode, as an async context manager."""

    def __init__(self, settings: Settings, mode: Mode) -> None:
        self._settings = settings
        self._mode = mode
        self._topic = mode.name_in(settings.broker_prefix)
        self._options = connection_options(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def declare(self) -> None:
        """Make the mode's topic."""
        admin = AIOKafkaAdminClient(**self._options)
        await admin.start()
        try:
            topic = NewTopic(
                self._topic,
                self._mode.places,
                replication_factor=self._settings.kafka_replication_factor,
                topic_configs=sync_options(self._settings),
            )
            with contextlib.suppress(TopicAlreadyExistsError):
                await admin.create_topics([topic])
        finally:
            await admin.close()

    async def publish(self, messages: Sequence[Message], mark: Callable[[int], None]) -> None:
        """Publish in windows as large as the relay's; `mark` is told of each once it is confirmed."""
        producer = AIOKafkaProducer(**self._options, **producer_options(self._settings.kafka_compression))
        size = self._settings.relay_batch_max
        async with producer:
            for start in range(0, len(messages), size):
                window = messages[start : start + size]
                sent = [await self._send(producer, each) for each in window]
                await asyncio.gather(*sent)
                mark(len(window))

    async def _send(self, producer: AIOKafkaProducer, message: Message) -> asyncio.Future[object]:
        headers = [("content-type", CONTENT_TYPE.encode()), ("type", message.type.encode())]
        sent: asyncio.Future[object] = await producer.send(
            self._topic, message.body, message.key.encode(), headers=headers
        )
        return sent

    async def consume(self, places: Sequence[int], mark: Callable[[int], None], until: asyncio.Event) -> None:
        """Consume what comes until told, in one group with the others: each poll is a batch, which one commit
        closes; then `mark` is told of it. The group has all `places` and shares them out itself."""
        del places
        consumer = AIOKafkaConsumer(
            self._topic,
            **self._options,
            group_id=self._topic,
            enable_auto_commit=False,
            **consumer_options(self._settings) | _FETCHES,
        )
        async with consumer:
            while not until.is_set():
                polled = await consumer.getmany(timeout_ms=_POLL_MS, max_records=self._settings.batch_max)
                if polled:
                    await consumer.commit()
                    mark(sum(len(records) for records in polled.values()))
