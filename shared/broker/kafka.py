"""The Kafka adapter: partitioned topics, an idempotent producer with `acks=all`, manual commits.

FastStream owns the producer and the consumers' connections; batches come straight from the consumer, so that
one poll is one batch and one commit closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import IllegalStateError, KafkaError, TopicAlreadyExistsError, for_code
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from shared.broker.asyncapi import add_handlers, asyncapi_document
from shared.broker.base import (
    BatchHandler,
    Capabilities,
    DeadLetter,
    Delivery,
    Message,
    Operation,
    PublishFailure,
    Settlement,
    Subscription,
    destination_name,
)
from shared.broker.batches import settle_as_retry
from shared.envelope import CONTENT_TYPE
from shared.errors import UnavailableError
from shared.settings import Settings

_log = structlog.get_logger(__name__)

_LOST = (KafkaError, ConnectionError, OSError, TimeoutError)
"""What aiokafka raises when the cluster is away or refuses."""

_REQUEST_TIMEOUT_MS = 10_000
_POLL_MS = 500
_RETRY_PAUSE_S = 1.0
_SEND_BUFFER_BYTES = 256 * 1024
_RECORD_BYTES_MAX = 1_048_576  # the broker's own default, written down


class KafkaAdapter:
    """`Broker` on Apache Kafka 4.x."""

    capabilities = Capabilities(
        name="kafka",
        order_scope="partition",
        scale_out_keeps_order=True,
        replay=True,
        routes_by_type=False,
        unroutable_detected=False,
        delivery_limit=False,
        delayed_retry=False,
        request_reply=False,
    )

    def __init__(self, settings: Settings, client_name: str) -> None:
        self._settings = settings
        self._client_name = client_name
        self._servers = [server.strip() for server in (settings.kafka_bootstrap or "").split(",")]
        self._broker = KafkaBroker(
            self._servers,
            client_id=client_name,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            compression_type="lz4",
            max_batch_size=_SEND_BUFFER_BYTES,
            max_request_size=_RECORD_BYTES_MAX,
            allow_auto_create_topics=False,
            graceful_timeout=settings.shutdown_grace_s,
            logger=None,
            apply_types=False,
        )
        self._consumers: list[_Consumer] = []

    @property
    def settlement_failures(self) -> int:
        return sum(consumer.settlement_failures for consumer in self._consumers)

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._broker.start()
        except _LOST as error:
            with contextlib.suppress(*_LOST):
                await self._broker.stop()
            raise UnavailableError(f"Kafka: {error or type(error).__name__}") from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        grace_s = self._settings.shutdown_grace_s
        await asyncio.gather(*(consumer.stop(grace_s) for consumer in self._consumers))
        with contextlib.suppress(*_LOST):
            async with asyncio.timeout(grace_s):
                await self._broker.stop()

    # -- topology

    def _topic(self, name: str, retention_s: float) -> NewTopic:
        return NewTopic(
            name,
            num_partitions=self._settings.kafka_partitions,
            replication_factor=self._settings.kafka_replication_factor,
            topic_configs={
                "cleanup.policy": "delete",
                "retention.ms": str(int(retention_s * 1_000)),
                "min.insync.replicas": str(self._settings.kafka_min_insync_replicas),
                "max.message.bytes": str(_RECORD_BYTES_MAX),
                "compression.type": "producer",
            },
        )

    async def declare(self, channels: Sequence[str], subscriptions: Sequence[Subscription] = ()) -> None:
        names = {*channels, *(subscription.channel for subscription in subscriptions)}
        topics = [
            self._topic(destination_name("kafka", channel), self._settings.message_ttl_s) for channel in names
        ]
        topics += [self._topic(_dead_letter_topic(s), self._settings.dead_letter_ttl_s) for s in subscriptions]
        admin = AIOKafkaAdminClient(
            bootstrap_servers=self._servers,
            client_id=self._client_name,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
        )
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await admin.start()
                await self._create_missing(admin, topics)
        except _LOST as error:
            raise UnavailableError(f"Kafka: {error or type(error).__name__}") from error
        finally:
            with contextlib.suppress(*_LOST):
                await admin.close()

    async def _create_missing(self, admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> None:
        response = await admin.create_topics(topics)
        for topic_error in response.topic_errors:
            error = for_code(topic_error[1])
            if topic_error[1] and error is not TopicAlreadyExistsError:
                raise error(f"topic {topic_error[0]}: {topic_error[2] if len(topic_error) > 2 else ''}")
        names = [topic.name for topic in topics]
        while True:  # the creation answers before every partition has a leader; bounded by the caller's timeout
            described = await admin.describe_topics(names)
            if all(t["error_code"] == 0 and all(p["leader"] >= 0 for p in t["partitions"]) for t in described):
                return
            await asyncio.sleep(0.05)

    # -- publishing

    async def publish(self, messages: Sequence[Message]) -> list[PublishFailure]:
        confirmations: list[asyncio.Future[Any] | Exception] = []
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s):
                for message in messages:
                    topic = destination_name("kafka", message.channel)
                    headers = {"type": message.type, **message.headers}
                    confirmations.append(await self._send(topic, message.key, message.body, headers))
                pending = [c for c in confirmations if isinstance(c, asyncio.Future)]
                if pending:
                    await asyncio.wait(pending)
        except TimeoutError:
            pass  # what is not confirmed by now counts as failed, below; it may still arrive
        return _failures(messages, confirmations)

    async def _send(
        self, topic: str, key: str, body: bytes, headers: Mapping[str, str]
    ) -> asyncio.Future[Any] | Exception:
        try:
            return await self._broker.publish(
                body,
                topic=topic,
                key=key.encode(),
                headers={"content-type": CONTENT_TYPE, **headers},
                no_confirm=True,
            )
        except _LOST as error:
            return UnavailableError(f"Kafka: {error or type(error).__name__}")

    async def publish_dead_letter(
        self, subscription: Subscription, delivery: Delivery, headers: Mapping[str, str]
    ) -> None:
        topic = _dead_letter_topic(subscription)
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s):
                sent = await self._send(topic, delivery.key or "", delivery.body, {**delivery.headers, **headers})
                if isinstance(sent, Exception):
                    raise sent
                await sent
        except _LOST as error:
            raise UnavailableError(f"Kafka: {error or type(error).__name__}") from error

    # -- subscribing

    async def subscribe(self, subscription: Subscription, handler: BatchHandler) -> None:
        await self.declare((), (subscription,))
        subscriber = self._broker.subscriber(
            destination_name("kafka", subscription.channel),
            group_id=subscription.subscriber,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            max_poll_interval_ms=int(self._settings.kafka_max_poll_interval_s * 1_000),
            session_timeout_ms=int(self._settings.kafka_session_timeout_s * 1_000),
            heartbeat_interval_ms=int(self._settings.kafka_session_timeout_s * 1_000 / 3),
            fetch_max_wait_ms=_POLL_MS,
            fetch_max_bytes=16 * 1024 * 1024,
            max_partition_fetch_bytes=1024 * 1024,
            persistent=False,
        )
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await subscriber.start()
        except _LOST as error:
            raise UnavailableError(f"Kafka: {error or type(error).__name__}") from error
        consumer = _Consumer(subscription, subscriber, handler)
        self._consumers.append(consumer)
        consumer.start()

    # -- looking

    async def dead_letters(self, subscription: Subscription, limit: int = 100) -> list[DeadLetter]:
        topic = _dead_letter_topic(subscription)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        letters: list[DeadLetter] = []
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await consumer.start()
                partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
                if not partitions:
                    return []
                consumer.assign(partitions)
                ends = await consumer.end_offsets(partitions)
                beginnings = await consumer.beginning_offsets(partitions)
                remaining = sum(ends[p] - beginnings[p] for p in partitions)
                while remaining > 0 and len(letters) < limit:
                    polled = await consumer.getmany(timeout_ms=_POLL_MS, max_records=limit - len(letters))
                    for records in polled.values():
                        remaining -= len(records)
                        letters += [DeadLetter(topic, r.value or b"", _text_headers(r)) for r in records]
        except _LOST as error:
            raise UnavailableError(f"Kafka: {error or type(error).__name__}") from error
        finally:
            with contextlib.suppress(*_LOST):
                await consumer.stop()
        return letters

    async def ping(self) -> None:
        try:
            if not await self._broker.ping(timeout=1.5):
                raise UnavailableError("Kafka: no answer")
        except _LOST as error:
            raise UnavailableError(f"Kafka: {error or type(error).__name__}") from error

    def asyncapi(self, title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
        broker = KafkaBroker("kafka", specification_url="kafka://kafka", logger=None)
        for operation in operations:
            topic = destination_name("kafka", operation.channel)
            if operation.subscriber is None:
                broker.publisher(topic, title=operation.event_type, schema=operation.model)
        for subscriber, channel in sorted({(o.subscriber, o.channel) for o in operations if o.subscriber}):
            wanted = [o for o in operations if (o.subscriber, o.channel) == (subscriber, channel)]
            add_handlers(broker.subscriber(destination_name("kafka", channel), group_id=subscriber), wanted)
        return asyncapi_document(broker, title, version)


class _Consumer:
    """Polls one subscription, hands each poll over as a batch and commits what was finished without a gap."""

    def __init__(self, subscription: Subscription, subscriber: Any, handler: BatchHandler) -> None:
        self._subscription = subscription
        self._subscriber = subscriber
        self._consumer: AIOKafkaConsumer = subscriber.consumer
        self._handler = handler
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.settlement_failures = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._work(), name=f"work-{self._subscription.queue}")

    async def stop(self, grace_s: float) -> None:
        """Let the running batch commit, then leave the group."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=grace_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(*_LOST):
            async with asyncio.timeout(grace_s):
                await self._subscriber.stop()

    async def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                polled = await self._consumer.getmany(
                    timeout_ms=_POLL_MS, max_records=self._subscription.batch_max
                )
            except _LOST as error:
                _log.warning("kafka.poll_failed", queue=self._subscription.queue, error=str(error))
                await self._pause()
                continue
            records = [record for partition in polled.values() for record in partition]
            if not records:
                continue
            deliveries = [_delivery(record, self._subscription) for record in records]
            settlements = await settle_as_retry(self._handler, deliveries)
            await self._settle(records, settlements)

    async def _settle(
        self, records: Sequence[ConsumerRecord[Any, Any]], settlements: Sequence[Settlement]
    ) -> None:
        """Commit each partition up to its first `RETRY`, and read on from there."""
        commits: dict[TopicPartition, int] = {}
        rewinds: dict[TopicPartition, int] = {}
        for record, settlement in zip(records, settlements, strict=True):
            partition = TopicPartition(record.topic, record.partition)
            if partition in rewinds:
                continue
            if settlement is Settlement.ACK:
                commits[partition] = record.offset + 1
            else:
                rewinds[partition] = record.offset
        if commits:
            try:
                await self._consumer.commit(commits)
            except (*_LOST, IllegalStateError) as error:
                # The group has moved on: the next owner reads these again and finds them done.
                self.settlement_failures += len(records)
                _log.warning("kafka.settlement_failed", queue=self._subscription.queue, error=str(error))
        for partition, offset in rewinds.items():
            with contextlib.suppress(IllegalStateError):  # not ours any more
                self._consumer.seek(partition, offset)
        if rewinds:
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _RETRY_PAUSE_S)


