"""The servers as others see them: native clients beside the adapter, to plant odd messages and to look."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import aio_pika
import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NoError, NotLeaderForPartitionError, for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiormq import spec

from deploy.native import Runtime
from experiment.clock import until
from shared.broker.base import Subscription

_GONE_S = 3.0


async def publish_amqp(
    runtime: Runtime, exchange: str, routing_key: str, body: bytes, headers: dict[str, Any]
) -> None:
    """As a foreign client would: any header type that AMQP has."""
    async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
        channel = await connection.channel()
        target = await channel.get_exchange(exchange)
        message = aio_pika.Message(body, headers=headers, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await target.publish(message, routing_key)


async def publish_amqp_properties(
    runtime: Runtime, exchange: str, routing_key: str, messages: Sequence[tuple[bytes, spec.Basic.Properties]]
) -> None:
    """Bodies with properties that no client library would let pass; each is confirmed."""
    async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
        channel: Any = await (await connection.channel()).get_underlay_channel()
        for body, properties in messages:
            await channel.basic_publish(body, exchange=exchange, routing_key=routing_key, properties=properties)


class RawProperties(spec.Basic.Properties):
    """Properties as the bytes they are on the wire: the one named, and nothing else."""

    def __init__(self, name: str, value: bytes) -> None:
        super().__init__()
        self._raw = self.flags[name].to_bytes(2, "big") + value

    def marshal(self) -> bytes:
        return self._raw


async def publish_kafka(
    runtime: Runtime,
    topic: str,
    records: Sequence[tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]]],
    timestamp_ms: int | None = None,
) -> None:
    """As a foreign client would: (key, value, headers), any of them null or not UTF-8, of any time."""
    producer = AIOKafkaProducer(bootstrap_servers=runtime.server_urls()["kafka"], acks="all")
    await producer.start()
    try:
        for key, value, headers in records:
            await producer.send_and_wait(topic, value, key=key, headers=list(headers), timestamp_ms=timestamp_ms)
    finally:
        await producer.stop()


async def publish_kafka_partition(runtime: Runtime, topic: str, partition: int, body: bytes) -> None:
    """Straight to one partition, as soon as it is there."""
    producer = AIOKafkaProducer(bootstrap_servers=runtime.server_urls()["kafka"], metadata_max_age_ms=500)
    await producer.start()
    try:
        while partition not in await producer.partitions_for(topic):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.1)
        await producer.send_and_wait(topic, body, partition=partition)
    finally:
        await producer.stop()


class BadName(str):
    """Text that goes out as bytes which are not UTF-8: no client library for Python would send such."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe" + super().encode()


KAFKA_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def kafka_batch(
    records: Sequence[tuple[bytes | None, bytes, Sequence[tuple[str, bytes]]]],
    *,
    transaction: int | None = None,
    compression: str = "none",
) -> bytes:
    """One batch as it goes over the wire, of (key, value, headers); part of a `transaction` of that producer."""
    producer, codec = -1 if transaction is None else transaction, KAFKA_CODECS.index(compression)
    batch = _DefaultRecordBatchBuilderPy(2, codec, int(transaction is not None), producer, -1, -1, 100_000_000)
    for offset, (key, value, headers) in enumerate(records):
        batch.append(offset, int(time.time() * 1_000), key, value, list(headers))
    return bytes(batch.build())


async def publish_kafka_batches(
    runtime: Runtime, topic: str, batches: Sequence[tuple[int, bytes]], timeout_ms: int = 10_000
) -> None:
    """(partition, batch) as they are, past every client's checks."""
    client = AIOKafkaClient(bootstrap_servers=runtime.server_urls()["kafka"], request_timeout_ms=timeout_ms)
    await client.bootstrap()
    try:
        await client.set_topics([topic])
        for partition, batch in batches:
            async with asyncio.timeout(timeout_ms / 1_000):
                error = await _send_batch(client, topic, partition, batch)
                while error is NotLeaderForPartitionError:  # its leader may not know yet that it is one
                    await asyncio.sleep(0.1)
                    error = await _send_batch(client, topic, partition, batch)
            assert error is NoError
    finally:
        await client.close()


