"""Publishes to Kafka with an idempotent producer, and replaces the producer when it can never send again.

aiokafka's producer is used beside FastStream, whose publish adds a header of its own to every message and more
work than the sending itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
)

from shared.broker.base import Message, PublishFailure
from shared.broker.kafka.access import connection_options
from shared.broker.kafka.clients import GOODBYE_S, METADATA_MAX_AGE_MS, REQUEST_TIMEOUT_MS, RETRY_BACKOFF_MS, ended
from shared.broker.kafka.errors import LOST, failure
from shared.broker.kafka.internals import cancel_sender
from shared.broker.kafka.portions import Event, events_of, portions_of
from shared.broker.kafka.topics import DEAD_LETTER_BYTES_MAX
from shared.errors import PermanentError, TandemError, UnavailableError
from shared.settings import Settings

_OPTIONS: Mapping[str, Any] = {
    "request_timeout_ms": REQUEST_TIMEOUT_MS,
    "retry_backoff_ms": RETRY_BACKOFF_MS,
    "metadata_max_age_ms": METADATA_MAX_AGE_MS,
    "acks": "all",
    "enable_idempotence": True,
    "linger_ms": 0,  # the relay's batch is there as a whole; what comes while one is under way goes together, too
    "max_batch_size": 256 * 1024,
    "max_request_size": DEAD_LETTER_BYTES_MAX,  # an event has less: `events_of`
}
_PORTION_MIN = 32
"""From so many on they are put into batches here. Fewer are handed over one by one: then aiokafka gathers those of
others, too, where it takes one batch for a partition at a time."""
_NOT_A_RECORD = (AssertionError, TypeError, ValueError)
"""What aiokafka raises, before anything is sent, for what it would never send."""
_REASON_CHARACTERS_MAX = 500
_LOG_APPEND_TIME = 1

_PRODUCER_LOST = (
    OutOfOrderSequenceNumber,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    ProducerFenced,
    ProducerClosed,
)
"""After these, and after a plain `KafkaError` (its sender died), an idempotent producer refuses for ever."""

_Sent = asyncio.Future[Any] | Exception
"""The confirmation to come, or why the message was not even sent."""


def producer_options(compression: str) -> dict[str, Any]:
    """What aiokafka's producer is told besides servers and a name; `compression` is `none` or a codec's name."""
    return {**_OPTIONS, "compression_type": None if compression == "none" else compression}


class KafkaProducer:
    """Confirmed publishing, in order per key, at most `publish_timeout_s` long."""

    def __init__(self, settings: Settings, client_name: str) -> None:
        self._options = {
            **connection_options(settings),
            "client_id": client_name,
            **producer_options(settings.kafka_compression),
        }
        self._publish_timeout_s = settings.publish_timeout_s
        self._prefix = settings.broker_prefix
        self.channels: set[str] = set()
        """What may be published to: for a topic that is not there, aiokafka would make all behind it wait."""
        self._producer: AIOKafkaProducer | None = None
        self._lost = False
        self._renewal = asyncio.Lock()

    async def start(self) -> None:
        """Connect and get a producer id. Raises one of `LOST`; the caller bounds the time."""
        producer = AIOKafkaProducer(**self._options)
        self._producer = producer
        await producer.start()
        self._lost = False

    async def stop(self, grace_s: float) -> None:
        """Send what is under way within `grace_s`, then disconnect."""
        if self._producer is not None:
            await _end(self._producer, grace_s)
            self._producer = None

    async def ping(self) -> None:
        """Ask the cluster for its state. Raises `UnavailableError`; the caller bounds the time."""
        if self._producer is None or not await self._producer.client.force_metadata_update():
            raise UnavailableError("Kafka: no answer")

    async def topics(self) -> dict[str, tuple[int, int]]:
        """Every topic of the cluster: how many partitions it has, and how many of these have no leader. Raises one
        of `LOST`; the caller bounds the time."""
        if self._producer is None:
            raise UnavailableError("Kafka: not connected")
        cluster = await self._producer.client.fetch_all_metadata()
        return {
            topic: (
                len(cluster.partitions_for_topic(topic)),
                len(cluster.partitions_for_topic(topic) - cluster.available_partitions_for_topic(topic)),
            )
            for topic in cluster.topics()
        }

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        """As `Broker.publish`.

        Everything is under way at once: the idempotent producer keeps the order of a partition by itself.
        """
        results: list[_Sent | None] = [None] * len(messages)
        with contextlib.suppress(TimeoutError):  # what is not confirmed by then failed; it may still arrive
            async with asyncio.timeout(self._publish_timeout_s):
                events, refused = events_of(messages, self.channels, self._prefix)
                for place, reason in refused.items():
                    results[place] = reason
                send = self._send_each if len(messages) < _PORTION_MIN else self._send_portions
                for topic, wanted in events.items():
                    await send(topic, wanted, results)
                pending = {result for result in results if isinstance(result, asyncio.Future)}
                if pending:
                    await asyncio.wait(pending)
        return self._failures(messages, results)

    async def _send_each(self, topic: str, events: Sequence[Event], results: list[_Sent | None]) -> None:
        """Hand them over one by one; where one fails, what is behind it under its key is not sent."""
        stopped: set[bytes] = set()
        for event in events:
            sent: _Sent = UnavailableError("an earlier event of its key was not sent")
            if event.key not in stopped:
                sent = await self._send(topic, event.key, event.body, event.headers)
            if isinstance(sent, Exception):
                stopped.add(event.key)
            results[event.place] = sent

    async def _send_portions(self, topic: str, events: Sequence[Event], results: list[_Sent | None]) -> None:
        """Hand them over batch by batch; where one fails, what is behind it in its partition is not sent."""
        stopped: set[int] = set()
        try:
            producer = await self._living_producer()
            portions = portions_of(events, await producer.partitions_for(topic), producer.create_batch)
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is: nothing was sent
            if isinstance(error, _NOT_A_RECORD):  # one of them is to blame
                await self._send_each(topic, events, results)
                return
            reason = self._reason(error)
            for event in events:
                results[event.place] = reason
            return
        for portion in portions:
            sent: _Sent = UnavailableError("an earlier event of its partition was not sent")
            if portion.partition not in stopped:
                try:
                    confirmation = await producer.send_batch(portion.batch, topic, partition=portion.partition)
                    confirmation.add_done_callback(_look_at)
                    sent = confirmation
                except TimeoutError:
                    raise
                except Exception as error:  # noqa: BLE001  as above
                    sent = self._reason(error)
                    stopped.add(portion.partition)
            for place in portion.places:
                results[place] = sent

    async def publish_one(
        self,
        topic: str,
        key: bytes | None,
        body: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        partition: int | None = None,
    ) -> int | None:
        """Publish and wait for the confirmation; return when Kafka says that it appended it, in milliseconds since
        1970, or None where the topic's times are not Kafka's. Raises a `TandemError`."""
        try:
            async with asyncio.timeout(self._publish_timeout_s):
                sent = await self._send(topic, key, body, headers, partition)
                if isinstance(sent, Exception):
                    raise sent
                record = await asyncio.shield(sent)
        except LOST as error:
            raise self._reason(error) from error
        return record.timestamp if record.timestamp_type == _LOG_APPEND_TIME else None

    async def _send(
        self,
        topic: str,
        key: bytes | None,
        body: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        partition: int | None = None,
    ) -> _Sent:
        """Hand over to the producer, which batches by itself."""
        try:
            producer = await self._living_producer()
            confirmation: asyncio.Future[Any] = await producer.send(
                topic, body, key=key, partition=partition, headers=list(headers)
            )
        except TimeoutError:
            raise
        except _NOT_A_RECORD as error:
            return _permanent(error)
        except Exception as error:  # noqa: BLE001  whatever it is: not sent
            return self._reason(error)
        confirmation.add_done_callback(_look_at)
        return confirmation

    async def _living_producer(self) -> AIOKafkaProducer:
        """The producer; a new one in place of one that the cluster has fenced. Raises one of `LOST`."""
        if self._producer is None or self._lost:
            async with self._renewal:
                if self._producer is None or self._lost:
                    if self._producer is not None:
                        await _end(self._producer, GOODBYE_S)
                    await self.start()
        return self._producer

    def _failures(self, messages: Sequence[Message], results: Sequence[_Sent | None]) -> list[PublishFailure]:
        failures: list[PublishFailure] = []
        failed_keys: set[str] = set()
        for message, result in zip(messages, results, strict=True):
            error = self._error_of(result)
            if error is None and message.key in failed_keys:
                error = UnavailableError("an earlier event of its key was not confirmed")
            if error is not None:
                failed_keys.add(message.key)
                failures.append(PublishFailure(message, error))
        return failures

    def _error_of(self, result: _Sent | None) -> Exception | None:
        if result is None:
            return UnavailableError("Kafka: not sent in time")
        if isinstance(result, Exception):
            return result
        if not result.done() or result.cancelled():
            return UnavailableError("Kafka: not confirmed in time")
        error = result.exception()
        return None if error is None else self._reason(error)

    def _reason(self, error: BaseException) -> TandemError:
        """Our error for the client's; notes when it says that the producer is of no use any more."""
        if isinstance(error, _PRODUCER_LOST) or type(error) is KafkaError:
            self._lost = True
        return failure(error)


def _permanent(error: Exception) -> PermanentError:
    return PermanentError(f"Kafka: {error!r}"[:_REASON_CHARACTERS_MAX])


async def _end(producer: AIOKafkaProducer, grace_s: float) -> None:
    if await ended(producer.stop(), grace_s):
        return
    # The cluster is away. Nobody waits for the rest any more, yet its sender would try for ever.
    cancel_sender(producer)
    await ended(producer.client.close(), GOODBYE_S)


def _look_at(confirmation: asyncio.Future[Any]) -> None:
    """Mark a late failure as seen: its message has long been reported as not confirmed."""
    if not confirmation.cancelled():
        confirmation.exception()
