"""Gauges that nobody counts along the way: the outbox and the queues are asked how they stand, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from shared.broker.base import Broker, Subscription
from shared.database import Database
from shared.errors import TransientError
from shared.outbox import outbox_state
from shared.settings import Settings
from shared.telemetry import Telemetry

_log = structlog.get_logger(__name__)

_OUTBOX_COUNT_MAX = 1_000_000


class Gauges:
    """Asks every `metrics_interval_s`. `run` never returns by itself; cancel it to stop.

    Each process asks for its own part only: the relay for its outbox, a consumer for its subscriptions.
    """

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        *,
        outbox_of: Database | None,
        broker: Broker,
        subscriptions: Sequence[Subscription],
    ) -> None:
        self._interval_s = settings.metrics_interval_s
        self._telemetry = telemetry
        self._outbox_of = outbox_of
        self._broker = broker
        self._subscriptions = subscriptions

    async def run(self) -> None:
        while True:
            for ask in (self._ask_outbox, self._ask_queues):
                try:
                    await ask()
                except TransientError as error:
                    _log.warning("gauges.not_refreshed", error=str(error))
                except Exception:  # noqa: BLE001 - who cannot be measured must not be stopped by it
                    _log.exception("gauges.failed")
            await asyncio.sleep(self._interval_s)

    async def _ask_outbox(self) -> None:
        if self._outbox_of is not None:
            async with self._outbox_of.transaction() as connection:
                state = await outbox_state(connection, _OUTBOX_COUNT_MAX)
            self._telemetry.outbox(state.messages, state.oldest_age_s)

    async def _ask_queues(self) -> None:
        if self._subscriptions:
            states = await self._broker.queue_states(self._subscriptions)
            for subscription, state in zip(self._subscriptions, states, strict=True):
                self._telemetry.queue(subscription, state.messages, state.consumers)
