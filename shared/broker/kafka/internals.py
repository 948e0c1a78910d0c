"""All that the adapter uses of aiokafka's inside, which promises none of it.

requirements.in holds aiokafka below its next version for this file's sake, and tests/unit/test_client_internals.py
says what is gone when that is raised.
"""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import sample
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import _detect_xerial_stream
from aiokafka.conn import create_conn
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record import default_records
from aiokafka.record._crecords import default_records as compiled_default_records
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.util import decode_varint_py

from shared.broker.kafka.fetching import Fetch
from shared.broker.unreadable import TolerantBytes

_FETCH_WAIT_MS = 100
_FETCH_BYTES_MAX = 16 * 1024 * 1024
_PARTITION_BYTES_MAX = 1024 * 1024
_READ_COMMITTED = 1
_XERIAL_HEADER_BYTES = 16
_XERIAL_SIZE = struct.Struct(">i")
_COORDINATOR_TASKS = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")
"""Of a member of a group the first three, of any other the last."""
_PREFERRED_REPLICA_SINCE = 11
"""From this version on an answer names, just before the data, the replica that is preferred."""


def client_of(consumer: AIOKafkaConsumer) -> AIOKafkaClient:
    """The connections that a consumer asks through."""
    return consumer._client


def tasks_of(consumer: AIOKafkaConsumer) -> set[asyncio.Task[Any]]:
    """What it runs by itself, and has not ended."""
    fetcher, coordinator = consumer._fetcher, consumer._coordinator
    tasks = {consumer._client._sync_task, *(getattr(coordinator, name, None) for name in _COORDINATOR_TASKS)}
    if fetcher is not None:
        tasks |= {fetcher._fetch_task, *fetcher._pending_tasks}
    return {task for task in tasks if task is not None and not task.done()}


async def reason_of_each(options: Mapping[str, Any], timeout_s: float) -> Exception | None:
    """Why the first of a client's servers cannot be connected to that says so; None when one can, or none does.
    `options` are the client's."""
    told = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    for server in options["bootstrap_servers"]:
        host, _, port = server.rpartition(":")
        try:
            async with asyncio.timeout(timeout_s):
                connection = await create_conn(host, int(port), **told)
        except TimeoutError:
            continue
        except (KafkaError, OSError) as error:
            return error
        connection.close()
    return None


