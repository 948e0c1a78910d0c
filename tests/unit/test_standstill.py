"""A place where something waits and nothing is finished for about a minute stands still."""

from __future__ import annotations

from shared.broker.tending import TEND_INTERVAL_S, Standstill
from tests.unit.clocks import Clock

MINUTE = 60.0


def looks(positions: list[dict[str, int]]) -> list[set[str]]:
    """What each look found, one after the other at their interval."""
    clock = Clock()
    standstill = Standstill(clock)
    found = []
    for position in positions:
        found.append(set(standstill.look(position)))
        clock.now += TEND_INTERVAL_S
    return found


def count(seconds: float) -> int:
    """How many looks there are in this time."""
    return int(seconds // TEND_INTERVAL_S)


def test_who_gets_nowhere_for_a_minute_is_told_and_who_moves_is_not() -> None:
    found = looks([{"stuck": 7, "moves": step} for step in range(count(2 * MINUTE))])
    assert found[0] == set()
    assert all(one == {"stuck"} for one in found[count(MINUTE) - 1 :])
    assert not any("moves" in one for one in found)


def test_one_step_and_all_is_well_again() -> None:
    found = looks([{"a": 7}] * count(2 * MINUTE) + [{"a": 8}] * count(MINUTE / 2))
    assert found[count(2 * MINUTE) - 1] == {"a"}
    assert found[count(2 * MINUTE) :] == [set()] * count(MINUTE / 2)


def test_where_nothing_waits_nothing_stands_still() -> None:
    assert not any(looks([{"a": 7}, {}] * count(2 * MINUTE)))
