"""What runs beside the orders is asked on time, and what is wrong of it is found, each kind in its own words."""

from __future__ import annotations

import asyncio

import pytest

from experiment.beside.checks import spread_of, wrong_job, wrong_requests
from experiment.beside.company import ask_on_time
from experiment.beside.graphs import expected, steps_of
from experiment.beside.process import service_of
from experiment.beside.running import graph
from experiment.beside.submitting import Asked
from experiment.beside.subscribing import names, places
from experiment.clock import Clock
from shared.jobs.flatten import flatten

ANSWERED = {"a": True, "b": True}
EFFECTS = {"a": 1, "b": 1}
CHAIN, GROUP = 4, 5
"""Numbers of a chain and of a group."""
EVENTS = [("ada", 1), ("ada", 2)]
ROWS = [(name, key, version, 10.0 * version + n) for n, name in enumerate(names(2)) for key, version in EVENTS]


@pytest.mark.parametrize(
    ("answered", "unanswered", "effects", "wrong"),
    [
        (ANSWERED, (), EFFECTS, []),
        (ANSWERED, ("c", "d"), {**EFFECTS, "c": 1}, []),
        (ANSWERED, (), {"a": 1}, ["answered without an effect: b"]),
        ({"a": True, "b": False}, (), EFFECTS, ["another answer: b"]),
        (ANSWERED, (), {"a": 1, "b": 2}, ["done twice: b"]),
        (ANSWERED, ("c",), {**EFFECTS, "c": 2}, ["done twice: c"]),
        (ANSWERED, (), {**EFFECTS, "x": 1}, ["never asked: x"]),
    ],
)
def test_an_answer_has_its_effect_and_none_is_done_twice(
    answered: dict[str, bool], unanswered: tuple[str, ...], effects: dict[str, int], wrong: list[str]
) -> None:
    assert wrong_requests(answered, unanswered, effects) == wrong


@pytest.mark.parametrize("number", [CHAIN, GROUP])
@pytest.mark.parametrize("steps", [2, 5])
def test_a_graph_has_as_many_steps_as_is_said(number: int, steps: int) -> None:
    assert len(flatten(graph(Asked(number=number, steps=steps))).steps) == steps_of(number, steps)


@pytest.mark.parametrize(
    ("number", "state", "result", "effects", "wrong"),
    [
        (CHAIN, "succeeded", "6", [1, 1, 1], None),
        (GROUP, "succeeded", "18", [1, 1, 1, 1], None),
        (CHAIN, "lost", None, [], "is lost"),
        (CHAIN, "running", None, [1], "is running"),
        (CHAIN, "succeeded", "7", [1, 1, 1], "the result is 7 and not 6"),
        (CHAIN, "succeeded", None, [1, 1, 1], "the result is None and not 6"),
        (GROUP, "succeeded", "18", [1, 1, 1, 2], "its 4 steps left [1, 1, 1, 2] effects, and not one each"),
        (GROUP, "succeeded", "18", [0, 1, 1, 1], "its 4 steps left [0, 1, 1, 1] effects, and not one each"),
        (GROUP, "succeeded", "18", [1, 1, 1], "its 4 steps left [1, 1, 1] effects, and not one each"),
    ],
)
def test_a_job_ends_with_its_result_and_one_effect_for_each_step(
    number: int, state: str, result: str | None, effects: list[int], wrong: str | None
) -> None:
    found = wrong_job(number, 3, state, result, effects)
    assert found == ([] if wrong is None else [f"job of graph {number}: {wrong}"])


def test_the_result_of_a_chain_is_the_last_number_and_of_a_group_the_sum() -> None:
    assert (expected(CHAIN, 3), expected(GROUP, 3)) == (4 + 1 + 1, 5 + 6 + 7)


def test_the_last_effect_of_an_event_is_that_of_its_slowest_subscriber() -> None:
    spread = spread_of(EVENTS, names(2), ROWS)
    assert spread.wrong == []
    assert spread.last_s == {("ada", 1): 11.0, ("ada", 2): 21.0}


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        (ROWS[1:], "no effect: order ada version 1 with beside-1"),
        ([*ROWS, ROWS[3]], "effect twice: order ada version 2 with beside-2"),
        ([ROWS[1], ROWS[0], *ROWS[2:]], "out of order: order ada version 1 with beside-1"),
    ],
)
def test_an_effect_that_is_missing_doubled_or_late_is_found(
    rows: list[tuple[str, str, int, float]], wrong: str
) -> None:
    assert spread_of(EVENTS, names(2), rows).wrong == [wrong]


def test_of_many_that_are_wrong_each_counts() -> None:
    assert len(wrong_requests({str(n): True for n in range(250)}, (), {})) == 250


async def test_who_does_not_answer_holds_up_nobody_who_comes_later() -> None:
    began: list[int] = []
    all_began = asyncio.Event()

    async def ask(number: int, due_s: float) -> None:
        began.append(number)
        if len(began) == 5:
            all_began.set()
        await all_began.wait()
        assert clock.now_s() >= due_s

    clock = Clock()
    async with asyncio.timeout(10):
        await ask_on_time(ask, per_s=100, duration_s=0.05, clock=clock)
    assert began == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("arguments", "queues"), [(["fan-out", "3"], [f"beside-{n}.order" for n in (1, 2, 3)])])
def test_what_is_deleted_afterwards_is_what_the_subscribers_have(arguments: list[str], queues: list[str]) -> None:
    subscribers = service_of(arguments).subscribers
    assert [f"{each.name}.{each.channel}" for each in subscribers] == queues
    assert [place.queue for place in places(3)] == queues
    assert {each.types for each in subscribers} == {place.types for place in places(3)}