async def _send_batch(client: AIOKafkaClient, topic: str, partition: int, batch: bytes) -> Any:
    leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
    answer = await client.send(leader, ProduceRequest(None, -1, 10_000, [(topic, [(partition, batch)])]))
    ((_, ((_, error_code, *_rest),)),) = answer.topics
    return for_code(error_code)


async def reject_until_gone(runtime: Runtime, queue: str, times_max: int) -> int:
    """Take a queue's first message and put it back, until it is not there any more; how often it was."""
    async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
        channel = await connection.channel()
        source = await channel.get_queue(queue)
        for times in range(times_max):
            message = await source.get(fail=False)
            if message is None:
                return times
            await message.reject(requeue=True)
    return times_max


@dataclass(frozen=True)
class QueueSeen:
    """What RabbitMQ's management API says about a queue."""

    arguments: Mapping[str, Any]
    durable: bool
    bindings: frozenset[tuple[str, str]]
    """(exchange, routing key), without the default exchange's."""


async def management(runtime: Runtime, path: str) -> Any:
    """GET a resource of the default virtual host from RabbitMQ's management API."""
    kind, _, rest = path.partition("/")
    return (await _manage(runtime, "GET", f"{kind}/%2F/{rest}")).json()


async def _manage(runtime: Runtime, method: str, path: str, body: Any = None) -> httpx.Response:
    parts = urlsplit(runtime.server_urls()["rabbit"])
    assert parts.username
    assert parts.password
    url = f"{runtime.addresses.management_url}/api/{path}"
    # Reading the authorities of this machine takes 40 ms of CPU, and this is plain HTTP.
    async with httpx.AsyncClient(auth=(parts.username, parts.password), timeout=30, verify=False) as client:
        return (await client.request(method, url, json=body)).raise_for_status()


async def make_account(runtime: Runtime, name: str) -> str:
    """A user of RabbitMQ with every right, whose password is its name; the URL to connect with."""
    await _manage(runtime, "PUT", f"users/{name}", {"password": name, "tags": ""})
    await give_rights(runtime, name)
    parts = urlsplit(runtime.server_urls()["rabbit"])
    return parts._replace(netloc=f"{name}:{name}@{parts.hostname}:{parts.port}").geturl()


async def give_rights(runtime: Runtime, name: str) -> None:
    await _manage(runtime, "PUT", f"permissions/%2F/{name}", dict.fromkeys(("configure", "write", "read"), ".*"))


async def withdraw_rights(runtime: Runtime, name: str) -> None:
    """All of them, but the one to connect; who is connected stays so."""
    await _manage(runtime, "PUT", f"permissions/%2F/{name}", dict.fromkeys(("configure", "write", "read"), "^$"))


async def take_rights_away(runtime: Runtime, name: str) -> None:
    """As `withdraw_rights`; who is connected must connect anew."""
    await withdraw_rights(runtime, name)
    await _manage(runtime, "DELETE", f"connections/username/{name}")


async def set_password(runtime: Runtime, name: str, password: str) -> None:
    """Who is connected must connect anew."""
    await _manage(runtime, "PUT", f"users/{name}", {"password": password, "tags": ""})
    await _manage(runtime, "DELETE", f"connections/username/{name}")


async def delete_account(runtime: Runtime, name: str) -> None:
    await _manage(runtime, "DELETE", f"users/{name}")


async def queue_seen(runtime: Runtime, name: str) -> QueueSeen:
    queue = await management(runtime, f"queues/{quote(name)}")
    bindings = await management(runtime, f"queues/{quote(name)}/bindings")
    return QueueSeen(
        arguments=queue["arguments"],
        durable=queue["durable"],
        bindings=frozenset((b["source"], b["routing_key"]) for b in bindings if b["source"]),
    )


async def unbind(runtime: Runtime, subscription: Subscription) -> None:
    """Remove a subscriber's bindings, as an operator may."""
    async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
        queue = await (await connection.channel()).get_queue(subscription.queue)
        for event_type in subscription.types:
            await queue.unbind(f"{subscription.channel}.events", event_type)


