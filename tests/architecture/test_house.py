"""`python -m docs.house` counts what it says, and rooms have neither upward arrows nor circles."""

from __future__ import annotations

import grimp
import pytest

from docs.house import PACKAGES, House, heights_of, measure

PLANTED = House(
    rooms=frozenset("abcd"),
    arrows=frozenset({("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")}),
)


def test_a_planted_circle_and_a_planted_upward_arrow_are_found() -> None:
    assert PLANTED.circles() == [["a", "b", "c"]]
    assert PLANTED.upward({"a": 3, "b": 2, "c": 1}) == [("c", "a")]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_arrow_between_rooms_points_upward_and_none_make_a_circle(
    package: str, graph: grimp.ImportGraph
) -> None:
    house = measure(package, graph)
    assert house.rooms
    assert house.arrows
    assert house.upward(heights_of(package)) == []
    assert house.circles() == []


def test_every_room_of_shared_has_its_height_said() -> None:
    assert measure("shared", grimp.build_graph("shared")).rooms <= heights_of("shared").keys()
