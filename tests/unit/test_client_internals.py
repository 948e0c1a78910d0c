"""Everything of the clients' inside that the adapters use is there, in the versions that requirements.lock pins.

When a client is raised, this fails first, and says what `internals.py` must do without.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from aio_pika import Connection, RobustChannel, RobustConnection
from aio_pika.abc import UnderlayConnection
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator, NoGroupCoordinator
from aiokafka.protocol.admin import (
    DescribeGroupsResponse_v0,
    DescribeGroupsResponse_v1,
    DescribeGroupsResponse_v2,
    DescribeGroupsResponse_v3,
)
from aiokafka.protocol.api import Response
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiormq import Channel
from aiormq import Connection as AmqpConnection
from faststream.rabbit import RabbitBroker
from packaging.requirements import Requirement
from pamqp import decode
from yarl import URL

from shared.broker.kafka.clients import end_outright
from shared.broker.kafka.fetching import FIRST_FETCH, Fetch
from shared.broker.kafka.internals import (
    cancel_sender,
    client_of,
    consumed_offsets,
    fetch_by,
    next_offset_of,
    partitions_behind,
    subscribed_topics_of_members,
    tasks_of,
    tolerant_batch_records,
)
from shared.broker.rabbit.internals import use_connection_class
from tests.architecture.source import REPOSITORY
from tests.conformance.servers_seen import kafka_batch

METADATA = b"\x00\x00" + b"\x00\x00\x00\x01" + b"\x00\x05topic" + b"\xff\xff\xff\xff"
MEMBERS = [("id", "client", "host", METADATA, b""), ("id", "client", "host", b"", b"")]


async def test_a_consumer_of_aiokafka_has_the_client_that_knows_the_leaders() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
    client = client_of(consumer)
    assert isinstance(client, AIOKafkaClient)
    assert callable(client.cluster.leader_for_partition)
    assert inspect.iscoroutinefunction(client.send)
    assert inspect.iscoroutinefunction(client.close)
    assert consumed_offsets(consumer) == {}
    partition = TopicPartition("topic", 0)
    consumer.assign([partition])
    assert consumed_offsets(consumer) == {}, "nobody knows yet"
    consumer._subscription.seek(partition, 7)
    assert consumed_offsets(consumer) == {partition: 7}
    await consumer.stop()


async def test_a_consumer_of_aiokafka_is_told_for_each_request_how_much_to_fetch() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1", fetch_max_wait_ms=FIRST_FETCH.wait_ms)
    partition = TopicPartition("topic", 0)
    consumer.assign([partition])
    consumer._subscription.seek(partition, 7)
    fetcher = consumer._fetcher = Fetcher(consumer._client, consumer._subscription)
    fetcher._select_read_replica = lambda _partition: 1
    fetch_by(consumer, Fetch(bytes_max=3, partition_bytes_max=2, wait_ms=FIRST_FETCH.wait_ms + 1))
    ((_, request),) = fetcher._get_actions_per_node(consumer._subscription.subscription.assignment)[0]
    assert request._max_bytes == 3
    assert request._max_wait_ms == FIRST_FETCH.wait_ms, "no longer than it was made to"
    assert request.topics == [("topic", [(0, 7, 2)])]
    await consumer.stop()


async def test_a_partition_is_behind_where_the_last_answer_told_of_more_than_was_handed_over() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
    assert partitions_behind(consumer) == 0
    read, unread, unknown, without_position = partitions = [TopicPartition("topic", number) for number in range(4)]
    consumer.assign(partitions)
    for partition in (read, unread, unknown):
        consumer._subscription.seek(partition, 7)
    for partition, end in {read: 7, unread: 8, without_position: 8}.items():
        consumer._subscription.subscription.assignment.state_value(partition).lso = end
    assert partitions_behind(consumer) == 1
    await consumer.stop()


@pytest.mark.parametrize("group", ["group", None])
async def test_a_consumer_of_aiokafka_that_is_ended_outright_has_no_task_left(group: str | None) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
    assert tasks_of(consumer) == set()
    parts = consumer._client, consumer._subscription
    fetcher = consumer._fetcher = Fetcher(*parts)
    tasks = {fetcher._fetch_task}
    if group is None:
        consumer._coordinator = NoGroupCoordinator(*parts)
        tasks.add(consumer._coordinator._reset_committed_task)
    else:
        member = consumer._coordinator = GroupCoordinator(*parts, group_id=group)
        assert member._heartbeat_task is member._commit_refresh_task is None, "not yet"
        member._heartbeat_task, member._commit_refresh_task, pending = (
            asyncio.create_task(asyncio.Event().wait()) for _ in range(3)
        )
        fetcher._pending_tasks.add(pending)
        tasks |= {member._coordination_task, member._heartbeat_task, member._commit_refresh_task, pending}
    assert tasks_of(consumer) == tasks
    await end_outright(consumer)
    assert all(task.done() for task in tasks)
    consumer._closed = True


async def test_a_producer_of_aiokafka_has_a_task_that_sends_and_a_client_that_asks() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
    cancel_sender(producer)  # none yet
    task = asyncio.create_task(asyncio.Event().wait())
    producer._sender._sender_task = task
    cancel_sender(producer)
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert callable(producer.client.force_metadata_update)
    producer._sender._sender_task = None
    await producer.stop()


def test_a_fetch_is_asked_for_in_the_old_form() -> None:
    names = list(inspect.signature(FetchRequest.__init__).parameters)[1:6]
    assert names == ["max_wait_time", "min_bytes", "max_bytes", "isolation_level", "topics"]


def test_the_python_half_of_the_parser_reads_a_batch_record_by_record() -> None:
    raw = kafka_batch([(b"k", b"v", [("name", b"x")])] * 2)
    assert [(r.offset, r.key, r.value, r.headers) for r in tolerant_batch_records(raw)] == [
        (offset, b"k", b"v", [("name", b"x")]) for offset in range(2)
    ]
    assert next_offset_of(raw) == 2
    assert {"_buffer", "_num_records"} <= vars(_DefaultRecordBatchPy(raw)).keys()


@pytest.mark.parametrize(
    "answer",
    [
        DescribeGroupsResponse_v0([(0, "g", "Stable", "consumer", "range", MEMBERS)]),
        DescribeGroupsResponse_v1(0, [(0, "g", "Stable", "consumer", "range", MEMBERS)]),
        DescribeGroupsResponse_v2(0, [(0, "g", "Stable", "consumer", "range", MEMBERS)]),
        DescribeGroupsResponse_v3(0, [(0, "g", "Stable", "consumer", "range", MEMBERS, 0)]),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_a_groups_members_say_what_they_subscribe_to(answer: Response) -> None:
    assert subscribed_topics_of_members(answer) == [["topic"]]


def test_faststream_connects_with_the_class_that_it_is_given() -> None:
    class Ours(RobustConnection):
        """Never connected."""

    broker = RabbitBroker("amqp://127.0.0.1:1/")
    assert "url" in broker._connection_kwargs, "these are the arguments of connect_robust"
    use_connection_class(broker, Ours)
    assert broker._connection_kwargs["connection_class"] is Ours


async def test_aio_pika_lets_us_below_its_channel_and_its_connection() -> None:
    for name in ("get_underlay_channel", "ready", "restore", "reopen"):
        assert inspect.iscoroutinefunction(getattr(RobustChannel, name))
    assert "transport" in vars(Connection(URL("amqp://127.0.0.1:1/")))
    assert "connection" in inspect.signature(UnderlayConnection).parameters
    assert "publisher_confirms" in inspect.signature(AmqpConnection.channel).parameters
    assert {"mandatory", "wait"} <= inspect.signature(Channel.basic_publish).parameters.keys()


def test_aio_pika_reads_its_address_once_for_every_attempt() -> None:
    assert inspect.getsource(Connection.connect).count("self.url") == 1
    assert "self.url" not in inspect.getsource(RobustConnection)


def test_the_codec_looks_its_decoders_up_by_name() -> None:
    assert {"shortstr", "table", "timestamp"} <= decode.METHODS.keys()
    assert b"T" in decode.TABLE_MAPPING
    assert "METHODS" in inspect.getsource(decode.by_type)
    assert "TABLE_MAPPING" in inspect.getsource(decode.embedded_value)


def test_clients_whose_inside_is_used_have_an_upper_bound() -> None:
    lines = [
        line.partition("#")[0].strip() for line in Path(REPOSITORY / "requirements.in").read_text().splitlines()
    ]
    wanted: dict[str, Any] = {Requirement(line).name: Requirement(line).specifier for line in lines if line}
    for client in ("faststream", "aiokafka", "aio-pika", "aiormq", "pamqp", "sqlalchemy"):
        assert not wanted[client].contains("999.0"), client
