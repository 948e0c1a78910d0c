"""Offsets are committed beside what a consumer does next; no partition is handed over before that has ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError

from shared.broker.base import Settlement, Subscription
from shared.broker.kafka.commits import Commits
from shared.broker.kafka.consumer import Batch, KafkaConsumer
from shared.broker.kafka.handover import Handover
from shared.broker.kafka.reader import Run, runs_of

ONE, OTHER = TopicPartition("topic", 1), TopicPartition("topic", 2)


class Consumer:
    """Answers when it is told to; the offsets that were committed."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.committed: list[dict[TopicPartition, int]] = []
        self.fails: Exception | None = None

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        await self.answers.wait()
        if self.fails is not None:
            raise self.fails
        self.committed.append(offsets)


async def rest() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def handed_over(handover: Handover) -> asyncio.Task[None]:
    revoking = asyncio.create_task(handover.on_partitions_revoked({ONE}))
    await rest()
    return revoking


async def test_partitions_are_handed_over_when_the_batch_and_its_commit_have_ended() -> None:
    handover, consumer = Handover(60), Consumer()
    own = Commits("queue", handover)
    handover.hold()  # the next batch, already
    own.begin(consumer, {ONE: 7}, {ONE: 2}, 5)
    revoking = await handed_over(handover)
    handover.let_go()
    await rest()
    assert not revoking.done(), "the commit is under way"
    consumer.answers.set()
    await asyncio.wait_for(revoking, 5)
    assert await own.end() is None
    assert (consumer.committed, own.failures) == ([{ONE: 7}], 0)


async def test_what_could_not_be_committed_comes_again_from_where_it_began() -> None:
    own, consumer = Commits("queue", Handover(60)), Consumer()
    consumer.fails = CommitFailedError()
    consumer.answers.set()
    own.begin(consumer, {ONE: 7, OTHER: 4}, {ONE: 2}, 5)
    assert await own.end() == {ONE: 2}
    assert await own.end() is None, "it is told once"
    assert own.failures == 5


async def test_an_unknown_error_is_not_taken_for_a_lost_group() -> None:
    own, consumer = Commits("queue", Handover(60)), Consumer()
    consumer.fails = KeyError("planted")
    consumer.answers.set()
    own.begin(consumer, {ONE: 7}, {ONE: 2}, 5)
    with pytest.raises(KeyError):
        await own.end()
    assert await own.end() is None


async def test_who_gives_up_leaves_nothing_behind() -> None:
    handover, consumer = Handover(60), Consumer()
    own = Commits("queue", handover)
    own.begin(consumer, {ONE: 7}, {ONE: 2}, 5)
    await own.give_up()
    assert await own.end() is None
    assert handover.idle.is_set()
    assert consumer.committed == []


async def test_what_is_committed_is_missing_again_after_a_rebalance() -> None:
    handover, consumer = Handover(60), Consumer()
    own, positions = Commits("queue", handover), {ONE: 7, OTHER: 4}
    assert own.missing(positions) == {}, "nothing is assigned yet"
    await handover.on_partitions_assigned({ONE, OTHER})
    consumer.answers.set()
    assert own.missing(positions) == {ONE: 7, OTHER: 4}
    own.begin(consumer, {ONE: 7, OTHER: 3}, {}, 0)
    await own.ended()
    assert await own.end() is None
    assert own.missing(positions) == {OTHER: 4}
    await handover.on_partitions_assigned({ONE, OTHER})
    assert own.missing(positions) == {ONE: 7, OTHER: 4}


async def test_who_waits_for_a_commit_leaves_its_outcome_to_others() -> None:
    own, consumer = Commits("queue", Handover(60)), Consumer()
    consumer.fails = CommitFailedError()
    own.begin(consumer, {ONE: 7}, {ONE: 2}, 5)
    waiting = asyncio.create_task(own.ended())
    await rest()
    assert not waiting.done()
    consumer.answers.set()
    await waiting
    assert await own.end() == {ONE: 2}


def test_a_batch_is_runs_of_partitions_in_its_order() -> None:
    places = [("topic", 1), ("topic", 1), ("topic", 2), ("other", 2), ("topic", 1)]
    records: list[Any] = [SimpleNamespace(topic=topic, partition=partition) for topic, partition in places]
    assert runs_of(records) == [
        Run(ONE, 0, 2),
        Run(OTHER, 2, 3),
        Run(TopicPartition("other", 2), 3, 4),
        Run(ONE, 4, 5),
    ]
    assert runs_of([]) == []


def test_a_partition_is_settled_up_to_its_first_retry_whatever_the_others_are() -> None:
    records: list[Any] = [
        SimpleNamespace(topic="topic", partition=partition, offset=offset)
        for partition, offset in [(1, 10), (1, 11), (2, 5), (1, 14), (1, 15), (2, 6)]
    ]
    work: Any = None
    batch = Batch(records, runs_of(records), 60, work, 1)
    ack, retry = Settlement.ACK, Settlement.RETRY
    assert batch.starts == {ONE: 10, OTHER: 5}
    assert batch.ends([ack] * 6) == ({ONE: 16, OTHER: 7}, {})
    assert batch.ends([ack, ack, ack, retry, ack, ack]) == ({ONE: 12, OTHER: 7}, {ONE: 14})
    assert batch.ends([ack, ack, retry, ack, ack, ack]) == ({ONE: 16}, {OTHER: 5})
    assert batch.ends([retry] * 6) == ({}, {ONE: 10, OTHER: 5})


@pytest.mark.parametrize("again", [False, True], ids=["still ours", "assigned anew"])
async def test_what_was_taken_up_before_a_rebalance_is_abandoned_after_it(again: bool) -> None:
    class Handler:
        abandoned = False

        async def __call__(self, batch: Any) -> Any: ...

        async def prepare(self, batch: Any) -> Any:
            return self

        async def run(self) -> Any: ...

        async def abandon(self) -> None:
            self.abandoned = True

    async def nothing(_wait_ms: int, _held: int = 0) -> tuple[list[Any], int]:
        return [], 0

    async def take_up() -> Batch:
        batch: Batch = consumer._take([record], 1)
        await batch.work.prepare()
        return batch

    handover, handler = Handover(60), Handler()
    subscription = Subscription(channel="order", subscriber="any", types=frozenset())
    consumer: Any = KafkaConsumer(subscription, None, handover, handler)
    consumer._reader.poll = nothing
    record = SimpleNamespace(topic="topic", partition=1, offset=3, value=b"", key=None, headers=())
    await handover.on_partitions_assigned({ONE})
    consumer._ahead.begin(take_up(), "ahead")
    await rest()
    assert not handover.idle.is_set()
    if again:
        await handover.on_partitions_assigned({ONE})
    batch = await consumer._next()
    assert (batch is None, handler.abandoned, handover.idle.is_set()) == (again, again, again)
