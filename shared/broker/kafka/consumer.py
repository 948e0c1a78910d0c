"""Consumes one Kafka subscription: one poll is one batch, one commit closes it, beside the next poll.

A RETRY reads the partition again from there: what follows it in the partition is delivered once more too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError

from shared.broker.base import BatchHandler, Delivery, Settlement, Subscription
from shared.broker.batches import settle_as_retry
from shared.broker.kafka.clients import GOODBYE_S, ended
from shared.broker.kafka.clock import KafkaClock
from shared.broker.kafka.commits import Commits, Offsets
from shared.broker.kafka.errors import LOST
from shared.broker.kafka.handover import Handover
from shared.broker.kafka.internals import client_of, consumed_offsets, known_ends
from shared.broker.kafka.replies import asked
from shared.broker.kafka.sent import sent_as
from shared.broker.kafka.unreadable import (
    Record,
    TolerantReader,
    committed_positions,
    content_is_to_blame,
    weight_of,
)

_log = structlog.get_logger(__name__)

_POLL_MS = 500
_PORTION_RECORDS = 16
_RETRY_PAUSE_S = 1.0
_FAILED_POLLS_MAX = 5
_REJOIN_TIMEOUT_S = 20.0
_RECOVERY_TIMEOUT_S = 10.0


class Waiting(NamedTuple):
    """Where a partition goes on in which something waits."""

    settled: int
    held_back: bool = False
    """By a transaction that is open: nothing else is left to read."""


class KafkaConsumer:
    """One subscription's deliveries, pulled from the consumer of a FastStream subscriber without handlers."""

    def __init__(
        self, subscription: Subscription, subscriber: Any, handover: Handover, handler: BatchHandler
    ) -> None:
        self.queue = subscription.queue
        self._subscription = subscription
        self._subscriber = subscriber
        self._handover = handover
        self._handler = handler
        self._batch_max = min(subscription.batch_max, subscription.in_flight_max)
        self._tolerant = TolerantReader(subscription)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._overlaps = 2 * self._batch_max <= subscription.in_flight_max
        """While a batch is being settled, there is room for the next."""
        self._commits = Commits(self.queue, handover)
        self._in_hand: dict[TopicPartition, int] = {}
        """Where what is being handled begins."""
        self.clock: KafkaClock | None = None
        """By which requests grow old, where they come."""
        self.trouble: Exception | None = None
        """What keeps it from reading, when it has failed more than once."""

    async def start(self) -> None:
        """Join the group and begin to poll. Raises one of `LOST`."""
        await self._subscriber.start()
        self._task = asyncio.create_task(self._work(), name=f"work-{self.queue}")

    async def stop(self, grace_s: float) -> None:
        """Let the running batch commit within `grace_s`, then leave the group."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=grace_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._commits.give_up()
        self._handover.idle.set()
        await self._leave(grace_s)

    async def _leave(self, grace_s: float) -> None:
        consumer = self._subscriber.consumer
        if not await ended(self._subscriber.stop(), grace_s) and consumer is not None:
            await ended(client_of(consumer).close(), grace_s)

    async def _work(self) -> None:
        failures = 0
        trouble: Exception | None = None
        while not self._stopping.is_set():
            try:
                # A poll that failed may have dropped records that it had moved past already: what follows them
                # must not be committed, so the next one begins where the group stands.
                records = await self._next_batch(self._poll() if trouble is None else self._recover())
                pause = trouble is not None and not records
                if trouble is None or (records and content_is_to_blame(trouble)):
                    failures = 0
                trouble = self.trouble = None
                pause |= await (self._work_off(records) if records else self._pass_by_markers())
            except Exception as error:  # noqa: BLE001  a consumer that dies in silence is the worst of all
                failures += 1
                trouble = error
                pause = failures > 1
                self.trouble = error if pause and not content_is_to_blame(error) else None
                _log.warning("kafka.poll_failed", queue=self.queue, error=repr(error))
            if pause:
                await self._pause()
            if failures >= _FAILED_POLLS_MAX:
                await self._rejoin()
        await self._commits.end()

    async def _work_off(self, records: Sequence[Record]) -> bool:
        """Hand a batch over and settle it; True when something is to be retried after a pause."""
        try:
            runs = runs_of(records)
            for run in reversed(runs):
                self._in_hand[run.partition] = records[run.start].offset
            deliveries = _deliveries(records, self._subscription, self.clock)
            return await self._settle(records, runs, await settle_as_retry(self._handler, deliveries))
        finally:
            self._in_hand.clear()
            self._handover.let_go()

    async def _next_batch(self, source: Coroutine[Any, Any, Sequence[Record]]) -> Sequence[Record]:
        """The next records; nothing when it is time to stop."""
        poll = asyncio.create_task(source)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({poll, stop}, return_when=asyncio.FIRST_COMPLETED)
            return await poll if poll.done() else ()
        finally:
            stop.cancel()
            poll.cancel()
            await asyncio.gather(stop, poll, return_exceptions=True)

    async def _poll(self) -> Sequence[Record]:
        records = await _portion(self._subscriber.consumer, _POLL_MS, self._batch_max)
        rebalances, weight = self._handover.rebalances, weight_of(records)
        while records and len(records) < self._batch_max and weight < self._subscription.in_flight_bytes_max:
            # What is here already: it never waits.
            portion = await _portion(self._subscriber.consumer, 0, self._batch_max - len(records))
            if not portion or rebalances != self._handover.rebalances:
                break
            records += portion
            weight += weight_of(portion)
        if rebalances != self._handover.rebalances:
            return ()  # but it did, for others' partitions: what was ours comes again
        if records:  # in this very step, or a rebalance could find us idle with records in hand
            self._handover.hold()
        return records

    async def _recover(self) -> Sequence[Record]:
        """Go back to what is committed, and read on from there past what the client cannot read."""
        await self._commits.end()
        consumer, rebalances = self._subscriber.consumer, self._handover.rebalances
        async with asyncio.timeout(_RECOVERY_TIMEOUT_S):
            positions = await committed_positions(consumer)
            for partition, offset in positions.items():
                consumer.seek(partition, offset)
            records, reached = await self._tolerant.read(consumer, positions, self._batch_max)
        if rebalances is None or rebalances != self._handover.rebalances:
            return ()  # not ours any more, or ours again from another offset
        for partition, offset in reached.items():
            consumer.seek(partition, offset)
        if records:
            self._handover.hold()
        return records

    async def _settle(
        self, records: Sequence[Record], runs: Sequence[Run], settlements: Sequence[Settlement]
    ) -> bool:
        """Commit each partition up to its first RETRY and read on from there; True when one is read again."""
        commits: dict[TopicPartition, int] = {}
        rewinds: dict[TopicPartition, int] = {}
        starts: dict[TopicPartition, int] = {}
        for partition, start, end in runs:
            starts.setdefault(partition, records[start].offset)
            if partition in rewinds:
                continue
            settled = next((at for at in range(start, end) if settlements[at] is not Settlement.ACK), end)
            if settled > start:
                commits[partition] = records[settled - 1].offset + 1
            if settled < end:
                rewinds[partition] = records[settled].offset
        passed = self._commits.missing(self._subscriber.consumer)
        commits |= {tp: max(offset, commits.get(tp, 0)) for tp, offset in passed.items() if tp not in rewinds}
        lost = await self._commits.end()  # of the batch before: this one comes again behind it
        if commits and lost is None:
            self._commits.begin(self._subscriber.consumer, commits, starts, len(records))
            if rewinds or not self._overlaps:
                lost = await self._commits.end()
        if lost is not None:
            rewinds = {**starts, **lost}
        self._read_again_from(rewinds)
        return bool(rewinds)

    def _read_again_from(self, offsets: Offsets) -> None:
        for partition, offset in offsets.items():
            with contextlib.suppress(IllegalStateError):  # not ours any more: the next owner reads it
                self._subscriber.consumer.seek(partition, offset)

    async def _pass_by_markers(self) -> bool:
        """Commit what a poll without records has moved past: it would count as waiting for ever. True when that
        failed, and is to be tried again after a pause."""
        lost = await self._commits.end()
        passed = self._commits.missing(self._subscriber.consumer)
        if lost is None and passed:
            self._commits.begin(self._subscriber.consumer, passed, {}, 0)
            lost = await self._commits.end()
        self._read_again_from(lost or {})
        return lost is not None

    @property
    def settlement_failures(self) -> int:
        """How many messages come again although they were settled, since the group could not be told."""
        return self._commits.failures

    def waiting(self) -> dict[str, Waiting]:
        """How far each partition is settled where something waits; the group itself while it rebalances."""
        if self._handover.rebalances is None:
            return {self.queue: Waiting(0)}
        consumer = self._subscriber.consumer
        if consumer is None:
            return {}
        settled, ends = consumed_offsets(consumer) | self._in_hand, known_ends(consumer)
        behind = {tp: at for tp, at in settled.items() if tp in ends and at < ends[tp].last}
        return {f"{tp.topic}/{tp.partition}": Waiting(at, at >= ends[tp].stable) for tp, at in behind.items()}

    async def _rejoin(self) -> None:
        """A consumer whose background tasks have ended never polls again: replace it."""
        await self._commits.end()
        await self._leave(GOODBYE_S)
        with contextlib.suppress(*LOST):
            async with asyncio.timeout(_REJOIN_TIMEOUT_S):
                await self._subscriber.start()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _RETRY_PAUSE_S)


async def _portion(consumer: AIOKafkaConsumer, timeout_ms: int, count_max: int) -> list[Record]:
    """So few records that even large ones are not too much before they are weighed."""
    polled = await consumer.getmany(timeout_ms=timeout_ms, max_records=min(_PORTION_RECORDS, count_max))
    return [record for partition in polled.values() for record in partition]


def text_headers(record: Record) -> dict[str, str]:
    """The headers as text; bytes that are not UTF-8 are escaped."""
    return {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in record.headers}


class Run(NamedTuple):
    """Records of one partition, one after the other in a batch."""

    partition: TopicPartition
    start: int
    end: int


def runs_of(records: Sequence[Record]) -> list[Run]:
    """What a batch consists of, in its order."""
    runs: list[Run] = []
    topic, number, start = "", -1, 0
    for at, record in enumerate(records):
        if record.partition != number or record.topic != topic:
            if at:
                runs.append(Run(TopicPartition(topic, number), start, at))
            topic, number, start = record.topic, record.partition, at
    if records:
        runs.append(Run(TopicPartition(topic, number), start, len(records)))
    return runs


def _deliveries(records: Sequence[Record], subscription: Subscription, clock: KafkaClock | None) -> list[Delivery]:
    """Those with the same headers as the one before, as nearly all have, share what is read of them."""
    deliveries: list[Delivery] = []
    before: Any = None
    headers: Mapping[str, str] = {}
    for record in records:
        if record.headers != before:
            before, headers = record.headers, text_headers(record)
        deliveries.append(
            Delivery(
                body=record.value or b"",
                headers=headers,
                channel=subscription.channel,
                key=None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
                redelivered=False,
                position=f"{record.topic}/{record.partition}@{record.offset}",
                token=record,
                asked=None if clock is None else asked(record, headers, clock),
                sent=partial(sent_as, record),
            )
        )
    return deliveries
