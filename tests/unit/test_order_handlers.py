"""How the order service learns of users."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services.order import store
from services.order.handlers import SUBSCRIBERS
from shared.envelope import Envelope

GOLDEN = Path(__file__).parent / "golden"


class Told:
    """A unit of work that remembers what it was told."""

    def __init__(self) -> None:
        self.rows: list[tuple[object, dict[str, Any]]] = []

    def tell(self, statement: object, row: dict[str, Any]) -> None:
        self.rows.append((statement, row))


@pytest.mark.parametrize(
    ("event_type", "active"),
    [("user.registered", True), ("user.profile_updated", True), ("user.deactivated", False)],
)
async def test_a_user_event_says_whether_the_user_may_order(event_type: str, active: bool) -> None:
    envelope = Envelope.decode((GOLDEN / f"{event_type}.1.json").read_bytes())
    [handler] = [handler for handler in SUBSCRIBERS[0].handlers if handler.model.event_type == event_type]
    told = Told()
    await handler.handle(handler.read(envelope), told)  # type: ignore[arg-type]
    [(statement, row)] = told.rows
    assert statement is store.RECORD_USER
    assert (str(row["user_id"]), row["version"]) == (envelope.data["user_id"], envelope.data["version"])
    assert (row["active"], row["traceparent"]) == (active, envelope.traceparent)


async def test_a_verdict_is_kept_beside_the_order() -> None:
    envelope = Envelope.decode((GOLDEN / "fraud.order_evaluated.1.json").read_bytes())
    [handler] = SUBSCRIBERS[1].handlers
    told = Told()
    await handler.handle(handler.read(envelope), told)  # type: ignore[arg-type]
    assert told.rows == [
        (store.RECORD_VERDICT, {"order_id": UUID(envelope.data["order_id"]), "verdict": "review"})
    ]
