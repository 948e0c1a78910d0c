"""Gauges that nobody counts along the way: outbox and queues are asked, again and again, how they stand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from shared.broker import Inspector, QueueState, Subscription
from shared.errors import TransientError
from shared.settings import BrokerName, Settings
from shared.telemetry.conventions import MESSAGING_SYSTEM
from shared.telemetry.measurements import Measurements, Sample

_log = structlog.get_logger(__name__)


Ask = Callable[[], Awaitable[Sequence[Sample]]]
"""A question, bounded in time by whom it asks."""


class Gauges:
    """Asks every `metrics_interval_s`. `run` never returns by itself; cancel it to stop.

    A process asks for its own part: the relay for its outbox, a consumer for its subscriptions; and the
    dead-letter service for everybody's, since a consumer that has stopped says nothing.
    """

    def __init__(self, settings: Settings, measurements: Measurements, asks: Mapping[str, Ask]) -> None:
        self._interval_s = settings.metrics_interval_s
        self._measurements = measurements
        self._asks = asks

    async def run(self) -> None:
        """Ask all questions at once, wait, and again; a question that fails stops no other."""
        while True:
            await asyncio.gather(*(self._measure(question, ask) for question, ask in self._asks.items()))
            await asyncio.sleep(self._interval_s)

    async def _measure(self, question: str, ask: Ask) -> None:
        try:
            samples = await ask()
        except TransientError as error:
            self._measurements.failed(question)
            _log.warning("gauges.not_refreshed", question=question, error=str(error))
        except Exception:  # noqa: BLE001 - who cannot be measured must not be stopped by it
            self._measurements.failed(question)
            _log.exception("gauges.failed", question=question)
        else:
            self._measurements.answered(question, samples)


def queues_of(
    inspector: Inspector,
    broker: BrokerName,
    subscriptions: Sequence[Subscription],
    *,
    dead_letter_group: str | None = None,
) -> dict[str, Ask]:
    """How these subscriptions' queues stand, and, if it is said who consumes them, their dead-letter places."""
    system = MESSAGING_SYSTEM[broker]

    async def ask_queues() -> list[Sample]:
        return _of_queues(system, await inspector.queue_states(subscriptions))

    if dead_letter_group is None:
        return {"queues": ask_queues}

    async def ask_places() -> list[Sample]:
        return _of_queues(system, await inspector.dead_letter_states(subscriptions, dead_letter_group))

    return {"queues": ask_queues, "dead_letter_places": ask_places}


def _of_queues(system: str, states: Sequence[QueueState]) -> list[Sample]:
    samples: list[Sample] = []
    for state in states:
        attributes = {
            "messaging.system": system,
            "messaging.destination.name": state.destination,
            "messaging.consumer.group.name": state.group,
            "tandem.queue": state.queue,
        }
        samples.append(Sample("tandem.queue.messages", state.messages, attributes))
        samples.append(Sample("tandem.queue.consumers", state.consumers, attributes))
    return samples
