"""One event, one notification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.notification import store
from services.notification.handlers import SUBSCRIBERS
from shared.envelope import Envelope

GOLDEN = Path(__file__).parent / "golden"
HANDLERS = {handler.model.event_type: handler for subscriber in SUBSCRIBERS for handler in subscriber.handlers}


class Told:
    """A unit of work that remembers what it was told."""

    def __init__(self) -> None:
        self.rows: list[tuple[object, dict[str, Any]]] = []

    def tell(self, statement: object, row: dict[str, Any]) -> None:
        self.rows.append((statement, row))


@pytest.mark.parametrize("event_type", sorted(HANDLERS))
async def test_every_event_is_told_once_to_its_user(event_type: str) -> None:
    envelope = Envelope.decode((GOLDEN / f"{event_type}.1.json").read_bytes())
    told = Told()
    handler = HANDLERS[event_type]
    await handler.handle(handler.read(envelope), told)  # type: ignore[arg-type]
    (statement, row), *others = told.rows
    assert [other for other, _ in others] == [store.RECORD_RECIPIENT] * event_type.startswith("user.")
    assert statement is store.INSERT_NOTIFICATION
    assert set(row) | {"sequence", "recorded_at"} == set(store.notification.columns.keys())
    assert (row["event_id"], row["event_type"]) == (envelope.id, event_type)
    assert (str(row["user_id"]), row["version"]) == (envelope.data["user_id"], envelope.data["version"])
    assert row["order_id"] is None or str(row["order_id"]) == envelope.data["order_id"]
    assert (row["order_id"] is None) == event_type.startswith(("user.", "transfer.", "distribution."))
