"""Events that some process took up and never finished, one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from shared.consuming.batch import Batch, Work
from shared.consuming.claims import Claim, Claims, ClaimState
from shared.consuming.finishing import Finishing
from shared.consuming.suspects import Suspects
from shared.errors import AttemptsExhaustedError, UnavailableError
from tests.unit.stages import (
    DEAD,
    DONE,
    RETRIED,
    Told,
    Transactions,
    attempts,
    batch_of,
    claiming,
    settings_with,
    statuses,
)


class Finished(Finishing):
    """Only takes note of what is finished."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def finish(self, works: Sequence[Work]) -> None:
        self.ids += [work.envelope.id for work in works]


async def run(batch: Batch, claims: Claims, transactions: Transactions, **overrides: Any) -> Iterable[str]:
    """Run a batch of suspects; what was finished, in turn."""
    finished = Finished()
    await Suspects(settings_with(**overrides), claiming(claims), attempts(transactions.run), finished).run(batch)
    await claims.close()
    return finished.ids


async def test_a_suspect_that_another_holds_goes_back_with_what_follows_it_under_its_key() -> None:
    claims, transactions = Told({"0": Claim(ClaimState.BUSY)}), Transactions(lambda _: None)
    batch = batch_of("a", "b", "a", "b")
    assert await run(batch, claims, transactions) == ["0", "1", "2", "3"]
    assert statuses(batch) == [RETRIED, DONE, RETRIED, DONE]
    assert claims.asked == ["0", "1", "3"], "what goes back is not claimed"


async def test_behind_a_suspect_that_a_lost_server_sends_back_nothing_is_taken_up() -> None:
    lost = {"1": UnavailableError("planted")}
    batch, claims, transactions = batch_of("a", "b", "c"), Told(), Transactions(lost.get)
    assert await run(batch, claims, transactions) == ["0", "1", "2"]
    assert statuses(batch) == [DONE, RETRIED, RETRIED]
    assert claims.asked == ["0", "1"]
    assert batch.works["/tests", "2"].error is lost["1"]


async def test_what_was_taken_up_too_often_says_so() -> None:
    batch, claims = batch_of("a", "b"), Told({"0": Claim(ClaimState.NEW, 4), "1": Claim(ClaimState.NEW, 3)})
    await run(batch, claims, Transactions(lambda _: None), deliveries_max=3)
    assert statuses(batch) == [DEAD, DONE], "the third time is the last"
    error = batch.works["/tests", "0"].error
    assert isinstance(error, AttemptsExhaustedError)
    assert str(error) == "taken up 3 times and never finished"
