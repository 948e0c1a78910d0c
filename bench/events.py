"""Makes the events of a round: the bytes that every contender reads."""

from __future__ import annotations

from dataclasses import dataclass

from shared.envelope import Envelope
from shared.event import EventData

SOURCE = "/services/bench"
_EVENTS_PER_KEY = 10
_TRACEPARENT = "00-0af7651916cd43dd8448eb21{number:08x}-b7ad6b7169203331-{flags}"
"""Each event has its own."""


class OrderPlaced(EventData):
    """What a subscriber asks of the event; `total_amount` is in the currency's minor unit."""

    channel = "bench"
    event_type = "order.placed"

    order_id: str
    user_id: str
    total_amount: int


@dataclass(frozen=True, slots=True)
class WireEvent:
    """An event as it is published: about 500 bytes."""

    id: str
    key: str
    body: bytes


def make_events(count: int, *, traced: bool = True) -> list[WireEvent]:
    """`count` new events, of which all or none are traced.

    Every key has `_EVENTS_PER_KEY` of them, spread over the whole backlog.
    """
    keys = max(1, count // _EVENTS_PER_KEY)
    flags = "01" if traced else "00"
    return [_event(number, f"0198c0de-0000-7000-8000-{number % keys:012d}", flags) for number in range(count)]


def _event(number: int, order_id: str, flags: str) -> WireEvent:
    event = Envelope(
        source=SOURCE,
        type=OrderPlaced.event_type,
        subject=order_id,
        partitionkey=order_id,
        dataschema=OrderPlaced.schema_uri(),
        traceparent=_TRACEPARENT.format(number=number, flags=flags),
        data={
            "order_id": order_id,
            "user_id": f"0198c0de-0000-7000-9000-{number % 997:012d}",
            "currency": "EUR",
            "total_amount": 100 + number,
            "lines": [{"sku": "tea", "quantity": 2, "unit_amount": 450}],
        },
    )
    return WireEvent(event.id, order_id, event.encode())
