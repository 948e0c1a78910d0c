"""A worker's bell: it is told where to look, and looks everywhere when nobody says where."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from shared.jobs.attempt import Lane
from shared.jobs.bell import Bell
from shared.jobs.limits import QueueLimits
from shared.jobs.store import read_ready, ready

SOON_S, LONG_S = 0.01, 30.0


@pytest.fixture
def lanes() -> list[Lane]:
    return [
        Lane("mail", False, ("send", "resend"), QueueLimits("mail", None, {})),
        Lane("paper", True, ("draw",), QueueLimits("paper", None, {})),
        Lane("paper", False, ("file",), QueueLimits("paper", None, {})),
    ]


def any_step(*lanes: Lane) -> dict[Lane, None]:
    return dict.fromkeys(lanes)


async def looked_at(lanes: list[Lane]) -> Bell:
    """A bell whose lanes have all been found empty."""
    bell = Bell(lanes)
    for lane in await bell.heard(LONG_S):
        bell.looked(lane, is_empty=True)
    return bell


async def test_at_first_it_rings_for_every_lane(lanes: list[Lane]) -> None:
    bell = Bell(lanes)
    bell.ring("draw", uuid4())
    assert await bell.heard(LONG_S) == any_step(*lanes)


async def test_it_rings_for_the_lanes_of_the_handlers_that_were_told(lanes: list[Lane]) -> None:
    bell = Bell(lanes)
    await bell.heard(LONG_S)
    for handler in ("file", "resend", "file"):
        bell.ring(handler)
    assert await bell.heard(LONG_S) == any_step(lanes[0], lanes[2])


async def test_it_is_heard_once(lanes: list[Lane]) -> None:
    bell = Bell(lanes)
    await bell.heard(LONG_S)
    bell.ring("draw")
    assert await bell.heard(LONG_S) == any_step(lanes[1])
    bell.ring("send")
    assert await bell.heard(LONG_S) == any_step(lanes[0])


async def test_nobody_looks_for_what_another_worker_runs(lanes: list[Lane]) -> None:
    bell = Bell(lanes)
    await bell.heard(LONG_S)
    bell.ring("unheard of")
    assert not bell._rung.is_set()


async def test_without_a_handler_and_in_silence_every_lane_is_looked_at(lanes: list[Lane]) -> None:
    bell = Bell(lanes)
    await bell.heard(LONG_S)
    bell.ring("draw")
    bell.ring()
    assert await bell.heard(LONG_S) == any_step(*lanes)
    assert await bell.heard(SOON_S) == any_step(*lanes)


async def test_room_for_a_step_rings_for_the_lanes_in_which_something_was_left(lanes: list[Lane]) -> None:
    bell = Bell(lanes)
    await bell.heard(LONG_S)
    bell.ring_for_room()
    assert not bell._rung.is_set()
    for lane, is_empty in zip(lanes, (False, True, False), strict=True):
        bell.looked(lane, is_empty=is_empty)
    bell.ring_for_room()
    assert await bell.heard(LONG_S) == any_step(lanes[0], lanes[2])
    bell.looked(lanes[0], is_empty=True)
    bell.ring_for_room()
    assert await bell.heard(LONG_S) == any_step(lanes[2])


# -- the only step that there is


async def test_a_lane_that_was_empty_and_rang_for_one_step_has_that_one(lanes: list[Lane]) -> None:
    bell, step = await looked_at(lanes), uuid4()
    bell.ring("resend", step)
    bell.ring("draw")
    assert await bell.heard(LONG_S) == {lanes[0]: step, lanes[1]: None}
    bell.ring("send")
    assert await bell.heard(LONG_S) == any_step(lanes[0]), "it is heard once"


async def test_of_two_that_a_lane_rings_for_there_is_one_to_choose(lanes: list[Lane]) -> None:
    bell = await looked_at(lanes)
    bell.ring("send", uuid4())
    bell.ring("resend", uuid4())
    bell.ring("draw", uuid4())
    bell.ring("draw")
    assert await bell.heard(LONG_S) == any_step(lanes[0], lanes[1])


async def test_a_step_is_chosen_where_others_were_left(lanes: list[Lane]) -> None:
    bell = await looked_at(lanes)
    bell.looked(lanes[1], is_empty=False)
    bell.ring("draw", uuid4())
    assert await bell.heard(LONG_S) == any_step(lanes[1])
    bell.ring("file", uuid4())
    bell.looked(lanes[2], is_empty=False)
    assert await bell.heard(LONG_S) == any_step(lanes[2]), "left after it rang"


@pytest.mark.parametrize(
    "limits", [QueueLimits("mail", 5.0, {}), QueueLimits("mail", None, {"send": 2})], ids=["rate", "concurrency"]
)
async def test_a_step_of_a_lane_with_limits_is_looked_for(limits: QueueLimits) -> None:
    lane = Lane("mail", False, ("send",), limits)
    bell = await looked_at([lane])
    bell.ring("send", uuid4())
    assert await bell.heard(LONG_S) == any_step(lane)


@pytest.mark.parametrize("step", [None, uuid4()])
@pytest.mark.parametrize("handler", ["send", "send it", "send ", " "])
def test_workers_read_which_handler_and_step_they_are_told_of(handler: str, step: UUID | None) -> None:
    assert read_ready(ready(handler, step)) == (handler, step)


def test_what_says_nothing_is_of_any_handler_and_a_name_alone_of_any_of_its_steps() -> None:
    assert read_ready("") == ("", None)
    assert read_ready("send") == ("send", None), "as a process of an earlier version says it"
