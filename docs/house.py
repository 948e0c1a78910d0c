"""`python -m docs.house`: how the packages are built, as figures: rooms, arrows, arrows upward, circles.

A room is a module or package directly below a package. An arrow says that something in one room imports something
in another, however often. It points upward where the contracts in `pyproject.toml` put the imported room above the
importing one. A circle is a largest group of rooms that can all be reached from each other.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grimp

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("shared", "deploy", "experiment")


@dataclass(frozen=True, slots=True)
class House:
    """One package. `arrows` are pairs of rooms: who imports, who is imported."""

    rooms: frozenset[str]
    arrows: frozenset[tuple[str, str]]

    def upward(self, heights: dict[str, int]) -> list[tuple[str, str]]:
        """The arrows to a room that stands higher, among those rooms of which it is said."""
        known = [(one, other) for one, other in self.arrows if one in heights and other in heights]
        return sorted((one, other) for one, other in known if heights[one] < heights[other])

    def circles(self) -> list[list[str]]:
        """Groups of two rooms or more, each of which leads to every other."""
        reached = {room: self._reached_from(room) for room in self.rooms}
        groups = {
            frozenset(other for other in reached[room] if room in reached[other]) | {room} for room in self.rooms
        }
        return sorted(sorted(group) for group in groups if len(group) > 1)

    def _reached_from(self, room: str) -> set[str]:
        seen: set[str] = set()
        waiting = [room]
        while waiting:
            here = waiting.pop()
            found = {other for one, other in self.arrows if one == here} - seen
            seen |= found
            waiting += found
        return seen


def measure(package: str, graph: grimp.ImportGraph) -> House:
    """The rooms of a package and the arrows between them."""
    children = graph.find_children(package)
    rooms = {child.rpartition(".")[2] for child in children}
    room_of = {
        module: child.rpartition(".")[2]
        for child in children
        for module in (child, *graph.find_descendants(child))
    }
    arrows = {
        (room, room_of[imported])
        for module, room in room_of.items()
        for imported in graph.find_modules_directly_imported_by(module)
        if imported in room_of and room_of[imported] != room
    }
    return House(frozenset(rooms), frozenset(arrows))


def heights_of(package: str) -> dict[str, int]:
    """Room → its layer, counted from the bottom, as far as a contract says one."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers: list[str] = next((c["layers"] for c in contracts if c.get("containers") == [package]), [])
    return {room: height for height, layer in enumerate(reversed(layers)) for room in re.findall(r"\w+", layer)}


def main() -> None:
    graph = grimp.build_graph(*PACKAGES)
    for package in PACKAGES:
        house = measure(package, graph)
        upward, circles = house.upward(heights_of(package)), house.circles()
        print(
            f"{package:12} {len(house.rooms)} rooms, {len(house.arrows)} arrows, {len(upward)} upward {upward}, ",
            end="",
        )
        print(f"{len(circles)} circles {circles}")


if __name__ == "__main__":
    main()
