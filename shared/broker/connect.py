"""Chooses the adapter: the one place that knows both."""

from __future__ import annotations

from shared.broker.base import Broker
from shared.settings import Settings


def create_broker(settings: Settings, client_name: str) -> Broker:
    """The adapter that `TANDEM_BROKER` names, not yet connected; the other one's client is never imported."""
    if settings.broker == "rabbit":
        from shared.broker.rabbit import RabbitAdapter

        return RabbitAdapter(settings, client_name)
    from shared.broker.kafka import KafkaAdapter

    return KafkaAdapter(settings, client_name)