async def delete_queue(runtime: Runtime, name: str) -> None:
    """Remove a queue, whoever consumes it."""
    async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
        channel = await connection.channel()
        await channel.queue_delete(name)


async def delete_exchange(runtime: Runtime, name: str) -> None:
    """Remove an exchange, and its bindings with it."""
    async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
        channel = await connection.channel()
        await channel.exchange_delete(name)


async def queue_counts(runtime: Runtime, name: str) -> tuple[int, int]:
    """(messages ready, consumers) of a queue, by AMQP: exact, where the management API samples."""
    async with await aio_pika.connect(runtime.server_urls()["rabbit"]) as connection:
        channel = await connection.channel()
        declared = (await channel.declare_queue(name, passive=True)).declaration_result
        return declared.message_count or 0, declared.consumer_count or 0


async def topic_seen(runtime: Runtime, name: str) -> tuple[int, dict[str, str]]:
    """(partitions, options) of a topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=runtime.server_urls()["kafka"])
    await admin.start()
    try:
        (topic,) = await admin.describe_topics([name])
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        entries = [entry for resource in response.resources for entry in resource[4]]
        return len(topic["partitions"]), {option: value for option, value, *_ in entries}
    finally:
        await admin.close()


async def set_topic_options(runtime: Runtime, name: str, options: dict[str, str]) -> None:
    """These, and no others: as an operator may, or an earlier version has left them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=runtime.server_urls()["kafka"])
    await admin.start()
    try:
        (response,) = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, options)])
        assert [code for code, *_ in response.resources] == [0]
    finally:
        await admin.close()


async def kafka_times_ms(runtime: Runtime, topic: str, count: int) -> list[int]:
    """The times by which Kafka keeps the first `count` messages of a topic."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=runtime.server_urls()["kafka"], auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        return [(await consumer.getone()).timestamp for _ in range(count)]
    finally:
        await consumer.stop()


async def group_members(runtime: Runtime, group: str) -> int:
    """How many consumers a Kafka group has."""
    admin = AIOKafkaAdminClient(bootstrap_servers=runtime.server_urls()["kafka"])
    await admin.start()
    try:
        responses = await admin.describe_consumer_groups([group])
        return sum(len(described[5]) for response in responses for described in response.groups)
    finally:
        await admin.close()


async def delete_topic(runtime: Runtime, name: str) -> None:
    """Remove a topic, whoever reads it. A node takes records for a moment after it was told: that is waited for,
    but not long, since one that somebody made again at once looks the same.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=runtime.server_urls()["kafka"])
    await admin.start()
    try:
        await admin.delete_topics([name])

        async def gone() -> bool:
            return name not in await admin.list_topics()

        await until(gone, _GONE_S, 0.05)
    finally:
        await admin.close()


async def add_partition(runtime: Runtime, topic: str, count: int) -> None:
    """Give the topic one partition more than `count`."""
    admin = AIOKafkaAdminClient(bootstrap_servers=runtime.server_urls()["kafka"])
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(count + 1)})
    finally:
        await admin.close()


async def delete_topics(runtime: Runtime, channel: str) -> None:
    """Forget a check's topics: a broker that was killed reads every one again before it answers."""
    admin = AIOKafkaAdminClient(bootstrap_servers=runtime.server_urls()["kafka"])
    await admin.start()
    try:
        await admin.delete_topics([name for name in await admin.list_topics() if channel in name])
    finally:
        await admin.close()


def rabbit_keeps(runtime: Runtime, queue: str) -> bool:
    """Whether a quorum queue would be found again if its node were killed now. RabbitMQ writes the name to disk
    once no other has been declared for half a second or so; before that, a restarted node begins the queue anew.
    """
    files = runtime.site.data("rabbit").glob("mnesia/*/quorum/*/names.dets")
    name = re.compile(re.escape(queue.encode()) + rb"(?!\.)")  # the names of its dead letters and retries go on
    return any(name.search(file.read_bytes()) for file in files)
