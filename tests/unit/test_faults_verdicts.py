"""What is damaged in verdicts is found, each kind as its own class; what is sound is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from faults.verdicts.checker import Evaluated, Found, JobFound, check

EVENT, NIGHT, STRANGER = UUID(int=1), UUID(int=2), UUID(int=3)
BATCH, FETCH = UUID(int=10), UUID(int=11)
ORDERS = {EVENT, NIGHT}


def sound() -> Found:
    """An order that its event brought and one of the night, a batch, and a fetch that had to fail."""
    return Found(
        {EVENT: Evaluated("approve", "event"), NIGHT: Evaluated("review", "batch")},
        {EVENT: ["approve"], NIGHT: ["review"]},
        [JobFound(BATCH, "fraud-batch", "succeeded"), JobFound(FETCH, "threat-list", "failed")],
    )


def damage(found: Found, lists: Sequence[str] = ()) -> list[str]:
    """The classes in which something was found."""
    return [name for name, ones in check(ORDERS, found, {FETCH}, lists).damage().items() if ones]


def with_jobs(*states: str) -> Found:
    jobs = sound().jobs
    return replace(sound(), jobs=[replace(job, state=state) for job, state in zip(jobs, states, strict=True)])


def with_effects(effects: dict[UUID, Any]) -> Found:
    return replace(sound(), effects={**sound().effects, **effects})


def test_what_is_sound_is_found_sound() -> None:
    verdict = check(ORDERS, sound(), {FETCH})
    assert verdict.sound
    assert (verdict.acknowledged, verdict.evaluated, verdict.by_batch) == (2, 2, 1)


def test_a_verdict_on_an_order_that_came_after_the_look_need_not_have_arrived() -> None:
    found = replace(sound(), evaluations={**sound().evaluations, STRANGER: Evaluated("approve", "event")})
    assert damage(found) == []


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("unjudged", Found({EVENT: Evaluated("approve", "event")}, {EVENT: ["approve"]}, sound().jobs)),
        ("untold", replace(sound(), effects={EVENT: ["approve"]})),
        ("told_twice", with_effects({NIGHT: ["review", "review"]})),
        ("wrong", with_effects({NIGHT: ["approve"]})),
        ("wrong", with_effects({STRANGER: ["approve"]})),
        ("unended", with_jobs("running", "failed")),
        ("failed", with_jobs("failed", "failed")),
        ("failed", with_jobs("cancelled", "failed")),
        ("failed", with_jobs("succeeded", "succeeded")),
    ],
)
def test_each_kind_of_damage_is_found_as_its_own_class(kind: str, found: Found) -> None:
    assert damage(found) == [kind]


def test_what_a_fault_found_of_the_list_is_damage_once() -> None:
    assert damage(sound(), ["another list"]) == ["lists"]
    before = check(ORDERS, sound(), {FETCH}, ["another list"])
    assert check(ORDERS, sound(), {FETCH}, ["another list"]).since(before).sound
