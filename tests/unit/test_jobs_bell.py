"""A worker's bell: it is told where to look, and looks everywhere when nobody says where."""

from __future__ import annotations

import pytest

from shared.jobs.attempt import Lane
from shared.jobs.bell import Bell
from shared.jobs.limits import QueueLimits

SOON_S, LONG_S = 0.01, 30.0


@pytest.fixture
def lanes() -> list[Lane]:
    return [
        Lane("mail", False, ("send", "resend"), QueueLimits("mail", None, {})),
        Lane("paper", True, ("draw",), QueueLimits("paper", None, {})),
        Lane("paper", False, ("file",), QueueLimits("paper", None, {})),
    ]


async def test_at_first_it_rings_for_every_lane(lanes: list[Lane]) -> None:
    assert await Bell(lanes).heard(LONG_S) == lanes


async def test_it_rings_for_the_lanes_of_the_handlers_that_were_told(lanes: list[Lane]) -> None:
    bell = Bell(lanes)
    await bell.heard(LONG_S)
    for handler in ("file", "resend", "file"):
        bell.ring(handler)
    assert await bell.heard(LONG_S) == [lanes[0], lanes[2]]


async def test_it_is_heard_once(lanes: list[Lane]) -> None:
    bell = Bell(lanes)
    await bell.heard(LONG_S)
    bell.ring("draw")
    assert await bell.heard(LONG_S) == [lanes[1]]
    bell.ring("send")
    assert await bell.heard(LONG_S) == [lanes[0]]


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
    assert await bell.heard(LONG_S) == lanes
    assert await bell.heard(SOON_S) == lanes


async def test_room_for_a_step_rings_for_the_lanes_in_which_something_was_left(lanes: list[Lane]) -> None:
    bell = Bell(lanes)
    await bell.heard(LONG_S)
    bell.ring_for_room()
    assert not bell._rung.is_set()
    for lane, is_empty in zip(lanes, (False, True, False), strict=True):
        bell.looked(lane, is_empty=is_empty)
    bell.ring_for_room()
    assert await bell.heard(LONG_S) == [lanes[0], lanes[2]]
    bell.looked(lanes[0], is_empty=True)
    bell.ring_for_room()
    assert await bell.heard(LONG_S) == [lanes[2]]
