"""What a unit of work was told: rows by their statements, in as few groups as the order of each key allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from sqlalchemy import Executable

from shared.publishing.bulk import insert_of_arrays

Row = Mapping[str, Any]
Answer = Callable[[Sequence[Any]], None]
Statement = tuple[Executable, Row | Sequence[Row]]
"""What is sent at once: a statement with its parameters, or with a row of them for each time that it runs."""


def runs_once(parameters: Row | Sequence[Row]) -> TypeGuard[Row]:
    """Whether a statement runs once with these, and not for each of several rows."""
    return isinstance(parameters, dict)


class Told:
    """Collects, and gives it away as statements."""

    def __init__(self) -> None:
        self._whole: list[Statement] = []
        self._answers: dict[int, Answer] = {}
        self._groups: list[tuple[Executable, list[Row]]] = []
        self._newest_group_of: dict[int, int] = {}
        self._last_group_of_key: dict[str, int] = {}
        self._by_event: list[int] = []

    def begin_event(self) -> None:
        """An event begins: rows added from here on are its."""
        self._by_event.clear()

    def discard_event(self) -> None:
        """Take back the rows that were added since `begin_event`."""
        for group in reversed(self._by_event):
            self._groups[group][1].pop()
        self._by_event.clear()

    def add(self, key: str, statement: Executable, row: Row) -> None:
        """Add a row of a statement, in order among what `key` added before."""
        group = self._newest_group_of.get(id(statement), -1)
        if group < self._last_group_of_key.get(key, 0):
            group = len(self._groups)
            self._groups.append((statement, []))
            self._newest_group_of[id(statement)] = group
        self._groups[group][1].append(row)
        self._by_event.append(group)
        if group:  # behind the first one comes everything
            self._last_group_of_key[key] = group

    def add_whole(self, statement: Executable, parameters: Row, answer: Answer | None = None) -> None:
        """Add a statement that runs once, with these parameters, before all rows; its rows are for `answer`."""
        if answer is not None:
            self._answers[len(self._whole)] = answer
        self._whole.append((statement, parameters))

    def take_answers(self) -> Mapping[int, Answer]:
        """Who wants the rows of which statement, by its place among those that `take` returns; and forget it."""
        answers, self._answers = self._answers, {}
        return answers

    def take(self) -> list[Statement]:
        """All of it, in order, and forget it."""
        statements = self._whole + [_sent_once(statement, rows) for statement, rows in self._groups if rows]
        self._whole, self._groups = [], []
        self._newest_group_of.clear()
        self._last_group_of_key.clear()
        self._by_event.clear()
        return statements


def _sent_once(statement: Executable, rows: Sequence[Row]) -> Statement:
    if len(rows) == 1:
        return statement, rows[0]
    bulk = insert_of_arrays(statement, tuple(rows[0]))
    return (statement, rows) if bulk is None else (bulk, {name: [row[name] for row in rows] for name in rows[0]})
