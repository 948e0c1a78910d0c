"""Request-Reply on Kafka: one reply topic for each service, of which each process reads a partition from its end.

It reads outside every group, so nobody rebalances for its sake. The partition is taken at random: where more
processes ask than there are partitions, or two take the same, each gets the other's answers too, and drops them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from random import randrange
from time import monotonic

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from shared import cancellation
from shared.broker.asking import TIMEOUT_MS, Reply, timeout_header, timeout_s_of
from shared.broker.base import Message, Trouble
from shared.broker.kafka.clients import KafkaClients
from shared.broker.kafka.clock import KafkaClock
from shared.broker.kafka.declarations import KafkaDeclarations
from shared.broker.kafka.producer import KafkaProducer
from shared.broker.kafka.unreadable import Record
from shared.envelope import CONTENT_TYPE
from shared.errors import UnavailableError
from shared.event import Asked

_log = structlog.get_logger(__name__)

CORRELATION_ID = "tandem-correlation-id"
REPLY_TO = "tandem-reply-to"
_ADDRESS = re.compile("([a-z0-9][a-z0-9_.-]{0,200}-replies)/([0-9]{1,4})")
_RECORDS_MAX = 500
_POLL_MS = 500
_PAUSE_S = 1.0
_FAILED_POLLS_MAX = 3
_TOPICS_ASKED_INTERVAL_S = 1.0


def asked(record: Record, headers: Mapping[str, str], clock: KafkaClock) -> Asked | None:
    """Who waits for an answer to a record, and until when, by Kafka's clock, it may be begun. Only reply topics
    are answered to: any other may be anybody's."""
    timeout_s = timeout_s_of(headers)
    if timeout_s is None:
        return None
    address = headers.get(REPLY_TO, "")
    left_s = record.timestamp / 1_000 + timeout_s - clock.latest_s()
    return Asked(
        reply_to=address if _ADDRESS.fullmatch(address) else "",
        correlation_id=headers.get(CORRELATION_ID, ""),
        begin_by_s=monotonic() + left_s,
    )


class KafkaReplies:
    """`ReplyChannel`."""

    def __init__(self, clients: KafkaClients, declarations: KafkaDeclarations, producer: KafkaProducer) -> None:
        self._clients = clients
        self._declarations = declarations
        self._producer = producer
        self._partition: TopicPartition | None = None
        self._connection = AsyncExitStack()
        """Closes the consumer."""
        self._reading: asyncio.Task[None] | None = None
        self._known: Mapping[str, tuple[int, int]] = {}
        self._known_at_s = -_TOPICS_ASKED_INTERVAL_S
        self._asking = asyncio.Lock()
        self._trouble: Exception | None = None

    async def receive_replies(self, service: str, handler: Callable[[Reply], None]) -> None:
        """As `ReplyChannel.receive_replies`."""
        topic = await self._declarations.declare_replies(service)
        partition = TopicPartition(topic.name, randrange(topic.num_partitions))  # noqa: S311  nobody is to guess
        async with AsyncExitStack() as stack:
            consumer = await stack.enter_async_context(self._clients.onlooker())
            async with self._clients.setting_up():
                await _begin_at_the_end(consumer, partition)
            self._connection = stack.pop_all()
        self._reading = asyncio.create_task(self._read(consumer, partition, handler), name=f"read-{topic.name}")
        self._partition = partition

    async def _read(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, handler: Callable[[Reply], None]
    ) -> None:
        """Hand over what comes. A consumer that goes on failing is replaced by one that begins at the end: what
        nobody can read is passed by, and what came meanwhile is lost."""
        failures = 0
        while True:
            try:
                if failures >= _FAILED_POLLS_MAX:
                    await self._connection.aclose()
                    consumer = await self._connection.enter_async_context(self._clients.onlooker())
                    async with self._clients.asking():
                        await _begin_at_the_end(consumer, partition)
                polled = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_MAX)
                for record in polled.get(partition, ()):
                    handler(_reply(record))
                failures, self._trouble = 0, None
            except Exception as error:  # noqa: BLE001  a reader that dies in silence is the worst of all
                failures += 1
                self._trouble = error
                _log.warning("kafka.replies_not_read", topic=partition.topic, error=repr(error))
                await asyncio.sleep(_PAUSE_S)

    async def publish_request(self, message: Message, correlation_id: str, timeout_s: float) -> None:
        """As `ReplyChannel.publish_request`."""
        if self._partition is None:
            raise UnavailableError("nobody here receives replies yet")
        headers = {
            **message.headers,
            TIMEOUT_MS: timeout_header(timeout_s),
            CORRELATION_ID: correlation_id,
            REPLY_TO: f"{self._partition.topic}/{self._partition.partition}",
        }
        request = Message(message.channel, message.type, message.key, message.body, headers)
        for failure in await self._producer.publish([request]):
            raise failure.error

    async def publish_reply(self, asked: Asked, body: bytes) -> None:
        """As `ReplyChannel.publish_reply`."""
        found = _ADDRESS.fullmatch(asked.reply_to)
        if found is None:
            return
        topic, partition = found[1], int(found[2])
        if partition < await self._partitions_of(topic):
            headers = [("content-type", CONTENT_TYPE.encode()), (CORRELATION_ID, asked.correlation_id.encode())]
            await self._producer.publish_one(topic, None, body, headers, partition)

    async def _partitions_of(self, topic: str) -> int:
        """0 if it is not there: to a topic that is not there aiokafka would make all others wait for it."""
        async with self._asking:
            if topic not in self._known and monotonic() - self._known_at_s > _TOPICS_ASKED_INTERVAL_S:
                async with self._clients.asking():
                    self._known = await self._producer.topics()
                self._known_at_s = monotonic()
        return self._known.get(topic, (0, 0))[0]

    def look(self) -> dict[str, Trouble]:
        """Whether replies cannot be read now. That stops no stream."""
        if self._trouble is None or self._partition is None:
            return {}
        return {self._partition.topic: Trouble(f"cannot be read: {self._trouble!r}", stops=False)}

    async def stop(self) -> None:
        """What is answered from now on is read by nobody."""
        if self._reading is not None:
            await cancellation.end(self._reading)
        await self._connection.aclose()


async def _begin_at_the_end(consumer: AIOKafkaConsumer, partition: TopicPartition) -> None:
    """What is answered to a request that is asked from now on is read. Raises one of `LOST`; the caller bounds the
    time."""
    await consumer.start()
    consumer.assign([partition])
    await consumer.seek_to_end(partition)
    await consumer.position(partition)


def _reply(record: Record) -> Reply:
    told = [value or b"" for name, value in record.headers if name == CORRELATION_ID]
    return Reply((told or [b""])[0].decode("utf-8", "backslashreplace"), record.value or b"")
