"""What is fetched ahead from Kafka is what the next batches take, within bounds, whatever waits there."""

from __future__ import annotations

import pytest

from shared.broker.kafka.fetching import (
    AHEAD_BYTES_MAX,
    AHEAD_BYTES_MIN,
    BUSY_WAIT_MS,
    FEW_PARTITIONS,
    KIB,
    MIB,
    PARTITION_BYTES_MIN,
    WAIT_MS,
    next_fetch,
)

IN_FLIGHT = 16 * MIB


def test_small_events_are_fetched_a_few_megabytes_ahead() -> None:
    fetch = next_fetch(700, 500, IN_FLIGHT, behind=12)
    assert (fetch.bytes_max, fetch.partition_bytes_max) == (AHEAD_BYTES_MIN, PARTITION_BYTES_MIN)


def test_four_batches_of_larger_events_are_fetched_ahead() -> None:
    fetch = next_fetch(4 * KIB, 500, IN_FLIGHT, behind=4)
    assert (fetch.bytes_max, fetch.partition_bytes_max) == (4 * 500 * 4 * KIB, 500 * 4 * KIB)


def test_of_large_events_no_more_is_fetched_than_twelve_megabytes() -> None:
    fetch = next_fetch(900 * KIB, 500, IN_FLIGHT, behind=12)
    assert (fetch.bytes_max, fetch.partition_bytes_max) == (AHEAD_BYTES_MAX, MIB)


def test_no_more_is_fetched_ahead_than_may_be_in_flight() -> None:
    assert next_fetch(900 * KIB, 500, MIB, behind=1).bytes_max == MIB


@pytest.mark.parametrize("behind", [0, 1, 2, 7, 8, 12, 1_000])
@pytest.mark.parametrize("record_bytes", [0, 100, 3_000, 1_000_000])
def test_the_partitions_that_are_behind_share_it_and_each_gets_a_whole_batch(
    behind: int, record_bytes: int
) -> None:
    fetch = next_fetch(record_bytes, 500, IN_FLIGHT, behind)
    assert fetch.partition_bytes_max >= PARTITION_BYTES_MIN
    assert behind * fetch.partition_bytes_max <= max(fetch.bytes_max, behind * PARTITION_BYTES_MIN)


def test_a_request_that_may_hold_up_what_is_behind_does_not_wait_long() -> None:
    waits = [
        next_fetch(700, 500, IN_FLIGHT, behind).wait_ms for behind in (0, 1, FEW_PARTITIONS, FEW_PARTITIONS + 1)
    ]
    assert waits == [WAIT_MS, BUSY_WAIT_MS, BUSY_WAIT_MS, WAIT_MS]
