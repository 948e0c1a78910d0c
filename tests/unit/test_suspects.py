"""Events that some process took up and never finished, one at a time; and what is told of a Redis that is lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.consuming.batch import Batch, Work
from shared.consuming.claiming import Claiming
from shared.consuming.claims import Claim, Claims, ClaimState
from shared.consuming.finishing import Finishing
from shared.consuming.suspects import Suspects
from shared.envelope import Envelope
from shared.errors import AttemptsExhaustedError, UnavailableError
from tests.unit.stages import (
    DEAD,
    DONE,
    RETRIED,
    SUBSCRIPTION,
    Transactions,
    attempts,
    batch_of,
    settings_with,
    statuses,
)

BUSY = Claim(ClaimState.BUSY)


class Told(Claims):
    """Answers what it is told for an id, and takes note of what it is asked."""

    def __init__(self, answers: dict[str, Claim]) -> None:
        super().__init__(settings_with(redis_url="redis://127.0.0.1:1"))
        self.answers = answers
        self.asked: list[str] = []

    async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
        self.asked += [event.id for event in events]
        return [self.answers.get(event.id, Claim(ClaimState.NEW, 2)) for event in events]


class Uncounted:
    """Metrics that nobody reads."""

    def claimed(self, *_: object) -> None: ...

    def without_claims(self, *_: object) -> None: ...


class Finished(Finishing):
    """Only takes note of what is finished."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def finish(self, works: Sequence[Work]) -> None:
        self.ids += [work.envelope.id for work in works]


def claiming(claims: Claims) -> Claiming:
    uncounted: Any = Uncounted()
    return Claiming(settings_with(), SUBSCRIPTION, claims, uncounted)


async def run(batch: Batch, claims: Claims, transactions: Transactions, **overrides: Any) -> Iterable[str]:
    """Run a batch of suspects; what was finished, in turn."""
    finished = Finished()
    await Suspects(settings_with(**overrides), claiming(claims), attempts(transactions.run), finished).run(batch)
    await claims.close()
    return finished.ids


async def test_a_suspect_that_another_holds_goes_back_with_what_follows_it_under_its_key() -> None:
    batch, claims, transactions = batch_of("a", "b", "a", "b"), Told({"0": BUSY}), Transactions(lambda _: None)
    assert await run(batch, claims, transactions) == ["0", "1", "2", "3"]
    assert statuses(batch) == [RETRIED, DONE, RETRIED, DONE]
    assert claims.asked == ["0", "1", "3"], "what goes back is not claimed"


async def test_behind_a_suspect_that_a_lost_server_sends_back_nothing_is_taken_up() -> None:
    lost = {"1": UnavailableError("planted")}
    batch, claims, transactions = batch_of("a", "b", "c"), Told({}), Transactions(lost.get)
    assert await run(batch, claims, transactions) == ["0", "1", "2"]
    assert statuses(batch) == [DONE, RETRIED, RETRIED]
    assert claims.asked == ["0", "1"]
    assert batch.works["/tests", "2"].error is lost["1"]


async def test_what_was_taken_up_too_often_says_so() -> None:
    batch, claims = batch_of("a"), Told({"0": Claim(ClaimState.NEW, 4)})
    await run(batch, claims, Transactions(lambda _: None), deliveries_max=3)
    assert statuses(batch) == [DEAD]
    error = batch.works["/tests", "0"].error
    assert isinstance(error, AttemptsExhaustedError)
    assert str(error) == "taken up 3 times and never finished"


async def test_a_redis_that_is_lost_is_told_of_once_until_it_has_been_back_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lost(Told):
        async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
            await super().claim(subscriber, events)
            raise UnavailableError("planted")

    now = 1_000.0
    monkeypatch.setattr("shared.consuming.claiming.time", SimpleNamespace(monotonic=lambda: now))
    claims = Lost({})
    stage, works = claiming(claims), list(batch_of("a").works.values())

    async def logged_after(seconds: float) -> list[Any]:
        nonlocal now
        now += seconds
        with capture_logs() as logs:
            assert await stage.claim_once(works) == [], "without a claim nothing is busy"
        return logs

    told = {
        "event": "pipeline.without_claims",
        "queue": SUBSCRIPTION.queue,
        "error": "planted",
        "log_level": "warning",
    }
    assert [await logged_after(seconds) for seconds in (0, 0.9, 0.1, 2, 2.5)] == [[told], [], [], [], [told]]
    assert claims.asked == ["0"] * 4, "it is left alone for a second"
    await claims.close()
