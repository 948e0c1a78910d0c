"""What the relay does after a failure: which keys it holds back, for how long, and when everything waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.broker.base import Message, PublishFailure
from shared.errors import PermanentError, UnavailableError, UnroutableError
from shared.publishing.relay import Relay
from tests.unit.stages import settings_with


class Waiting:
    """A relay whose clock stands still, and what it waits for; nothing is left to chance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("shared.publishing.relay.time", clock)
        monkeypatch.setattr("shared.publishing.relay.random", SimpleNamespace(random=lambda: 1.0))
        sleeping = SimpleNamespace(sleep=self._sleep, Event=asyncio.Event)
        monkeypatch.setattr("shared.publishing.relay.asyncio", sleeping)
        monkeypatch.setattr("shared.publishing.relay._HELD_KEYS_MAX", 3)
        nothing: Any = None
        self.relay = Relay(settings_with(), nothing, nothing, shard=2)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def back_off(self, failures: Sequence[tuple[str, Exception]], *, everything: bool = False) -> None:
        await self.relay._back_off(
            [PublishFailure(Message("thing", "t", key, b""), error) for key, error in failures],
            everything=everything,
        )

    def held(self) -> dict[str, float]:
        """The keys that wait, and for how many seconds from now."""
        return {key: self.relay._held[key] - self.now for key in self.relay._kept_back()}


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return Waiting(monkeypatch)


async def test_what_the_broker_does_not_take_holds_its_key_back_and_nobody_else(waiting: Waiting) -> None:
    with capture_logs() as logs:
        await waiting.back_off([("a", UnroutableError("nobody")), ("b", PermanentError("too large"))])
    assert (waiting.held(), waiting.slept) == ({"a": 5.0, "b": 5.0}, [])
    assert logs == [
        {"event": "relay.not_confirmed", "shard": 2, "count": 2, "error": "nobody", "log_level": "warning"}
    ]
    waiting.now += 5
    assert waiting.held() == {}


async def test_what_a_broker_that_is_away_did_not_take_is_held_back_longer_each_time(waiting: Waiting) -> None:
    seen = []
    for _ in range(6):
        await waiting.back_off([("a", UnavailableError("away")), ("b", UnroutableError("nobody"))])
        seen.append(waiting.held())
    assert [held["b"] for held in seen] == [5.0] * 6
    assert [held["a"] for held in seen] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0])
    assert waiting.slept == []


async def test_everything_waits_when_nothing_was_taken(waiting: Waiting) -> None:
    await waiting.back_off([("a", UnavailableError("away"))], everything=True)
    assert (waiting.held(), waiting.slept) == ({}, [0.1])


async def test_everything_waits_when_too_many_keys_are_held_back(waiting: Waiting) -> None:
    await waiting.back_off([(key, UnroutableError("nobody")) for key in "abc"])
    assert waiting.slept == []
    await waiting.back_off([("d", UnroutableError("nobody"))])
    assert waiting.slept == [0.1]
    await waiting.back_off([("e", UnavailableError("away"))])
    assert (sorted(waiting.held()), waiting.slept[1:]) == (["a", "b", "c", "d"], [0.2])


async def test_as_many_keys_as_may_be_held_back_make_nobody_wait(waiting: Waiting) -> None:
    unwanted = [(key, UnroutableError("nobody")) for key in "abc"]
    await waiting.back_off([*unwanted, ("d", UnavailableError("away"))])
    assert (sorted(waiting.held()), waiting.slept) == (["a", "b", "c", "d"], [])
