"""What is published is put into batches by partition, as Kafka's own client would, and no event is left out."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

from shared.broker.kafka.portions import Event, Portion, portions_of

PARTITIONS = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
HEADERS = [("content-type", b"text/plain"), ("type", b"thing.happened")]


def create(size: int = 4_096) -> BatchBuilder:
    return BatchBuilder(size, 0)


def events(count: int, bytes_each: int = 100) -> list[Event]:
    return [
        Event(place, b"key-%d" % (place % 40), b"%06d" % place + bytes(bytes_each), HEADERS)
        for place in range(count)
    ]


def records_of(portion: Portion) -> list[Any]:
    return list(DefaultRecordBatch(portion.batch._build()))


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
def test_each_event_is_in_one_batch_of_the_partition_of_its_key_in_order(compression: int) -> None:
    given = events(300)
    portions = portions_of(given, PARTITIONS, lambda: BatchBuilder(4_096, compression))
    assert sorted(place for portion in portions for place in portion.places) == list(range(300))
    by_partition: dict[int, list[int]] = defaultdict(list)
    for portion in portions:
        by_partition[portion.partition] += portion.places
        records = records_of(portion)
        assert [(record.key, record.value) for record in records] == [
            (given[place].key, given[place].body) for place in portion.places
        ]
        assert all(list(record.headers) == HEADERS for record in records)
        keys = {record.key for record in records}
        numbers = sorted(PARTITIONS)
        assert {DefaultPartitioner()(key, numbers, numbers) for key in keys} == {portion.partition}
    assert all(places == sorted(places) for places in by_partition.values())
    assert len(portions) > len(by_partition), "a full batch is followed by another"


def test_an_event_that_is_larger_than_a_batch_goes_alone() -> None:
    given = events(4, bytes_each=10_000)
    portions = portions_of(given, {0}, create)
    assert [portion.places for portion in portions] == [[0], [1], [2], [3]]


def test_nothing_is_added_to_a_batch_behind_our_back() -> None:
    [portion] = portions_of(events(1), {0}, create)
    assert portion.batch.append(timestamp=None, key=b"k", value=b"v") is None


def test_the_producer_offers_what_is_used_of_it() -> None:
    assert callable(AIOKafkaProducer.create_batch)
    assert callable(AIOKafkaProducer.send_batch)
    assert callable(AIOKafkaProducer.partitions_for)