def consumed_offsets(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Where reading goes on in each assigned partition, as far as it is known: behind markers of transactions, and
    what was taken back, too, which no poll ever hands over."""
    subscription = consumer._subscription.subscription
    if subscription is None or subscription.assignment is None:
        return {}
    return {tp: consumed.offset for tp, consumed in subscription.assignment.all_consumed_offsets().items()}


class Ends(NamedTuple):
    """Of a partition, as of the last answer to a fetch."""

    stable: int
    """The last stable offset: behind it is what a transaction that is open may yet take back."""
    last: int


def known_ends(consumer: AIOKafkaConsumer) -> dict[TopicPartition, Ends]:
    """Those of each assigned partition that has been fetched from."""
    subscription = consumer._subscription.subscription
    if subscription is None or subscription.assignment is None:
        return {}
    states = {tp: subscription.assignment.state_value(tp) for tp in subscription.assignment.tps}
    return {tp: Ends(state.lso, state.highwater) for tp, state in states.items() if state.lso is not None}


def partitions_behind(consumer: AIOKafkaConsumer) -> int:
    """In how many of the assigned partitions there was more to read, as of the last answer to a fetch of each."""
    subscription = consumer._subscription.subscription
    if subscription is None or subscription.assignment is None:
        return 0
    states = [subscription.assignment.state_value(tp) for tp in subscription.assignment.tps]
    return sum(
        state.lso is not None and state.has_valid_position and state.position < state.lso for state in states
    )


def fetch_by(consumer: AIOKafkaConsumer, fetch: Fetch) -> None:
    """Have its next requests ask for so much; they wait no longer than the consumer was made to."""
    fetcher = consumer._fetcher
    fetcher._fetch_max_bytes = fetch.bytes_max
    fetcher._max_partition_fetch_bytes = fetch.partition_bytes_max
    fetcher._fetch_max_wait_ms = min(fetch.wait_ms, consumer._fetch_max_wait_ms)


def cancel_sender(producer: AIOKafkaProducer) -> None:
    """End the task that would try for ever to send what is under way."""
    sender_task = producer._sender.sender_task
    if sender_task is not None:
        sender_task.cancel()


def subscribed_topics_of_members(described: Any) -> list[list[str]]:
    """The topics that each member of the groups in an answer to `describe_consumer_groups` subscribes to; without
    members that have not said it yet, since their group is rebalancing."""
    members = [member for group in described.to_object()["groups"] for member in group["members"]]
    metadata = [member["member_metadata"] for member in members]
    return [list(ConsumerProtocolMemberMetadata.decode(told).subscription) for told in metadata if told]


@dataclass(frozen=True, slots=True)
class Stored:
    """The batches of a partition as they are stored, from an offset on."""

    data: bytes
    """The last batch may be cut off."""
    end: int
    """The last stable offset: behind it are open transactions, or nothing."""
    aborted: Sequence[tuple[int, int]] = ()
    """Transactions among them that were aborted, as (producer, first offset)."""


async def fetch_stored_bytes(
    consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]
) -> dict[TopicPartition, Stored]:
    """What is stored in the partitions whose leaders have something."""
    client = client_of(consumer)
    asked: defaultdict[int, defaultdict[str, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
    for partition in sample(list(positions), len(positions)):  # the answer may hold the first ones only
        leader = client.cluster.leader_for_partition(partition)
        if leader is not None and leader >= 0:
            place = (partition.partition, positions[partition], _PARTITION_BYTES_MAX)
            asked[leader][partition.topic].append(place)
    fetched: dict[TopicPartition, Stored] = {}
    for leader, topics in asked.items():
        request = FetchRequest(_FETCH_WAIT_MS, 1, _FETCH_BYTES_MAX, _READ_COMMITTED, list(topics.items()))
        response = await client.send(leader, request)
        for topic, partitions in response.topics:
            for number, error_code, _high_water, stable_end, *rest in partitions:
                *_, aborted, data = (
                    rest if response.API_VERSION < _PREFERRED_REPLICA_SINCE else (*rest[:-2], rest[-1])
                )
                if not error_code and data:
                    fetched[TopicPartition(topic, number)] = Stored(data, stable_end, tuple(aborted or ()))
    return fetched


@dataclass(frozen=True, slots=True)
class TransactionPart:
    """What a batch is to the transaction that it is part of."""

    producer: int
    first_offset: int
    aborts: bool
    """It is the marker that ends the transaction, and takes it back."""


def transaction_part(raw: bytes) -> TransactionPart | None:
    """None: the batch is of none. Raises `CorruptRecordException`, or whatever a damaged marker leads to."""
    batch = _intact_batch(raw)
    if not batch.is_transactional:
        return None
    aborts = batch.is_control_batch and any(ControlRecord.parse(record.key) == ABORT_MARKER for record in batch)
    return TransactionPart(batch.producer_id, batch.base_offset, aborts)


def is_intact(raw: bytes) -> bool:
    """Whether the batch is, by its checksum, what its producer sent."""
    return len(raw) >= _DefaultRecordBatchPy.HEADER_STRUCT.size and bool(_DefaultRecordBatchPy(raw).validate_crc())


def _intact_batch(raw: bytes) -> _DefaultRecordBatchPy:
    batch = _DefaultRecordBatchPy(raw)
    if not batch.validate_crc():
        raise CorruptRecordException("wrong checksum")
    return batch


def replace_unpackers(unpackers: Mapping[str, Callable[[Any], bytes]]) -> None:
    """Have both halves of the parser unpack with these, by the name of the compression."""
    for module in (default_records, compiled_default_records):
        for name, unpack in unpackers.items():
            setattr(module, f"{name}_decode", unpack)


def snappy_blocks(packed: Any) -> Iterator[memoryview]:
    """The blocks of what Java's library writes (a header, then each behind its length), or all as one."""
    view = memoryview(packed)
    if not _detect_xerial_stream(packed):
        yield view
        return
    position = _XERIAL_HEADER_BYTES
    while position < len(view):
        (size,) = _XERIAL_SIZE.unpack_from(view, position)
        position += _XERIAL_SIZE.size
        yield view[position : position + size]
        position += max(0, size)


def tolerant_batch_records(raw: bytes) -> Iterator[Any]:
    """The records of one whole batch, with what is not UTF-8 escaped; each has `offset`, `key`, `value` and
    `headers`. Raises whatever damaged bytes lead to."""
    batch = _intact_batch(raw)
    if batch.is_control_batch:
        return
    iter(batch)  # decompresses
    batch._buffer = TolerantBytes(batch._buffer)
    for _ in range(batch._num_records):
        yield batch._read_msg(decode_varint_py)


def next_offset_of(raw: bytes) -> int:
    """The offset behind a batch by the batch's own word, which may be what is damaged."""
    batch = _DefaultRecordBatchPy(raw.ljust(_DefaultRecordBatchPy.HEADER_STRUCT.size, b"\0"))
    return int(batch.next_offset)
