"""Signatures are checked when they are written down, and any nesting of them flattens to what it means."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from shared.errors import TransientError
from shared.jobs.arguments import RESULT_BYTES_MAX
from shared.jobs.context import JobContext
from shared.jobs.errors import BadArgumentsError, Reject, ResultTooLargeError
from shared.jobs.flatten import CARRIED_BYTES_MAX, Flat, carried, flatten
from shared.jobs.retries import Retry, retry_wait_s
from shared.jobs.signatures import Call, Chain, Group, Signature, chain, chord, group, job, map_over


class Money(BaseModel):
    amount: int
    currency: str = "EUR"


@job
def add(a: int, b: int) -> int:
    return a + b


@job(name="double", retries=Retry(5))
async def twice(a: int) -> int:
    return 2 * a


@job
def total(numbers: list[int]) -> int:
    return sum(numbers)


@job
def pay(money: Money, ctx: JobContext, *, note: str = "") -> Money:
    return money


@job
def tag(value: Any, name: str = "") -> list[Any]:
    """Keeps what it was given, so that no order and no nesting can be lost unseen."""
    return [name, value]


# -- arguments


def test_a_job_is_still_its_function() -> None:
    assert add(1, 2) == 3
    assert asyncio.run(twice(4)) == 8
    assert (add.name, twice.name) == ("add", "double")


def test_models_are_arguments_and_results() -> None:
    flat = flatten(pay.s(Money(amount=3), note="tea"))
    assert flat.steps[0].args == {"money": {"amount": 3, "currency": "EUR"}, "note": "tea"}
    assert pay.arguments.to_values(flat.steps[0].args) == {"money": Money(amount=3), "note": "tea"}
    assert pay.arguments.result_to_json(Money(amount=3)) == '{"amount":3,"currency":"EUR"}'


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        (add.s(1), "lacks b"),
        (add.s(1, 2, 3), "takes 2 arguments here, not 3"),
        (add.s(1, "two"), "should be a valid integer"),
        (add.s(1, b=2, c=3), "takes no c"),
        (add.s(1, 2, a=3), "a is given twice"),
        (chain(add.s(1, 2), add.s(1, 2)), "takes 1 arguments here, not 2"),
        (chain(add.s(1, 2), add.s(3, a=4)), "takes no a"),
        (pay.s({"amount": 1}, ctx=1), "takes no ctx"),
        (map_over(add, [1, 2]), "lacks b"),
    ],
)
def test_what_a_handler_does_not_take_is_refused_when_it_is_submitted(signature: Signature, said: str) -> None:
    with pytest.raises(BadArgumentsError, match=said):
        flatten(signature)


def test_a_parameter_without_a_type_is_refused_where_the_job_is_written() -> None:
    def untyped(a) -> int:  # type: ignore[no-untyped-def]
        return int(a)

    def starred(*numbers: int) -> int:
        return sum(numbers)

    with pytest.raises(TypeError, match="has no type"):
        job(untyped)
    with pytest.raises(TypeError, match="cannot be given by name"):
        job(starred)


def test_a_result_that_is_too_large_or_not_of_its_type_is_refused() -> None:
    with pytest.raises(ResultTooLargeError):
        tag.arguments.result_to_json(["x" * RESULT_BYTES_MAX])
    with pytest.raises(BadArgumentsError):
        add.arguments.result_to_json("three")


# -- retries


def test_attempts_are_waited_for_longer_each_time_and_end() -> None:
    retry = Retry(3, initial_s=1, max_s=3)
    waits = [retry_wait_s(retry, ValueError(), attempt, lambda: 1.0) for attempt in (1, 2, 3, 4)]
    assert waits == [1.0, 2.0, 3.0, None]


def test_what_is_rejected_or_not_among_the_exceptions_is_not_tried_again() -> None:
    assert retry_wait_s(Retry(3), Reject("no"), 1, lambda: 0.0) is None
    assert retry_wait_s(Retry(3, on=(TransientError,)), ValueError(), 1, lambda: 0.0) is None
    assert retry_wait_s(Retry(3, on=(TransientError,)), TransientError(), 1, lambda: 0.0) == 0.5


@pytest.mark.parametrize("bad", [{"times": -1}, {"initial_s": 0.0}, {"initial_s": 2, "max_s": 1}, {"max_s": 601}])
def test_retries_have_limits(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Retry(**bad)


# -- flattening


def test_a_group_before_one_call_needs_no_step_of_its_own() -> None:
    flat = flatten(chain(add.s(1, 2), group(add.s(3), twice.s()), then=total.s()))
    assert [step.job.name for step in flat.steps] == ["add", "add", "double", "total"]
    assert [(e.parent, e.child, e.position) for e in flat.edges] == [(0, 1, 0), (0, 2, 0), (1, 3, 0), (2, 3, 1)]
    assert (flat.form, [step.output for step in flat.steps]) == ("value", [None, None, None, 0])


def test_a_job_that_ends_in_a_group_has_the_list_of_its_results() -> None:
    flat = flatten(group(add.s(1, 2), add.s(3, 4)))
    assert (flat.form, [step.output for step in flat.steps]) == ("list", [0, 1])


def test_edges_stay_as_few_as_members_where_groups_follow_one_another() -> None:
    flat = flatten(chain(map_over(twice, range(100)), group(*(tag.s() for _ in range(100)))))
    assert (len(flat.steps), len(flat.edges)) == (201, 200)


def test_ten_thousand_steps_are_mapped_over() -> None:
    flat = flatten(map_over(add.s(1), range(10_000), then=total.s()))
    assert (len(flat.steps), len(flat.edges)) == (10_001, 10_000)
    assert flat.steps[7].args == {"a": 7, "b": 1}


def test_a_delay_stays_with_its_step() -> None:
    assert [step.delay_s for step in flatten(chain(add.s(1, 2).after(20), twice.s())).steps] == [20.0, 0.0]


def test_a_call_by_itself_is_a_chain_of_one() -> None:
    assert flatten(add.s(1, 2).after(3)) == flatten(chain(add.s(1, 2).after(3)))


def test_nothing_at_all_is_no_chain() -> None:
    with pytest.raises(ValueError, match="at least one"):
        chain()


# -- any graph means the same flat as nested


def evaluated(part: Signature, *inputs: Any) -> Any:
    """What a signature means: the plain calls, in this process. `inputs` are one or none."""
    if isinstance(part, Group):
        return [evaluated(member, *inputs) for member in part.members]
    if isinstance(part, Chain):
        for follower in part.parts:
            inputs = (evaluated(follower, *inputs),)
        return inputs[0]
    return part.job(*(inputs if part.takes_input else ()), *part.args, **(part.kwargs or {}))


def evaluated_flat(flat: Flat) -> Any:
    """What its steps and edges mean, one after the other."""
    results: list[Any] = []
    for index, step in enumerate(flat.steps):
        edges = sorted((e for e in flat.edges if e.child == index), key=lambda e: e.position)
        assert all(edge.parent < index for edge in edges)
        parents = [results[edge.parent] for edge in edges]
        inputs = {"nothing": [], "value": parents, "list": [parents]}[step.takes]
        results.append(step.job(**step.job.arguments.to_values(step.args, *inputs)))
    outputs = sorted((step.output, results[i]) for i, step in enumerate(flat.steps) if step.output is not None)
    return [result for _, result in outputs] if flat.form == "list" else outputs[0][1]


def calls(names: st.SearchStrategy[str]) -> st.SearchStrategy[Call]:
    return st.builds(lambda name, alone: tag.si(None, name) if alone else tag.s(name=name), names, st.booleans())


def signatures() -> st.SearchStrategy[Signature]:
    def nested(parts: st.SearchStrategy[Signature]) -> st.SearchStrategy[Signature]:
        some = st.lists(parts, min_size=1, max_size=3)
        return st.one_of(
            st.builds(lambda members: chain(*members), some),
            st.builds(lambda members: group(*members), st.lists(parts, max_size=3)),
            st.builds(lambda members, then: chord(*members, then=then), some, parts),
            st.builds(lambda items: map_over(tag, items), st.lists(st.integers(0, 9), max_size=3)),
        )

    return st.recursive(calls(st.text("abcdef", min_size=1, max_size=2)), nested, max_leaves=12)


@settings(max_examples=200, deadline=None)
@given(signatures())
def test_a_graph_flattens_to_what_it_means(signature: Signature) -> None:
    started: Sequence[Signature] = (tag.si(0, "start"), signature)  # so that every first step has an input
    assert evaluated_flat(flatten(chain(*started))) == evaluated(chain(*started))


async def test_only_a_step_in_a_worker_s_event_loop_has_its_process_and_may_read() -> None:
    elsewhere = JobContext(uuid4(), uuid4(), 1, datetime.now(UTC))
    with pytest.raises(RuntimeError, match="in the event loop"):
        _ = elsewhere.parts
    with pytest.raises(RuntimeError, match="in the event loop"):
        async with elsewhere.reading():
            pass


@job
def remember(value: Any) -> None:
    """Takes whatever is JSON."""


@job
def ask(value: Any, ctx: JobContext) -> None:
    """May tell something."""


@job(leased=True)
def lease(value: Any) -> None:
    """Is leased."""


@pytest.mark.parametrize("value", [1, "ä", [1.5, None, {"deep": True}], "x" * (CARRIED_BYTES_MAX - 12)])
def test_short_arguments_of_a_step_that_tells_nothing_go_with_its_announcement(value: Any) -> None:
    [step] = flatten(remember.s(value)).steps
    assert carried(step) == {"value": value}


@pytest.mark.parametrize(
    "call",
    [
        remember.s("x" * (CARRIED_BYTES_MAX - 11)),
        remember.s(2**70),
        remember.s("\ud800"),
        ask.s(1),
        lease.s(1),
    ],
    ids=["too long", "too large a number", "no Unicode", "with a context", "leased"],
)
def test_other_arguments_stand_in_the_step_alone(call: Signature) -> None:
    [step] = flatten(call).steps
    assert carried(step) is None
