"""The stages of consuming by themselves: how events are tried and tried again, and the rules of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.broker.base import Delivery
from shared.consuming.batch import Status, Work, retry_with_followers
from shared.consuming.intake import transactions_at_once
from shared.errors import BusinessError, DelayError, TransientError, UnavailableError
from tests.unit.stages import (
    DEAD,
    DONE,
    RETRIED,
    Slept,
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
    bad = KeyError("planted" * 100)
    batch, transactions = batch_of("a", "b", "c"), Transactions(lambda name: bad if name == "1" else None)
    with capture_logs() as logs:
        await attempts(transactions.run, handler_attempts_max=2).run(batch)
    assert transactions.begun == ["012", "0", "1", "1", "2"]
    assert statuses(batch) == [DONE, DEAD, DONE]
    assert [work.error for work in batch.works.values()] == [None, bad, None]
    assert logs == [
        {
            "event": "pipeline.isolating",
            "queue": "tester.thing",
            "count": 3,
            "error": repr(bad)[:500],
            "log_level": "info",
        }
    ]


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
    lost = UnavailableError("planted")
    batch, transactions = batch_of("a", "b"), Transactions(lambda _: lost)
    await attempts(transactions.run).run(batch)
    assert (transactions.begun, statuses(batch)) == (["01"], [RETRIED] * 2)
    assert [work.error for work in batch.works.values()] == [lost] * 2


async def test_a_server_that_is_back_in_time_is_waited_for() -> None:
    answers = iter([UnavailableError("planted"), UnavailableError("planted"), None])
    batch, transactions = batch_of("a"), Transactions(lambda _: next(answers))
    await attempts(transactions.run, outage_hold_s=60).run(batch)
    assert (transactions.begun, statuses(batch)) == (["0"] * 3, [DONE])


WAITS: dict[str, Any] = {"retry_wait_initial_s": 1, "retry_wait_max_s": 3}


async def test_each_short_retry_waits_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = Slept(monkeypatch, "shared.consuming.attempts")
    batch, transactions = batch_of("a"), Transactions(lambda _: TransientError("planted"))
    await attempts(transactions.run, handler_attempts_max=5, handler_retry_max_s=60, **WAITS).run(batch)
    assert (slept.asked_for, len(transactions.begun)) == ([1, 2, 3, 3], 5)


async def test_a_lost_server_is_waited_for_to_the_end_of_its_time_longer_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept = Slept(monkeypatch, "shared.consuming.attempts")
    batch, transactions = batch_of("a"), Transactions(lambda _: UnavailableError("planted"))
    with capture_logs() as logs:
        await attempts(transactions.run, outage_hold_s=6, **WAITS).run(batch)
    assert (slept.asked_for, len(transactions.begun)) == ([1, 2, 3], 4), "six seconds, and not one more"
    told = {"event": "pipeline.waiting", "queue": "tester.thing", "error": "planted", "log_level": "warning"}
    assert logs == [told] * 3


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


# -- several transactions at once

HOLD: dict[str, Any] = {"outage_hold_s": 60, "transactions_max": 2}


async def test_what_does_not_fit_into_a_transaction_is_so_many_at_once_and_in_order_per_key() -> None:
    turns = {"0": 9, "1": 5, "2": 1, "3": 1, "4": 1}  # without the order of keys, the later ones would end first
    running: set[str] = set()
    at_once, ended = [], []

    async def transact(works: Sequence[Work]) -> None:
        [work] = works
        running.add(work.envelope.id)
        at_once.append(len(running))
        for _ in range(turns[work.envelope.id]):
            await asyncio.sleep(0)
        running.discard(work.envelope.id)
        work.status = DONE
        ended.append(work.envelope.id)

    batch = batch_of("a", "b", "a", "b", "c")
    await attempts(transact, batch_max=1, **HOLD).run(batch)
    assert (ended, statuses(batch), max(at_once)) == (["1", "3", "4", "0", "2"], [DONE] * 5, 2)


@pytest.mark.parametrize(
    ("batch_max", "keys", "begun"),
    [
        (5, "abcab", ["01234"]),  # as it came, where one holds all
        (2, "aabaab", ["01", "34", "25"]),
        (2, "abacbd", ["02", "14", "35"]),
        (3, "abbbb", ["012", "34"]),  # keys that are joined are one behind the other
        (2, "aaabc", ["01", "2", "34"]),
        (4, "abcde", ["0123", "4"]),
    ],
)
async def test_a_transaction_holds_as_many_as_it_may_and_whole_keys_if_they_fit(
    batch_max: int, keys: str, begun: list[str]
) -> None:
    batch, transactions = batch_of(*keys), Transactions(lambda _: None)
    await attempts(transactions.run, batch_max=batch_max, outage_hold_s=60, transactions_max=1).run(batch)
    assert (transactions.begun, set(statuses(batch))) == (begun, {DONE})


async def test_an_event_that_is_tried_again_holds_back_its_key_and_nobody_else() -> None:
    failures = {"0": [TransientError("planted")] * 2}

    def outcome(name: str) -> Exception | None:
        return failures[name].pop() if failures.get(name) else None

    batch, transactions = batch_of("a", "b", "a", "c", "d"), Transactions(outcome)
    await attempts(transactions.run, batch_max=1, handler_attempts_max=3, **HOLD).run(batch)
    assert statuses(batch) == [DONE] * 5
    assert [name for name in transactions.begun if name in "02"] == ["0", "0", "0", "2"]
    assert transactions.begun.index("4") < transactions.begun.index("2"), "the others went on meanwhile"


async def test_what_fails_is_run_one_by_one_with_those_of_its_transaction_alone() -> None:
    bad = KeyError("planted")
    batch, transactions = batch_of("a", "b", "c", "d"), Transactions(lambda name: bad if name == "1" else None)
    await attempts(transactions.run, batch_max=2, handler_attempts_max=1, **HOLD | {"transactions_max": 1}).run(
        batch
    )
    assert (transactions.begun, statuses(batch)) == (["01", "0", "1", "23"], [DONE, DEAD, DONE, DONE])


@pytest.mark.parametrize(("batch_max", "begun"), [(1, ["0", "1"]), (2, ["02", "13"])])
async def test_of_several_transactions_a_lost_server_sends_back_its_own_key_and_what_has_not_begun(
    batch_max: int, begun: list[str]
) -> None:
    lost = {"1": UnavailableError("planted")}
    batch, transactions = batch_of("a", "b", "a", "b", "b", "c"), Transactions(lost.get)
    hold = HOLD | {"outage_hold_s": 20, "retry_wait_initial_s": 30, "retry_wait_max_s": 30, "transactions_max": 1}
    await attempts(transactions.run, batch_max=batch_max, **hold).run(batch)
    done = [name for name in "02" if name in "".join(transactions.begun)]
    assert statuses(batch) == [DONE if str(place) in done else RETRIED for place in range(6)]
    assert [name for name in transactions.begun if name != "2"] == begun
    assert {batch.works["/tests", name].error for name in "134"} == {lost["1"]}


@pytest.mark.parametrize(
    ("overrides", "at_once"),
    [
        ({}, 4),
        ({"transactions_max": 3}, 3),
        ({"transactions_max": 50}, 5),  # half of a pool of ten
        ({"transactions_max": 50, "postgres_pool_max": 100}, 50),
        ({"transactions_max": 50, "postgres_pool_max": 1}, 1),
    ],
)
def test_so_many_transactions_run_at_once_and_half_of_the_pool_is_left(
    overrides: dict[str, Any], at_once: int
) -> None:
    assert transactions_at_once(settings_with(**overrides)) == at_once


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
