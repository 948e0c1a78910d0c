"""More subscribers of the orders' events, each of which leaves a row for every event."""

from __future__ import annotations

from experiment.beside.effects import INSERT_EFFECT
from shared.broker import Subscription
from shared.consuming import EventHandler, Handler, Subscriber
from shared.event import Event, EventData
from shared.process import Service
from shared.publishing import UnitOfWork

CHANNEL = "order"


class OrderEvent(EventData):
    """As much of an order's event as tells it from others."""

    channel = CHANNEL

    order_id: str
    version: int


class OrderPlaced(OrderEvent):
    event_type = "order.placed"


class OrderPaid(OrderEvent):
    event_type = "order.paid"


class OrderCancelled(OrderEvent):
    event_type = "order.cancelled"


MODELS = (OrderPlaced, OrderPaid, OrderCancelled)


def names(count: int) -> list[str]:
    """Of so many subscribers."""
    return [f"beside-{number}" for number in range(1, count + 1)]


def places(count: int) -> list[Subscription]:
    """Where their events wait."""
    types = frozenset(model.event_type for model in MODELS)
    return [Subscription(channel=CHANNEL, subscriber=name, types=types) for name in names(count)]


def subscribing(count: int) -> Service:
    """So many subscribers in one service."""
    return Service(
        name="subscribing",
        subscribers=tuple(
            Subscriber(
                channel=CHANNEL,
                name=name,
                handlers=tuple(Handler(model, _noting(name)) for model in MODELS),
            )
            for name in names(count)
        ),
    )


def _noting(name: str) -> EventHandler:
    async def on_order_event(event: Event[OrderEvent], uow: UnitOfWork) -> None:
        row = {"subscriber": name, "key": event.data.order_id, "value": event.data.version}
        uow.tell(INSERT_EFFECT, row)

    return on_order_event
