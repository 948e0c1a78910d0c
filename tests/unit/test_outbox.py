"""What is asked of an outbox, how much waits and since when, and which of several inserts publishes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert

from shared.envelope import Envelope
from shared.publishing import outbox_of
from shared.publishing.outbox import _STATE, Asks, add_events, outbox
from shared.publishing.told import Statement
from shared.telemetry import Sample
from tests.outbox_rows import outbox_row

CREATED_MS = 1_700_000_000_000
OLDEST = str(UUID(int=CREATED_MS << 80))


class Outbox:
    """A database that answers the one question."""

    def __init__(self, messages: int, oldest: str | None) -> None:
        self.row = SimpleNamespace(messages=messages, oldest=oldest)
        self.asked: list[object] = []

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[Any]:
        yield self

    async def execute(self, statement: object, parameters: object) -> Any:
        assert statement is _STATE
        self.asked.append(parameters)
        return SimpleNamespace(one=lambda: self.row)


@pytest.mark.parametrize(
    ("messages", "oldest", "now_s", "age_s"),
    [
        (3, OLDEST, CREATED_MS / 1_000 + 2.5, 2.5),
        (3, OLDEST, CREATED_MS / 1_000 - 60, 0.0),  # another machine's clock is ahead
        (0, None, CREATED_MS / 1_000, 0.0),
    ],
)
async def test_it_says_how_many_wait_and_how_old_the_oldest_is(
    monkeypatch: pytest.MonkeyPatch, messages: int, oldest: str | None, now_s: float, age_s: float
) -> None:
    monkeypatch.setattr("shared.publishing.outbox.time", SimpleNamespace(time=lambda: now_s))
    database: Any = Outbox(messages, oldest)
    questions = outbox_of(database)
    assert list(questions) == ["outbox"]
    assert await questions["outbox"]() == [
        Sample("tandem.outbox.messages", messages),
        Sample("tandem.outbox.oldest.age", age_s),
    ]
    assert database.asked == [{"count_max": 1_000_000}], "it counts no further"


def test_of_several_statements_it_is_the_last_that_publishes() -> None:
    event = Envelope(source="/tests", type="thing.happened", data=None)
    inserting = insert(outbox)  # any plain insert
    statements: list[Statement] = [(inserting, {"n": number}) for number in range(3)]
    assert not add_events(statements, [outbox_row("thing", event)], Asks.NOTIFIES)
    assert statements[:2] == [(inserting, {"n": 0}), (inserting, {"n": 1})]
    [(both, parameters)] = statements[2:]
    assert both is not inserting
    assert isinstance(parameters, dict)
    assert (parameters["n"], parameters["outbox_event_id"]) == (2, event.id)
