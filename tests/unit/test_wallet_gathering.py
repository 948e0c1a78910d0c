"""Questions that come at the same time are put together, and each asker gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from services.wallet.http import gathering
from services.wallet.http.gathering import CALLS_MAX, TOGETHER_MAX, Gathering
from shared.errors import UnavailableError


class Calls:
    """What was put together; each call ends when it is let go."""

    def __init__(self) -> None:
        self.put: list[list[int]] = []
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.all_begun = asyncio.Event()
        self.running = 0
        self.most = 0

    async def __call__(self, questions: Sequence[int]) -> list[str | Exception]:
        self.put.append(list(questions))
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.set()
        if self.running == CALLS_MAX:
            self.all_begun.set()
        await self.go.wait()
        self.running -= 1
        return [KeyError(one) if one < 0 else f"answer {one}" for one in questions]


async def test_what_is_asked_at_once_is_one_call_and_what_comes_meanwhile_the_next() -> None:
    calls = Calls()
    gathered: Gathering[int, str] = Gathering(calls)
    first = [asyncio.ensure_future(gathered.ask(number)) for number in range(3)]
    await calls.begun.wait()
    later = [asyncio.ensure_future(gathered.ask(number)) for number in range(3, 3 + 2 * TOGETHER_MAX)]
    await calls.all_begun.wait()
    calls.go.set()
    answers = await asyncio.gather(*first, *later)
    assert answers == [f"answer {number}" for number in range(3 + 2 * TOGETHER_MAX)]
    assert calls.put[0] == [0, 1, 2]
    assert (len(calls.put), calls.most, max(map(len, calls.put))) == (3, CALLS_MAX, TOGETHER_MAX)


async def test_an_error_is_its_asker_s_alone_and_one_of_the_call_everybody_s() -> None:
    calls = Calls()
    calls.go.set()
    gathered: Gathering[int, str] = Gathering(calls)
    answers = await asyncio.gather(*(gathered.ask(number) for number in (1, -2, 3)), return_exceptions=True)
    assert (answers[0], answers[2]) == ("answer 1", "answer 3")
    assert isinstance(answers[1], KeyError)

    async def away(_questions: Sequence[int]) -> list[str | Exception]:
        raise UnavailableError("away")

    gathered = Gathering(away)
    answers = await asyncio.gather(*(gathered.ask(number) for number in range(2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [UnavailableError, UnavailableError]


async def test_who_does_not_wait_any_more_holds_nobody_up_and_is_not_asked_for() -> None:
    calls = Calls()
    gathered: Gathering[int, str] = Gathering(calls)
    running = [asyncio.ensure_future(gathered.ask(number)) for number in range(2)]
    await calls.begun.wait()
    running[0].cancel()
    gone, stays = [asyncio.ensure_future(gathered.ask(number)) for number in (7, 8)]
    gone.cancel()
    calls.go.set()
    assert (await running[1], await stays) == ("answer 1", "answer 8")
    assert all(7 not in put for put in calls.put)


async def test_more_than_may_wait_are_turned_away_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "WAITING_MAX", 2)
    calls = Calls()
    gathered: Gathering[int, str] = Gathering(calls)
    waiting = [asyncio.ensure_future(gathered.ask(number)) for number in range(3)]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [type(one.exception()) for one in done] == [UnavailableError]
    calls.go.set()
    assert await asyncio.gather(*waiting[:2]) == ["answer 0", "answer 1"]


async def test_who_asks_again_in_the_turn_in_which_every_call_ends_is_answered() -> None:
    """Calls have ended then, and their tasks are not yet forgotten."""

    async def at_once(questions: Sequence[int]) -> list[str | Exception]:
        return [f"answer {one}" for one in questions]

    gathered: Gathering[int, str] = Gathering(at_once)

    async def ask_thrice() -> list[str]:
        return [await gathered.ask(number) for number in range(3)]

    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(ask_thrice() for _ in range(CALLS_MAX)))
    assert answers == [["answer 0", "answer 1", "answer 2"]] * CALLS_MAX


async def test_a_call_runs_in_no_asker_s_context() -> None:
    whose = ContextVar("whose", default="nobody's")

    async def tell(questions: Sequence[int]) -> list[str | Exception]:
        return [whose.get() for _ in questions]

    gathered: Gathering[int, str] = Gathering(tell)
    whose.set("the first asker's")
    assert await gathered.ask(1) == "nobody's"
