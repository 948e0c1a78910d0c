"""How much a consumer has Kafka's client fetch ahead: as much as the next batches take, however much there is.

aiokafka holds what it fetched of each partition until the last record of it is handed over, and the answer that it
was cut out of until the next one: a megabyte of each of twelve partitions was 24 MiB more with a backlog than
without, for three seconds' work of small events. It also has one request under way at a time, and one for
partitions that have nothing takes as long as it may: with half a second, a backlog of one partition stood still
for up to half of the time (docs/performance.md has the figures).
"""

from __future__ import annotations

from typing import NamedTuple

KIB, MIB = 2**10, 2**20

AHEAD_BYTES_MIN, AHEAD_BYTES_MAX = 4 * MIB, 12 * MIB
"""Of all partitions, as they are stored. The most is what batches of large events take."""
PARTITION_BYTES_MIN = 512 * KIB
"""Twice what our producer puts into one batch: there is always a whole one for each partition. Of what is larger
Kafka sends one batch, of one partition, with each answer."""
WAIT_MS, BUSY_WAIT_MS = 500, 50
"""For how long a request waits where nothing new is: with nothing to do, and with work that it would hold up."""
FEW_PARTITIONS = 5
"""With more that are behind there is enough to do for half a second: aiokafka asks for others when each that it
holds has lasted for a tenth."""
_BATCHES_AHEAD = 4


class Fetch(NamedTuple):
    """What one request asks for."""

    bytes_max: int
    """In its answer; Kafka sends one batch in any case."""
    partition_bytes_max: int
    wait_ms: int


FIRST_FETCH = Fetch(AHEAD_BYTES_MIN, PARTITION_BYTES_MIN, WAIT_MS)
"""While nothing is known of the events."""


def next_fetch(record_bytes: float, batch_max: int, in_flight_bytes_max: int, behind: int) -> Fetch:
    """By the mean weight of the last records, and how many partitions have more."""
    wanted = int(_BATCHES_AHEAD * batch_max * record_bytes)
    ahead = min(max(AHEAD_BYTES_MIN, wanted), AHEAD_BYTES_MAX, in_flight_bytes_max)
    share = max(PARTITION_BYTES_MIN, ahead // max(1, behind))
    return Fetch(ahead, share, BUSY_WAIT_MS if 0 < behind <= FEW_PARTITIONS else WAIT_MS)
