"""What is damaged in jobs is found, each kind as its own class; what is sound is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from faults.jobs.checker import Found, JobFindings, JobFound, StepFound, check
from faults.jobs.played import expected, graph
from shared.jobs.flatten import flatten

EVERY = timedelta(seconds=2)
BEGAN = datetime(2026, 11, 28, tzinfo=UTC)
JOB, STEP, JOIN = UUID(int=1), UUID(int=2), UUID(int=3)
LOST = object()
FIRINGS = [UUID(int=100 + n) for n in range(3)]


def sound() -> Found:
    """A graph of two steps that gave 5, and three firings."""
    due = [BEGAN + n * EVERY for n in range(3)]
    fired = [
        JobFound(job_id, "succeeded", f'"{moment.isoformat()}"', f'"{moment.isoformat()}"', moment)
        for job_id, moment in zip(FIRINGS, due, strict=True)
    ]
    steps = [
        StepFound(STEP, JOB, "played-inline", "succeeded", "5"),
        StepFound(JOIN, JOB, "played-total", "succeeded", "5"),
    ]
    jobs = [JobFound(JOB, "succeeded", "5", "5"), *fired]
    return Found(jobs, steps, {STEP: ["5"], JOIN: ["5"]}, BEGAN + 3 * EVERY)


def checked(found: Found) -> dict[str, Sequence[str]]:
    """The damage that was found."""
    return {name: ones for name, ones in check({JOB}, found, EVERY).damage().items() if ones}


def with_job(**changes: str | None) -> Found:
    found = sound()
    return replace(found, jobs=[replace(found.jobs[0], **changes), *found.jobs[1:]])  # type: ignore[arg-type]


def test_what_is_sound_is_found_sound() -> None:
    verdict = check({JOB}, sound(), EVERY)
    assert verdict.sound
    assert (verdict.acknowledged, verdict.jobs, verdict.steps, verdict.firings) == (1, 4, 2, 3)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("lost", replace(sound(), jobs=sound().jobs[1:])),
        ("unended", with_job(state="running", result=None)),
        ("wrong", with_job(result="6")),
        ("wrong", with_job(state="failed", result=None)),
        ("wrong", with_job(state="cancelled", result=None)),
        ("wrong", with_job(expected=None)),
        ("without_effect", replace(sound(), effects={STEP: ["5"]})),
        ("doubled", replace(sound(), effects={STEP: ["5"], JOIN: ["5", "5"]})),
        ("stray", replace(sound(), effects={STEP: ["4"], JOIN: ["5"]})),
        ("stray", replace(sound(), steps=[replace(sound().steps[0], state="failed"), sound().steps[1]])),
        ("missed", replace(sound(), jobs=[*sound().jobs[:2], sound().jobs[3]])),
        ("missed", replace(sound(), next_due=BEGAN + 4 * EVERY)),
        ("fired_twice", replace(sound(), jobs=[*sound().jobs, replace(sound().jobs[3], id=UUID(int=7))])),
    ],
)
def test_each_kind_of_damage_is_found_as_its_own_class(kind: str, found: Found) -> None:
    assert list(checked(found)) == [kind]


def test_what_an_earlier_check_found_is_not_found_again() -> None:
    before = check({JOB}, with_job(result="6"), EVERY)
    assert check({JOB}, with_job(result="6"), EVERY).since(before).sound
    assert not check({JOB}, with_job(state="running"), EVERY).since(before).sound


def test_a_service_that_takes_no_more_is_not_sound() -> None:
    assert not JobFindings(unserved=["now"]).sound


@pytest.mark.parametrize("number", range(8))
def test_the_expected_result_is_what_the_graph_says(number: int) -> None:
    flat = flatten(graph(number))
    ends: list[object] = []
    for index, step in enumerate(flat.steps):
        edges = sorted((edge for edge in flat.edges if edge.child == index), key=lambda edge: edge.position)
        given = [ends[edge.parent] for edge in edges]
        if step.job.name == "played-refused" or LOST in given:
            ends.append(LOST)
        elif step.job.name == "played-total":
            ends.append(sum(given))  # type: ignore[arg-type]
        else:
            ends.append(step.args["number"] if not given else given[0] + step.args["more"])
    assert (None if ends[-1] is LOST else ends[-1]) == expected(number)
