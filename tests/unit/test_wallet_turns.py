"""One member's requests have their turns, and nobody else waits for them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from uuid import UUID

import pytest
from starlette.requests import Request
from starlette.types import Message

from services.wallet.http import turns as module
from services.wallet.http.turns import Turns, turn
from shared.errors import UnavailableError

ADA, BOB = UUID(int=1), UUID(int=2)


async def until_inside(turns: Turns, member: UUID, count: int) -> None:
    for _ in range(2 * count):  # turns of the event loop
        await asyncio.sleep(0)
    assert turns._lanes[member].inside == count


async def test_one_of_a_member_s_requests_is_served_at_a_time_in_order_and_nobody_else_waits() -> None:
    turns, served = Turns(), list[int]()

    async def ask(number: int) -> None:
        async with turns.of(ADA):
            served.append(number)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as asking, turns.of(ADA):
        for number in range(5):
            asking.create_task(ask(number))
        await until_inside(turns, ADA, 6)
        async with turns.of(BOB):
            assert served == []
    assert served == [0, 1, 2, 3, 4]
    assert turns._lanes == {}, "who has been served is forgotten"


async def test_too_many_and_too_long_are_said_and_keep_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    monkeypatch.setattr(module, "WAIT_S", 0.01)
    turns = Turns()
    async with turns.of(ADA):
        waiting = asyncio.create_task(_served(turns))
        await until_inside(turns, ADA, 2)
        with pytest.raises(UnavailableError, match="2 requests"):
            await _served(turns)
        with pytest.raises(UnavailableError, match="too long"):
            await waiting
        assert turns._lanes[ADA].inside == 1
    await _served(turns)
    assert turns._lanes == {}


async def test_who_goes_away_while_waiting_keeps_nobody_from_their_turn() -> None:
    turns = Turns()
    async with turns.of(ADA):
        waiting = [asyncio.create_task(_served(turns)) for _ in range(2)]
        await until_inside(turns, ADA, 3)
        waiting[0].cancel()
    await waiting[1]
    assert waiting[0].cancelled()
    assert turns._lanes == {}


async def _served(turns: Turns) -> None:
    async with turns.of(ADA):
        pass


def request_of(turns: Turns, *messages: Message) -> Request:
    """A request with these messages of its client, which waits for more for ever."""
    left = list(messages)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    scope = {"type": "http", "app": SimpleNamespace(state=SimpleNamespace(turns=turns))}
    return Request(scope, receive)


BODY: Message = {"type": "http.request", "body": b"{}", "more_body": False}


async def test_a_request_has_its_body_in_its_turn() -> None:
    request = request_of(Turns(), BODY)
    async with turn(request, ADA):
        assert await request.body() == b"{}"


async def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    turns = Turns()
    with pytest.raises(UnavailableError, match="has gone"):
        async with turn(request_of(turns, BODY, {"type": "http.disconnect"}), ADA):
            pytest.fail("it is begun")
    await _served(turns)
