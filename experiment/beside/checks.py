"""Compares what ran beside the orders with the rows that it left, and says what is wrong. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from experiment.beside.graphs import expected, steps_of

_SHOWN_MAX = 100

OrderKey = tuple[str, int]
"""The order's id, and its version."""


def wrong_requests(
    answered: Mapping[str, bool], unanswered: Collection[str], effects: Mapping[str, int]
) -> list[str]:
    """Of requests, by key: whether the answer of each was the expected one, those without an answer, and how many
    effects there are. An answer is sent after COMMIT; whether what was not answered has an effect is open."""
    return [
        *_named("answered without an effect", answered.keys() - effects.keys()),
        *_named("another answer", (key for key, right in answered.items() if not right)),
        *_named("done twice", (key for key, count in effects.items() if count > 1)),
        *_named("never asked", effects.keys() - answered.keys() - set(unanswered)),
    ]


def wrong_job(number: int, steps: int, state: str, result: str | None, effects: Sequence[int]) -> list[str]:
    """Of the job of one graph: its state, its result as JSON text, and how many effects each of its steps left."""
    whose, wanted = f"job of graph {number}", steps_of(number, steps)
    if state != "succeeded":
        return [f"{whose}: is {state}"]
    if result != str(expected(number, steps)):
        return [f"{whose}: the result is {result} and not {expected(number, steps)}"]
    if sorted(effects) != [1] * wanted:
        return [f"{whose}: its {wanted} steps left {sorted(effects)} effects, and not one each"]
    return []


@dataclass(slots=True)
class Spread:
    """What became of events with several subscribers: `last_s` is, of each event that has its effects with all of
    them, the time of the last."""

    wrong: list[str] = field(default_factory=list)
    last_s: dict[OrderKey, float] = field(default_factory=dict)


def spread_of(
    events: Collection[OrderKey], subscribers: Sequence[str], rows: Iterable[tuple[str, str, int, float]]
) -> Spread:
    """Rows are effects in the order in which they were recorded: subscriber, order, version, time."""
    times_s: dict[tuple[OrderKey, str], list[float]] = {}
    highest: dict[tuple[str, str], int] = {}
    late: list[str] = []
    for subscriber, key, version, at_s in rows:
        times_s.setdefault(((key, version), subscriber), []).append(at_s)
        if version < highest.get((key, subscriber), 0):
            late.append(_of((key, version), subscriber))
        highest[key, subscriber] = max(version, highest.get((key, subscriber), 0))
    twice = [_of(event, subscriber) for (event, subscriber), found in times_s.items() if len(found) > 1]
    spread = Spread()
    lost: list[str] = []
    for event in events:
        missing = [subscriber for subscriber in subscribers if (event, subscriber) not in times_s]
        lost += [_of(event, subscriber) for subscriber in missing]
        if not missing:
            spread.last_s[event] = max(times_s[event, subscriber][0] for subscriber in subscribers)
    spread.wrong = [
        *_named("no effect", lost),
        *_named("effect twice", twice),
        *_named("out of order", late),
    ]
    return spread


def _of(event: OrderKey, subscriber: str) -> str:
    return f"order {event[0]} version {event[1]} with {subscriber}"


def _named(what: str, names: Iterable[str]) -> list[str]:
    """The first hundred by name, the others by count: each counts."""
    found = sorted(names)
    return [
        *(f"{what}: {name}" for name in found[:_SHOWN_MAX]),
        *([f"{what}: another"] * (len(found) - _SHOWN_MAX)),
    ]