def _dead_letter_topic(subscription: Subscription) -> str:
    return f"{subscription.queue}.dlt"


def _failures(
    messages: Sequence[Message], confirmations: Sequence[asyncio.Future[Any] | Exception]
) -> list[PublishFailure]:
    failures: list[PublishFailure] = []
    failed_keys: set[str] = set()
    for index, message in enumerate(messages):
        confirmation = confirmations[index] if index < len(confirmations) else None
        error: BaseException | None
        if confirmation is None:
            error = UnavailableError("Kafka: not sent in time")
        elif isinstance(confirmation, Exception):
            error = confirmation
        elif not confirmation.done() or confirmation.cancelled():
            error = UnavailableError("Kafka: not confirmed in time")
        else:
            error = confirmation.exception()
        if error is None and message.key in failed_keys:
            error = UnavailableError("an earlier event of its key was not confirmed")
        if error is not None:
            failed_keys.add(message.key)
            failures.append(PublishFailure(message, error if isinstance(error, Exception) else UnavailableError()))
    return failures


def _text_headers(record: ConsumerRecord[Any, Any]) -> dict[str, str]:
    return {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in record.headers}


def _delivery(record: ConsumerRecord[Any, Any], subscription: Subscription) -> Delivery:
    return Delivery(
        body=record.value or b"",
        headers=_text_headers(record),
        channel=subscription.channel,
        key=None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
        redelivered=False,
        position=f"{record.topic}/{record.partition}@{record.offset}",
        token=record,
    )
