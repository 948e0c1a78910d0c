"""A service that is silent at the end of a fault's load is asked on, by requests of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from experiment.ledger import Entry, Outcome
from experiment.load import LoadReport
from faults.phase import until_served


class Answering:
    """What is asked of a side: here each request sent gets the next of these outcomes."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = list(outcomes)
        self.sent: list[str] = []
        self.settled = 0

    def schedule(self, phase: str, _duration_s: float) -> Sequence[str]:
        return [phase]

    async def send(self, _operations: Sequence[str], phase: str) -> tuple[list[Entry], LoadReport]:
        self.sent.append(phase)
        return [asked(self._outcomes.pop(0), phase, 1.0 + len(self.sent))], LoadReport()

    async def settle(self) -> None:
        self.settled += 1


def asked(outcome: Outcome, phase: str, at_s: float) -> Entry:
    entry = Entry(phase, "order.placed", at_s, sent_s=at_s)
    entry.outcome = outcome
    entry.acknowledged_s = at_s if outcome is Outcome.ACKNOWLEDGED else None
    return entry


async def served(load: Sequence[Entry], side: Answering) -> list[Entry]:
    return await until_served(cast(Any, side), "redis-down", load)


async def test_a_service_that_answered_last_is_not_asked_again() -> None:
    side = Answering()
    load = [asked(Outcome.INDETERMINATE, "redis-down", 0.0), asked(Outcome.ACKNOWLEDGED, "redis-down", 1.0)]
    assert await served(load, side) == []
    assert (side.sent, side.settled) == ([], 0)


async def test_a_silent_service_is_asked_until_it_answers_and_never_with_a_name_that_was_used() -> None:
    """Idempotency keys are made of the name: with the load's, old answers would be given again, and counted."""
    side = Answering(Outcome.REFUSED, Outcome.INDETERMINATE, Outcome.ACKNOWLEDGED)
    load = [asked(Outcome.INDETERMINATE, "redis-down", 1.0)]
    more = await served(load, side)
    assert [entry.outcome for entry in more][-1] is Outcome.ACKNOWLEDGED
    assert len({"redis-down", *side.sent}) == 1 + len(more)
    assert side.settled == 1
