"""This pipeline, in a service's own process: `python -m bench.contenders.tandem CHANNEL SUBSCRIBER`."""

from __future__ import annotations

import sys

from bench.effects import INSERT_EFFECT
from bench.events import OrderPlaced
from shared.consuming import Handler, Subscriber
from shared.event import Event
from shared.process import Service, run
from shared.publishing import UnitOfWork


async def on_order_placed(event: Event[OrderPlaced], uow: UnitOfWork) -> None:
    """Tell the effect row, as any handler does."""
    data = event.data
    uow.tell(
        INSERT_EFFECT,
        {
            "event_id": event.id,
            "order_id": data.order_id,
            "user_id": data.user_id,
            "total_amount": data.total_amount,
        },
    )


if __name__ == "__main__":
    channel, subscriber = sys.argv[1:]
    handlers = (Handler(OrderPlaced, on_order_placed),)
    sys.exit(run(Service("bench", subscribers=(Subscriber(channel, subscriber, handlers),))))
