"""The order service: place, pay, cancel, look up. Run it with `python -m services.order.app`."""

from __future__ import annotations

from services.order import events, handlers
from shared.process import Service, run

SERVICE = Service(
    name="order",
    publishes=events.PUBLISHED,
    subscribers=handlers.SUBSCRIBERS,
    application="services.order.http:create_app",
)

if __name__ == "__main__":
    raise SystemExit(run(SERVICE))
