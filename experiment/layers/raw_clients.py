"""A client library by itself, of the one broker or the other."""

from __future__ import annotations

from typing import Any

from experiment.layers.raw_modes import Mode
from shared.settings import Settings


def raw_client(settings: Settings, mode: Mode) -> Any:
    """The client of the mode's broker; the other one's library is never imported."""
    if mode.broker == "rabbit":
        from experiment.layers.raw_rabbit import RawRabbit

        return RawRabbit(settings, mode)
    from experiment.layers.raw_kafka import RawKafka

    return RawKafka(settings, mode)
