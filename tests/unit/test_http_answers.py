"""What is written of an answer goes out together where it comes at once, and in order however it comes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.process.answers import Answers


class Wire(asyncio.Transport):
    """A transport that keeps each write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def answers(wire: Wire) -> Answers:
    return Answers(wire, asyncio.get_running_loop())


async def test_a_head_and_the_body_that_follows_at_once_are_one_write(wire: Wire, answers: Answers) -> None:
    for _ in range(2):
        answers.write(b"head,")
        answers.write(b"body")
        answers.end_answer()
    await asyncio.sleep(0)
    assert wire.sent == [b"head,body", b"head,body"]


async def test_a_head_waits_for_nothing_beyond_its_turn(wire: Wire, answers: Answers) -> None:
    answers.write(b"head")
    assert wire.sent == []
    await asyncio.sleep(0)
    assert wire.sent == [b"head"]
    answers.write(b"chunk")
    answers.write(b"chunk")
    assert wire.sent == [b"head", b"chunk", b"chunk"]


async def test_a_large_body_is_not_copied_behind_its_head(wire: Wire, answers: Answers) -> None:
    answers.write(b"head")
    answers.write(b"x" * 65_537)
    assert list(map(len, wire.sent)) == [4, 65_537]


async def test_a_head_without_a_body_is_sent_when_the_answer_ends(wire: Wire, answers: Answers) -> None:
    answers.write(b"head")
    answers.end_answer()
    answers.write(b"head,")
    answers.write(b"body")
    await asyncio.sleep(0)
    assert wire.sent == [b"head", b"head,body"]


async def test_what_waits_is_sent_before_the_connection_is_closed(wire: Wire, answers: Answers) -> None:
    answers.write(b"head")
    answers.close()
    await asyncio.sleep(0)
    assert (wire.sent, answers.is_closing()) == ([b"head"], True)


async def test_what_waits_for_a_connection_that_is_gone_is_left(wire: Wire, answers: Answers) -> None:
    answers.write(b"head")
    wire.close()
    await asyncio.sleep(0)
    answers.end_answer()
    assert wire.sent == []
