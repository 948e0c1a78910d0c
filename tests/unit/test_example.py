"""What can be said of the example without servers; `tests/system/test_example.py` runs it."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from examples.receipts import app
from services.order.events import PUBLISHED
from shared.envelope import Envelope

GOLDEN = Path(__file__).parent / "golden" / "order.paid.1.json"


def test_it_reads_a_paid_order_as_the_order_service_writes_it() -> None:
    [handler] = app.PAID_ORDERS.handlers
    event = handler.read(Envelope.decode(GOLDEN.read_bytes()))
    assert event.data == app.OrderPaid(order_id=UUID("0198c0de-0000-7000-8000-000000000001"), total_amount=7499)


def test_it_knows_every_type_of_the_channel_that_it_reads() -> None:
    """On Kafka all of them arrive: one that it did not know would end among the dead letters."""
    assert app.PAID_ORDERS.types | app.PAID_ORDERS.ignores == {event.event_type for event in PUBLISHED}
