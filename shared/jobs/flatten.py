"""Flattening: a signature, however nested, becomes steps and edges. Pure.

A step takes nothing, the result of its one parent, or the list of its parents' results by position. So a group
inside a group, before a group, or of no members gets a step of its own, `gather`, that holds its list; a group
that is followed by a call needs none. Steps are in an order in which every parent precedes its children.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from shared.jobs.signatures import Call, Chain, Group, Job, OnFailure, Signature, job

Takes = Literal["nothing", "value", "list"]

STEPS_MAX = 100_000
CARRIED_BYTES_MAX = 1_024
"""Of arguments that the announcement of a step has, too."""


@dataclass(frozen=True, slots=True)
class FlatStep:
    """A call to be made; `output` is its place in the job's result, None where others take its result."""

    job: Job[..., Any]
    args: dict[str, Any]
    takes: Takes
    delay_s: float
    output: int | None = None


@dataclass(frozen=True, slots=True)
class FlatEdge:
    """`child` waits for `parent`, both as places among the steps, and has its result at `position`."""

    parent: int
    child: int
    position: int
    on_failure: OnFailure


@dataclass(frozen=True, slots=True)
class Flat:
    """A job's steps and edges. `form`: its result is a step's, or the list of several steps' by `output`."""

    steps: tuple[FlatStep, ...]
    edges: tuple[FlatEdge, ...]
    form: Literal["value", "list"]


def carried(step: FlatStep) -> dict[str, Any] | None:
    """The arguments that the announcement of this step, which waits for nothing, may have; None for no such.

    A handler that asks for the context may tell something: its step is read and locked before it runs.
    """
    if step.job.leased or step.job.arguments.takes_context:
        return None
    try:
        encoded = orjson.dumps(step.args)
    except TypeError:  # a number or a text that an event cannot hold
        return None
    return step.args if len(encoded) <= CARRIED_BYTES_MAX else None


@job(name="tandem.gather")
def gather(items: list[Any]) -> list[Any]:
    """The list that a group's results are."""
    return items


def flatten(signature: Signature) -> Flat:
    """The steps and edges of `signature`, with arguments checked and as JSON.

    Raises `BadArgumentsError` for arguments that a handler does not take, and `ValueError` over `STEPS_MAX` steps.
    """
    if isinstance(signature, Call):  # nearly always
        args = signature.job.arguments.to_json(signature.args, signature.kwargs or {}, with_input=False)
        return Flat((FlatStep(signature.job, args, "nothing", signature.delay_s, output=0),), (), "value")
    flattening = _Flattening()
    ends = flattening.place(signature, None)
    steps = flattening.steps
    for position, index in enumerate(ends.indices):
        steps[index] = replace(steps[index], output=position)
    return Flat(tuple(steps), tuple(flattening.edges), "list" if ends.is_list else "value")


@dataclass(frozen=True, slots=True)
class _Ends:
    """The steps that a part ends in: one, or those of a group's members."""

    indices: tuple[int, ...]
    is_list: bool
    on_failure: OnFailure = "fail"


class _Flattening:
    def __init__(self) -> None:
        self.steps: list[FlatStep] = []
        self.edges: list[FlatEdge] = []

    def place(self, part: Signature, before: _Ends | None) -> _Ends:
        """Add the steps of `part`, which follows `before`; return what it ends in."""
        if isinstance(part, Call):
            return self._place_call(part, before)
        if isinstance(part, Group):
            return self._place_group(part, before)
        if isinstance(part, Chain):
            for follower in part.parts:
                before = self.place(follower, before)
            assert before is not None
            return before
        raise TypeError(f"{part!r} is no signature")

    def _place_call(self, call: Call, before: _Ends | None) -> _Ends:
        if len(self.steps) >= STEPS_MAX:
            raise ValueError(f"a job has at most {STEPS_MAX} steps")
        index = len(self.steps)
        takes: Takes = "nothing"
        if before is not None:
            self.edges += [
                FlatEdge(parent, index, position, before.on_failure)
                for position, parent in enumerate(before.indices)
            ]
            if call.takes_input:
                takes = "list" if before.is_list else "value"
        args = call.job.arguments.to_json(call.args, call.kwargs or {}, with_input=takes != "nothing")
        self.steps.append(FlatStep(call.job, args, takes, call.delay_s))
        return _Ends((index,), is_list=False)

    def _place_group(self, group: Group, before: _Ends | None) -> _Ends:
        if not group.members:
            return self._place_call(gather.si([]), before)
        before = self._gathered(before)
        ends = [self._gathered(self.place(member, before)) for member in group.members]
        return _Ends(tuple(end.indices[0] for end in ends if end), is_list=True, on_failure=group.on_failure)

    def _gathered(self, ends: _Ends | None) -> _Ends | None:
        """The same in one step."""
        return self._place_call(gather.s(), ends) if ends is not None and ends.is_list else ends
