"""An event that comes alone, whose handler needs a transaction: that begins beside its claim, and what is not new
rolls it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.broker.base import Delivery, Settlement
from shared.consuming.begun import Begun
from shared.consuming.claims import Claim, ClaimState
from shared.envelope import Envelope
from shared.errors import BusinessError, TransientError, UnavailableError
from shared.publishing.uow import UnitOfWork
from tests.unit.stages import Told
from tests.unit.test_pipeline import FIRST, Stages, delivered

ACK, RETRY = Settlement.ACK, Settlement.RETRY
BUSY, DONE, SECOND = Claim(ClaimState.BUSY), Claim(ClaimState.DONE), Claim(ClaimState.NEW, 2)


class Slow(Told):
    """Redis that answers when it is let, one answer after the other; each an answer or an error."""

    def __init__(self, happened: list[str], *answers: Claim | BaseException) -> None:
        super().__init__()
        self._happened, self._answers = happened, list(answers)
        self.may_answer = asyncio.Event()

    async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
        await super().claim(subscriber, events)
        await self.may_answer.wait()
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        self._happened.append(f"{answer.state} {answer.attempt}")
        return [answer] * len(events)

    async def release(self, subscriber: str, events: Sequence[Envelope], *, forget: bool = False) -> None:
        await super().release(subscriber, events, forget=forget)
        self._happened.append("released")


class Lone(Stages):
    """Stages that take note of what happens, in its order: the steps of each transaction, claims and handlers.

    Its handler needs a transaction, and is known to.
    """

    def __init__(self, *answers: Claim | BaseException, slow: bool = True, **overrides: Any) -> None:
        self.happened: list[str] = []
        super().__init__(**overrides)
        self.pipeline._transaction._needing = {"thing.happened"}
        self.record: Callable[[], Awaitable[object]] | None = None
        self.slow = self.claims = self.pipeline._claiming._claims = Slow(self.happened, *answers)
        if not slow:
            self.slow.may_answer.set()

    async def _handle(self, event: Any, uow: UnitOfWork) -> None:
        self.happened.append("handled")
        assert uow.connection is not None, "it begins the transaction"
        await super()._handle(event, uow)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        self.happened.append("begun")
        await asyncio.sleep(0)
        try:
            connection: Any = self
            yield UnitOfWork(connection, "tests", self.spans)
        except BaseException:
            self.happened.append("rolled back")
            raise
        self.happened.append("committed")

    async def execute(self, statement: Any, parameters: Any) -> Any:
        if self.record is not None:
            await self.record()
        result = await self.inbox.execute(statement, parameters)
        self.happened.append("recorded")
        return result

    async def turns(self) -> None:
        """As many turns of the loop as what can go on needs."""
        for _ in range(20):
            await asyncio.sleep(0)


async def test_it_is_recorded_while_it_is_claimed_and_handled_when_both_are_done() -> None:
    lone = Lone(FIRST)
    running = asyncio.create_task(lone.pipeline(delivered("1")))
    await lone.turns()
    assert (lone.happened, lone.slow.asked) == (["begun", "recorded"], ["1"])
    lone.slow.may_answer.set()
    assert await running == [ACK]
    assert lone.happened[2:] == ["new 1", "handled", "committed"]
    await lone.turns()
    assert lone.slow.marked == ["tester:1"]


async def test_its_handler_waits_for_the_inbox_too() -> None:
    lone, may_record = Lone(FIRST, slow=False), asyncio.Event()
    lone.record = may_record.wait
    running = asyncio.create_task(lone.pipeline(delivered("1")))
    await lone.turns()
    assert lone.happened == ["new 1", "begun"]
    may_record.set()
    assert await running == [ACK]
    assert lone.happened[2:] == ["recorded", "handled", "committed"]


def again() -> list[Delivery]:
    [delivery] = delivered("1")
    delivery.redelivered = True
    return [delivery]


@pytest.mark.parametrize("deliveries", [delivered("1", "2"), delivered("1", "1"), again()])
async def test_several_and_one_that_comes_again_are_claimed_before_their_transaction_begins(
    deliveries: list[Delivery],
) -> None:
    lone = Lone(FIRST)
    running = asyncio.create_task(lone.pipeline(deliveries))
    await lone.turns()
    assert lone.happened == []
    lone.slow.may_answer.set()
    assert await running == [ACK] * len(deliveries)
    assert lone.happened[:2] == ["new 1", "begun"]


async def test_what_is_taken_up_ahead_begins_nothing_and_neither_does_what_nobody_wants() -> None:
    lone = Lone(FIRST, slow=False)
    taken = await lone.pipeline.prepare(delivered("1"))
    await lone.turns()
    assert lone.happened == ["new 1"]
    await taken.abandon()
    assert await lone.pipeline(delivered("2", event_type="thing.ignored")) == [ACK]
    assert lone.happened == ["new 1", "released"]


@pytest.mark.parametrize(("outside_effects", "suspecting"), [(True, False), (False, True)])
async def test_with_effects_outside_and_behind_a_suspect_the_claim_comes_first(
    outside_effects: bool, suspecting: bool
) -> None:
    lone = Lone(FIRST, outside_effects=outside_effects)
    lone.pipeline._suspecting = suspecting
    running = asyncio.create_task(lone.pipeline(delivered("1")))
    await lone.turns()
    assert lone.happened == []
    lone.slow.may_answer.set()
    assert await running == [ACK]
    assert lone.happened == ["new 1", "begun", "recorded", "handled", "committed"]


UNDONE = ["begun", "recorded", "rolled back"]


@pytest.mark.parametrize(
    ("answers", "then", "answer"),
    [
        ([DONE], [], ACK),
        ([BUSY, FIRST], ["new 1", "begun", "recorded", "handled", "committed"], ACK),
        ([BUSY, DONE], ["done 0"], ACK),
        ([SECOND, SECOND], ["released", "new 2", "begun", "recorded", "handled", "committed"], ACK),
        ([UnavailableError("planted")], ["handled", "committed"], ACK),
    ],
)
async def test_whatever_else_is_said_undoes_what_was_begun_before_it_goes_the_ordinary_way(
    answers: list[Claim | BaseException], then: list[str], answer: Settlement
) -> None:
    lone = Lone(*answers)
    running = asyncio.create_task(lone.pipeline(delivered("1")))
    await lone.turns()
    lone.slow.may_answer.set()
    assert await running == [answer]
    said = [f"{one.state} {one.attempt}" for one in answers[:1] if isinstance(one, Claim)]
    undone = ["rolled back"] if said else []
    assert lone.happened == ["begun", "recorded", *said, *undone, *then]


async def test_without_redis_it_goes_on_unclaimed_and_the_next_does_not_wait_for_redis() -> None:
    lone = Lone(UnavailableError("planted"), slow=False)
    assert await lone.pipeline(delivered("1")) == [ACK]
    assert await lone.pipeline(delivered("2")) == [ACK]
    assert lone.happened == ["begun", "recorded", "handled", "committed"] * 2
    assert [told[0] for told in lone.counted.told] == ["without claims", "processed"] * 2


@pytest.mark.parametrize("error", [KeyError("planted"), asyncio.CancelledError()])
async def test_a_claim_that_raises_undoes_what_was_begun_and_is_given_back(error: BaseException) -> None:
    lone = Lone(error)
    running = asyncio.create_task(lone.pipeline(delivered("1")))
    await lone.turns()
    lone.slow.may_answer.set()
    with pytest.raises(type(error)):
        await running
    assert lone.happened == [*UNDONE, "released"]


async def test_what_the_inbox_has_is_a_duplicate_and_marked_as_done() -> None:
    lone = Lone(FIRST, slow=False)
    lone.inbox.known = ["1"]
    assert await lone.pipeline(delivered("1")) == [ACK]
    assert lone.happened == ["new 1", "begun", "recorded", "committed"]
    await lone.turns()
    assert (lone.slow.marked, lone.counted.told[1][2]) == (["tester:1"], {"duplicate": 1})


async def test_a_handler_that_fails_is_tried_again_in_a_transaction_that_begins_anew() -> None:
    lone = Lone(FIRST, slow=False, handler_attempts_max=2)
    lone.passing["1"] = TransientError("planted")
    assert await lone.pipeline(delivered("1")) == [ACK]
    tries = ["begun", "recorded", "handled", "rolled back", "begun", "recorded", "handled", "committed"]
    assert lone.happened == ["new 1", *tries]


async def test_one_that_is_put_aside_leaves_nothing_begun() -> None:
    lone = Lone(FIRST, slow=False)
    lone.failures["1"] = BusinessError("no")
    assert await lone.pipeline(delivered("1")) == [ACK]
    assert lone.happened[:5] == ["new 1", "begun", "recorded", "handled", "rolled back"]
    assert lone.letters == [("thing#1", "BusinessError")]


async def test_a_fail_point_before_the_effect_leaves_nothing_begun() -> None:
    lone = Lone(FIRST, failpoints="pipeline.before_effect=raise")
    running = asyncio.create_task(lone.pipeline(delivered("1")))
    await lone.turns()
    lone.slow.may_answer.set()
    assert await running == [ACK]
    assert [one for one in lone.happened if one != "released"].count("rolled back") == 1
    assert "handled" not in lone.happened


async def test_a_database_that_is_lost_meanwhile_is_waited_for() -> None:
    lone = Lone(FIRST, slow=False, outage_hold_s=60)
    lost = [UnavailableError("planted")]

    async def record() -> None:
        if lost:
            raise lost.pop()

    lone.record = record
    assert await lone.pipeline(delivered("1")) == [ACK]
    assert lone.happened == ["new 1", "begun", "rolled back", "begun", "recorded", "handled", "committed"]


@pytest.mark.parametrize("answered", [False, True])
async def test_cancelled_it_is_undone_first_and_then_given_back(answered: bool) -> None:
    lone, never = Lone(FIRST), asyncio.Event()
    if answered:
        lone.slow.may_answer.set()
    lone.record = never.wait
    running = asyncio.create_task(lone.pipeline(delivered("1")))
    await lone.turns()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 30)
    assert lone.happened == [*(["new 1"] if answered else []), "begun", "rolled back", "released"]


async def test_cancelled_twice_it_is_undone_and_given_back_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.consuming.begun._OTHERS_ROW_S", 0.001)
    lone, undoing, may_end = Lone(FIRST), asyncio.Event(), asyncio.Event()

    async def record() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            undoing.set()
            await may_end.wait()

    lone.record = record
    running = asyncio.create_task(lone.pipeline(delivered("1")))
    await lone.turns()
    running.cancel()
    await asyncio.wait_for(undoing.wait(), 30)
    running.cancel()
    await asyncio.wait([running], timeout=30)
    assert (running.cancelled(), lone.happened) == (True, ["begun"])
    may_end.set()
    await lone.turns()
    assert lone.happened == ["begun", "rolled back", "released"]


async def test_busy_it_waits_for_another_s_row_no_longer_than_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.consuming.begun._OTHERS_ROW_S", 0.001)
    lone, never = Lone(BUSY, DONE), asyncio.Event()
    lone.record = never.wait
    lone.slow.may_answer.set()
    assert await asyncio.wait_for(lone.pipeline(delivered("1")), 30) == [ACK]
    assert lone.happened == ["busy 0", "begun", "rolled back", "done 0"]


# -- what is begun, by itself


def begun_in(lone: Lone) -> Begun:
    units: Any = lone
    return Begun(units, "tester", [Envelope.decode(delivered("1")[0].body)])


async def test_what_is_begun_and_entered_is_not_rolled_back_any_more() -> None:
    lone = Lone()
    begun = begun_in(lone)
    begun.begin()
    async with begun as (_, known):
        assert not known
        await begun.roll_back()
    await begun.roll_back()
    assert lone.happened == ["begun", "recorded", "committed"]
    assert begun._unit is None, "what fails to begin the next time does not end it again"


@pytest.mark.parametrize("before", [True, False])
async def test_what_cannot_be_recorded_is_rolled_back_and_may_be_entered_again(before: bool) -> None:
    lone = Lone()
    failures = [KeyError("planted")]

    async def record() -> None:
        if failures:
            raise failures.pop()

    lone.record = record
    begun = begun_in(lone)
    if before:
        begun.begin()
    with pytest.raises(KeyError):
        await begun.__aenter__()
    assert lone.happened == ["begun", "rolled back"]
    async with begun:
        pass
    assert lone.happened[2:] == ["begun", "recorded", "committed"]


async def test_a_cancellation_at_the_moment_when_it_has_begun_rolls_it_back() -> None:
    lone = Lone()
    begun = begun_in(lone)
    begun.begin()
    assert begun._beside is not None
    entering = asyncio.create_task(begun.__aenter__())
    begun._beside.add_done_callback(lambda _: entering.cancel())
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert lone.happened == UNDONE


async def test_it_is_rolled_back_once_however_often_whoever_waits_is_cancelled() -> None:
    lone, may_record = Lone(), asyncio.Event()
    lone.record = may_record.wait
    begun = begun_in(lone)
    begun.begin()
    for _ in range(2):
        waiting = asyncio.create_task(begun.roll_back())
        await lone.turns()
        waiting.cancel()
        await asyncio.wait([waiting])
    assert lone.happened == ["begun"]
    may_record.set()
    await lone.turns()
    assert lone.happened == UNDONE


async def test_an_error_that_nobody_waits_for_any_more_is_nobody_s(caplog: pytest.LogCaptureFixture) -> None:
    lone = Lone()

    async def refuse() -> None:
        raise UnavailableError("planted")

    lone.record = refuse
    begun = begun_in(lone)
    begun.begin()
    await begun.roll_back()
    assert (lone.happened, caplog.records) == (["begun", "rolled back"], [])
