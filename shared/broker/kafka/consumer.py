"""Consumes one Kafka subscription: one poll is one batch, one commit closes it, beside the next poll.

While a full batch is being handled the next one is read and taken up: so the client's position may lie behind a
batch of which nothing is settled. A RETRY reads the partition again from there: what follows it in the partition
is delivered once more too, and what was taken up behind it is abandoned.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from aiokafka import TopicPartition

from shared.broker.base import BatchHandler, Delivery, Settlement, Subscription
from shared.broker.batches import Ahead, BatchInHand, takes_ahead
from shared.broker.kafka.clients import GOODBYE_S, end_outright, ended
from shared.broker.kafka.clock import KafkaClock
from shared.broker.kafka.commits import Commits, Offsets
from shared.broker.kafka.errors import LOST
from shared.broker.kafka.handover import Handover
from shared.broker.kafka.internals import consumed_offsets, known_ends
from shared.broker.kafka.reader import Reader, Run, runs_of
from shared.broker.kafka.replies import asked
from shared.broker.kafka.sent import sent_as
from shared.broker.kafka.unreadable import Record, content_is_to_blame, weight_of

_log = structlog.get_logger(__name__)

_POLL_MS = 500
_RETRY_PAUSE_S = 1.0
_FAILED_POLLS_MAX = 5
_REJOIN_TIMEOUT_S = 20.0


class Waiting(NamedTuple):
    """Where a partition goes on in which something waits."""

    settled: int
    held_back: bool = False
    """By a transaction that is open: nothing else is left to read."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll brought, in its handler's hands."""

    records: Sequence[Record]
    runs: Sequence[Run]
    weight: int
    """About how many bytes of memory they take."""
    work: BatchInHand
    read_in: int | None
    """The assignment that its partitions were ours by."""

    @property
    def starts(self) -> dict[TopicPartition, int]:
        """Where it begins in each partition."""
        return {run.partition: self.records[run.start].offset for run in reversed(self.runs)}

    def ends(
        self, settlements: Sequence[Settlement]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Up to where each partition is settled, and from where those are read again in which one is a RETRY."""
        settled: dict[TopicPartition, int] = {}
        again: dict[TopicPartition, int] = {}
        if settlements.count(Settlement.ACK) == len(settlements):  # nearly always
            return {run.partition: self.records[run.end - 1].offset + 1 for run in self.runs}, again
        for partition, start, end in self.runs:
            if partition in again:
                continue
            stop = next((at for at in range(start, end) if settlements[at] is not Settlement.ACK), end)
            if stop > start:
                settled[partition] = self.records[stop - 1].offset + 1
            if stop < end:
                again[partition] = self.records[stop].offset
        return settled, again


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
        self._reader = Reader(subscription, subscriber, handover)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._commits = Commits(self.queue, handover)
        self._ahead: Ahead[Batch] = Ahead()
        self._settled: Offsets = {}
        """Up to where each partition is, while reading is ahead of that."""
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
            await end_outright(consumer)

    async def _work(self) -> None:
        failures = 0
        trouble: Exception | None = None
        try:
            while not self._stopping.is_set():
                try:
                    # A poll that failed may have dropped records that it had moved past already: what follows them
                    # must not be committed, so the next one begins where the group stands.
                    batch = await _unless(self._stopping, self._next() if trouble is None else self._recover())
                    pause = trouble is not None and batch is None
                    if trouble is None or (batch is not None and content_is_to_blame(trouble)):
                        failures = 0
                    trouble = self.trouble = None
                    pause |= await (self._pass_by_markers() if batch is None else self._work_off(batch))
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
        finally:
            await self._drop_ahead()
        await self._commits.end()

    async def _next(self) -> Batch | None:
        """The batch that was taken up, or the next that comes."""
        batch = await self._ahead.take()
        if batch is not None and self._handover.rebalances in {batch.read_in, None}:
            return batch
        if batch is not None:  # its partitions may be another's now, who goes on behind what is committed
            await batch.work.abandon()
            self._handover.let_go()
        self._settled = {}
        records, weight = await self._reader.poll(_POLL_MS)
        return self._take(records, weight) if records else None

    async def _recover(self) -> Batch | None:
        """The next batch from where the group stands."""
        await self._drop_ahead()
        self._settled = {}
        await self._commits.end()
        records = await self._reader.recover()
        return self._take(records, weight_of(records)) if records else None

    def _take(self, records: Sequence[Record], weight: int) -> Batch:
        """Have them in hand, until `Handover.let_go`."""
        deliveries = _deliveries(records, self._subscription, self.clock)
        self._handover.hold()
        work = BatchInHand(self._handler, deliveries)
        return Batch(records, runs_of(records), weight, work, self._handover.rebalances)

    async def _take_ahead(self, held: int) -> Batch | None:
        """Take up what is here beside the batch that is being handled, which weighs so much."""
        if held >= self._subscription.in_flight_bytes_max:
            return None
        await self._commits.ended()  # until then what it settles is in flight, too
        records, weight = await self._reader.poll(0, held)
        if not records:
            return None
        batch = self._take(records, weight)
        try:
            await batch.work.prepare()
        except asyncio.CancelledError:
            self._handover.let_go()
            raise
        return batch

    async def _drop_ahead(self) -> bool:
        """Abandon what is taken up; True when reading may be ahead of what is settled."""
        begun = self._ahead.begun
        if await self._ahead.drop() is not None:
            self._handover.let_go()
        return begun

    async def _work_off(self, batch: Batch) -> bool:
        """Have a batch handled, and settle it; True when something is to be retried after a pause."""
        try:
            passed, rebalances = consumed_offsets(self._subscriber.consumer), self._handover.rebalances
            self._settled = {**passed, **batch.starts}
            if takes_ahead(self._handler, self._subscription, len(batch.records)):
                await batch.work.prepare()
                self._ahead.begin(self._take_ahead(batch.weight), f"ahead-{self.queue}")
            settlements = await batch.work.run()
            if rebalances != self._handover.rebalances:
                passed = {}
            again = await self._settle(batch, settlements, passed)
            self._settled = {} if again else passed
            if again and await self._drop_ahead():
                await self._reader.go_back()
            return again
        finally:
            self._handover.let_go()

    async def _settle(self, batch: Batch, settlements: Sequence[Settlement], passed: Offsets) -> bool:
        """Commit each partition up to its first RETRY and read on from there; True when one is read again.

        `passed` is where reading went on when the batch was the last that was read.
        """
        commits, rewinds = batch.ends(settlements)
        missing = self._commits.missing(passed)
        commits |= {tp: max(offset, commits.get(tp, 0)) for tp, offset in missing.items() if tp not in rewinds}
        lost = await self._commits.end()  # of the batch before: this one comes again behind it
        if commits and lost is None:
            self._commits.begin(self._subscriber.consumer, commits, batch.starts, len(batch.records))
            if rewinds or not self._subscription.room_for_two:  # for the next, while this one is being settled
                lost = await self._commits.end()
        if lost is not None:
            rewinds = {**batch.starts, **lost}
        self._reader.read_from(rewinds)
        return bool(rewinds)

    async def _pass_by_markers(self) -> bool:
        """Commit what a poll without records has moved past: it would count as waiting for ever. True when that
        failed, and is to be tried again after a pause."""
        lost = await self._commits.end()
        passed = self._commits.missing(consumed_offsets(self._subscriber.consumer))
        if lost is None and passed:
            self._commits.begin(self._subscriber.consumer, passed, {}, 0)
            lost = await self._commits.end()
        self._reader.read_from(lost or {})
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
        settled, ends = {**consumed_offsets(consumer), **self._settled}, known_ends(consumer)
        behind = {tp: at for tp, at in settled.items() if tp in ends and at < ends[tp].last}
        return {f"{tp.topic}/{tp.partition}": Waiting(at, at >= ends[tp].stable) for tp, at in behind.items()}

    async def _rejoin(self) -> None:
        """A consumer whose background tasks have ended never polls again: replace it."""
        await self._drop_ahead()
        await self._commits.end()
        await self._leave(GOODBYE_S)
        with contextlib.suppress(*LOST):
            async with asyncio.timeout(_REJOIN_TIMEOUT_S):
                await self._subscriber.start()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _RETRY_PAUSE_S)


async def _unless(stopping: asyncio.Event, source: Coroutine[Any, Any, Batch | None]) -> Batch | None:
    """What it returns; nothing when it is time to stop."""
    read = asyncio.create_task(source)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({read, stop}, return_when=asyncio.FIRST_COMPLETED)
        return await read if read.done() else None
    finally:
        stop.cancel()
        read.cancel()
        await asyncio.gather(stop, read, return_exceptions=True)


def text_headers(record: Record) -> dict[str, str]:
    """The headers as text; bytes that are not UTF-8 are escaped."""
    return {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in record.headers}


def _deliveries(records: Sequence[Record], subscription: Subscription, clock: KafkaClock | None) -> list[Delivery]:
    """Those with the same headers as the one before, as nearly all have, share what is read of them."""
    deliveries: list[Delivery] = []
    before: Any = None
    headers: Mapping[str, str] = {}
    topic, partition, place = "", -1, ""
    for record in records:
        if record.headers != before:
            before, headers = record.headers, text_headers(record)
        if record.partition != partition or record.topic != topic:
            topic, partition = record.topic, record.partition
            place = f"{topic}/{partition}@"
        deliveries.append(
            Delivery(
                body=record.value or b"",
                headers=headers,
                channel=subscription.channel,
                key=None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
                redelivered=False,
                position=f"{place}{record.offset}",
                token=record,
                asked=None if clock is None else asked(record, headers, clock),
                sent=sent_as,
            )
        )
    return deliveries
