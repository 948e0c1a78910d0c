"""The stages of consuming by themselves: how events are tried and tried again, and the rules of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from shared.broker.base import Delivery
from shared.consuming.batch import Status, Work, retry_with_followers
from shared.consuming.claiming import Claiming
from shared.consuming.claims import Claims, _keys
from shared.envelope import Envelope
from shared.errors import BusinessError, DelayError, TransientError, UnavailableError
from tests.unit.stages import (
    DEAD,
    DONE,
    RETRIED,
    SUBSCRIPTION,
    Transactions,
    attempts,
    batch_of,
    settings_with,
    statuses,
)


async def test_a_batch_without_failures_is_one_transaction() -> None:
    batch, transactions = batch_of("a", "b", "c"), Transactions(lambda _: None)
    await attempts(transactions.run).run(batch)
    assert (transactions.begun, statuses(batch)) == (["012"], [DONE] * 3)


async def test_a_batch_that_fails_is_run_again_one_by_one_and_only_the_bad_event_is_put_aside() -> None:
    bad = KeyError("planted")
    batch, transactions = batch_of("a", "b", "c"), Transactions(lambda name: bad if name == "1" else None)
    await attempts(transactions.run, handler_attempts_max=2).run(batch)
    assert transactions.begun == ["012", "0", "1", "1", "2"]
    assert statuses(batch) == [DONE, DEAD, DONE]
    assert batch.works["/tests", "1"].error is bad


@pytest.mark.parametrize("error", [BusinessError("never"), DelayError("not yet", delay_s=9)])
async def test_what_no_short_retry_changes_is_tried_once(error: Exception) -> None:
    batch, transactions = batch_of("a"), Transactions(lambda _: error)
    await attempts(transactions.run, handler_attempts_max=5).run(batch)
    assert (transactions.begun, statuses(batch)) == (["0"], [DEAD])


async def test_no_short_retry_begins_after_its_time() -> None:
    batch, transactions = batch_of("a"), Transactions(lambda _: TransientError("planted"))
    await attempts(transactions.run, handler_attempts_max=10, handler_retry_max_s=0.0001).run(batch)
    assert (transactions.begun, statuses(batch)) == (["0"], [DEAD])


async def test_a_lost_server_sends_the_whole_batch_back_and_blames_no_event() -> None:
    batch, transactions = batch_of("a", "b"), Transactions(lambda _: UnavailableError("planted"))
    await attempts(transactions.run).run(batch)
    assert (transactions.begun, statuses(batch)) == (["01"], [RETRIED] * 2)


async def test_a_server_that_is_back_in_time_is_waited_for() -> None:
    answers = iter([UnavailableError("planted"), UnavailableError("planted"), None])
    batch, transactions = batch_of("a"), Transactions(lambda _: next(answers))
    await attempts(transactions.run, outage_hold_s=60).run(batch)
    assert (transactions.begun, statuses(batch)) == (["0"] * 3, [DONE])


async def test_one_by_one_a_lost_server_sends_back_the_rest_but_not_what_is_done() -> None:
    lost = {"1": UnavailableError("planted")}
    batch, transactions = batch_of("a", "b", "c"), Transactions(lost.get)
    await attempts(transactions.run).run_each(list(batch.works.values()))
    assert (transactions.begun, statuses(batch)) == (["0", "1"], [DONE, RETRIED, RETRIED])


async def test_side_by_side_every_event_has_a_transaction_of_its_own_and_those_of_a_key_their_order() -> None:
    turns = {"0": 20, "1": 10, "2": 1, "3": 1}  # without the order of keys, the later ones would end first
    ended: list[str] = []

    async def transact(works: Sequence[Work]) -> None:
        [work] = works
        for _ in range(turns[work.envelope.id]):
            await asyncio.sleep(0)
        work.status = DONE
        ended.append(work.envelope.id)

    batch = batch_of("a", "b", "a", "b")
    await attempts(transact, outside_effects=True, outage_hold_s=60).run(batch)
    assert (ended, statuses(batch)) == (["1", "3", "0", "2"], [DONE] * 4)


async def test_side_by_side_a_lost_server_sends_back_what_has_not_begun_but_not_what_is_done() -> None:
    lost = {"2": UnavailableError("planted")}
    batch, transactions = batch_of("a", "b", "c", "c", "d"), Transactions(lost.get)
    hold = {"outage_hold_s": 20, "retry_wait_initial_s": 30, "retry_wait_max_s": 30}  # no wait is short enough
    await attempts(transactions.run, outside_effects=True, concurrency=1, **hold).run(batch)
    assert transactions.begun == ["0", "1", "2"]
    assert statuses(batch) == [DONE, DONE, RETRIED, RETRIED, RETRIED]
    assert [batch.works["/tests", name].error for name in "23"] == [lost["2"]] * 2


async def test_side_by_side_what_has_not_begun_in_time_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("shared.consuming.attempts.time", SimpleNamespace(monotonic=lambda: now))
    took = {"0": 9.0, "1": 1.0, "2": 0.5}

    def pass_time(name: str) -> None:
        nonlocal now
        now += took[name]

    batch, transactions = batch_of("a", "b", "c", "c", "c"), Transactions(pass_time)
    await attempts(transactions.run, outside_effects=True, concurrency=1, outage_hold_s=10).run(batch)
    assert transactions.begun == ["0", "1", "2"], "within ten seconds to the last"
    assert statuses(batch) == [DONE, DONE, DONE, RETRIED, RETRIED]
    errors = [work.error for work in batch.works.values() if work.status is RETRIED]
    assert [str(error) for error in errors] == ["the batch takes too long"] * 2
    assert all(isinstance(error, UnavailableError) for error in errors)


async def test_leaving_the_heartbeat_ends_it_although_the_client_swallows_a_cancellation() -> None:
    class Swallowing(Claims):
        """As `asyncio.wait_for` of Python 3.11 does, within the client, when the answer comes at that moment."""

        beats = 0
        beating = asyncio.Event()

        async def _beat(self) -> None:
            self.beats += 1
            if self.beats == 2:  # the first of the pulse's own
                self.beating.set()
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

    async def live_and_leave() -> None:
        async with claims.heartbeat():
            await claims.beating.wait()

    claims = Swallowing(
        settings_with(redis_url="redis://127.0.0.1:1", heartbeat_interval_s=0.001, heartbeat_ttl_s=1)
    )
    done, _ = await asyncio.wait([asyncio.create_task(live_and_leave())], timeout=10)
    assert done, "the heartbeat is awaited for ever"
    await claims.close()


class SlowlyMarking(Claims):
    """Redis that answers to a marking when it is told to; the ids that were marked."""

    def __init__(self) -> None:
        super().__init__(settings_with(redis_url="redis://127.0.0.1:1"))
        self.answers = asyncio.Event()
        self.marked: list[str] = []

    async def done(self, subscriber: str, events: Sequence[Envelope]) -> None:
        await self.answers.wait()
        self.marked += [f"{subscriber}:{event.id}" for event in events]


def claiming(claims: Claims) -> Claiming:
    metrics: Any = None  # marking counts nothing
    return Claiming(settings_with(), SUBSCRIPTION, claims, metrics)


async def test_nothing_waits_for_a_marking_but_the_next_one_and_the_end() -> None:
    claims = SlowlyMarking()
    stage = claiming(claims)
    await stage.mark_done(list(batch_of("a", "b").works.values()))
    second = asyncio.create_task(stage.mark_done(list(batch_of("c").works.values())))
    closing = asyncio.create_task(claims.close())
    for _ in range(5):
        await asyncio.sleep(0)
    assert claims.marked == []
    assert not second.done()
    assert not closing.done()
    claims.answers.set()
    await asyncio.wait_for(second, 5)
    await asyncio.wait_for(closing, 5)
    await stage.marked()
    assert claims.marked == ["tester:0", "tester:1", "tester:0"]


async def test_redis_that_is_lost_while_it_is_told_is_left_alone_for_a_while() -> None:
    class Lost(SlowlyMarking):
        async def done(self, subscriber: str, events: Sequence[Envelope]) -> None:
            self.marked += [f"{subscriber}:{event.id}" for event in events]
            raise UnavailableError("planted")

    claims = Lost()
    stage = claiming(claims)
    for _ in range(3):
        await stage.mark_done(list(batch_of("a").works.values()))
    await stage.marked()
    await claims.close()
    assert claims.marked == ["tester:0"]


async def test_a_marking_that_fails_for_another_reason_is_told_to_the_next() -> None:
    class Broken(SlowlyMarking):
        async def done(self, subscriber: str, events: Sequence[Envelope]) -> None:
            raise KeyError(subscriber, len(events))

    claims = Broken()
    stage = claiming(claims)
    await stage.mark_done(list(batch_of("a").works.values()))
    with pytest.raises(KeyError, match="tester"):
        await stage.mark_done([])
    await claims.close()


# -- the batch's own rules


def test_what_is_held_is_retried_with_what_follows_under_its_key_and_nothing_else() -> None:
    batch = batch_of("a", "b", "a", "b", "a")
    works = list(batch.works.values())
    works[4].status = DONE
    retry_with_followers([works[1], works[2]], works)
    assert statuses(batch) == [None, RETRIED, RETRIED, RETRIED, DONE]


def test_an_event_is_suspect_while_it_is_open_and_was_taken_up_before() -> None:
    batch = batch_of("a", "b")
    assert not batch.has_suspects()
    batch.works["/tests", "1"].attempt = 2
    assert batch.has_suspects()
    batch.works["/tests", "1"].status = Status.DUPLICATE
    assert not batch.has_suspects()


@pytest.mark.parametrize(
    ("status", "first", "again"),
    [(DONE, DONE, Status.DUPLICATE), (DEAD, DEAD, Status.DUPLICATE), (RETRIED, RETRIED, RETRIED)],
)
def test_a_second_delivery_of_an_event_is_a_duplicate_unless_the_event_is_retried(
    status: Status, first: Status, again: Status
) -> None:
    batch = batch_of("a")
    [work] = batch.works.values()
    twin = Delivery(b"", {}, "thing", "a", redelivered=True, position="thing#9", token=None)
    work.deliveries.append(twin)
    batch.deliveries = [*batch.deliveries, twin]
    work.status = status
    batch.close()
    assert batch.outcome() == [first, again]


@pytest.mark.parametrize("sources", [["/a", "/a"], ["/a", "/b"], ["/a"], ["", "/a"], []])
def test_a_claim_has_the_same_key_whatever_else_is_claimed(sources: list[str]) -> None:
    events = [Envelope(source=source, type="t", id=f"id-{at}", data={}) for at, source in enumerate(sources)]
    start, rests = _keys("tester", events)
    assert [start + rest for rest in rests] == [f"tandem:claim:tester:{event.identity}" for event in events]
