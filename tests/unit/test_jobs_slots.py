"""How many steps a worker leases: as many as it has slots, and short ones ahead of that."""

from __future__ import annotations

import asyncio

import pytest

from shared.jobs import slots
from shared.jobs.slots import AHEAD_MAX, AHEAD_S, Slots, WaitedTooLongError


def of_steps_of(seconds: float | None, *, used: int = 0) -> Slots:
    made = Slots(4)
    made._mean_s = seconds
    made.used = used
    return made


@pytest.mark.parametrize("seconds", [None, AHEAD_S * 1.01, 60.0])
def test_a_step_that_may_be_long_is_not_leased_before_it_can_begin(seconds: float | None) -> None:
    assert [of_steps_of(seconds, used=used).free() for used in (0, 3, 4)] == [4, 1, 0]


def test_short_steps_are_leased_ahead_by_time_and_by_number() -> None:
    assert of_steps_of(AHEAD_S / 10).ahead == 40
    assert of_steps_of(0.0).ahead == 4 * AHEAD_MAX


def test_more_are_leased_once_half_of_those_ahead_have_begun() -> None:
    assert [of_steps_of(AHEAD_S / 10, used=used).free() for used in (0, 24, 25, 44)] == [44, 20, 0, 0]


async def test_no_more_run_at_once_than_there_are_slots_and_their_time_is_remembered() -> None:
    some, running, most = Slots(2), 0, 0

    async def step() -> None:
        nonlocal running, most
        async with some.one():
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(step() for _ in range(10)))
    assert most == 2
    assert some.ahead > 0


async def test_a_step_that_waits_too_long_for_a_slot_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "WAIT_MAX_S", 0.01)
    some = Slots(1)
    async with some.one():
        with pytest.raises(WaitedTooLongError):
            await some.one().__aenter__()
    async with some.one():
        pass
