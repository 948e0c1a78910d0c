"""What tests of single stages of consuming stand on: batches by their keys, transactions that fail when told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from shared.broker.base import Delivery, Subscription
from shared.consuming.attempts import Attempts, Patience
from shared.consuming.batch import Batch, Status, Work
from shared.consuming.subscriber import Handler, Subscriber
from shared.envelope import Envelope
from shared.event import Event, EventData
from shared.publishing.uow import UnitOfWork
from shared.settings import Settings

DONE, DEAD, RETRIED = Status.DONE, Status.DEAD_LETTERED, Status.RETRIED
SUBSCRIPTION = Subscription(channel="thing", subscriber="tester", types=frozenset({"thing.happened"}))


class Happened(EventData):
    channel = "thing"
    event_type = "thing.happened"


async def on_happened(_event: Event[Happened], _uow: UnitOfWork) -> None:
    raise AssertionError("the transactions of these tests call no handler")


HANDLER = Handler(Happened, on_happened)


def batch_of(*keys: str) -> Batch:
    """An event for each key; its id is its place."""
    works = {}
    deliveries = []
    for place, key in enumerate(keys):
        envelope = Envelope(source="/tests", type="thing.happened", id=str(place), partitionkey=key, data={})
        delivery = Delivery(b"", {}, "thing", key, redelivered=False, position=f"thing#{place}", token=None)
        works["/tests", str(place)] = Work(envelope, Event(envelope, Happened()), HANDLER, [delivery])
        deliveries.append(delivery)
    return Batch(deliveries, works)


def statuses(batch: Batch) -> list[Status | None]:
    return [work.status for work in batch.works.values()]


class Transactions:
    """Every transaction that was begun, by the ids in it; each event's `outcome` is asked for, and raised if it is
    an error."""

    def __init__(self, outcome: Callable[[str], Exception | None]) -> None:
        self.outcome = outcome
        self.begun: list[str] = []

    async def run(self, works: Sequence[Work]) -> None:
        self.begun.append("".join(work.envelope.id for work in works))
        for work in works:
            error = self.outcome(work.envelope.id)
            if error is not None:
                raise error
            work.status = DONE


def settings_with(**overrides: Any) -> Settings:
    unused = {
        "broker": "rabbit",
        "http_port": 1,
        "postgres_dsn": "postgresql://-",
        "redis_url": "redis://-",
        "rabbit_url": "amqp://-",
    }
    quick = {"retry_wait_initial_s": 0.001, "retry_wait_max_s": 0.002, "outage_hold_s": 0.0005}
    return Settings.from_environment(**{**unused, **quick, **overrides})


def attempts(
    transact: Callable[[Sequence[Work]], Awaitable[None]],
    *,
    outside_effects: bool = False,
    concurrency: int = 2,
    **overrides: Any,
) -> Attempts:
    settings = settings_with(**overrides)
    subscriber = Subscriber(
        "thing", "tester", (HANDLER,), outside_effects=outside_effects, concurrency=concurrency
    )
    return Attempts(settings, subscriber, SUBSCRIPTION, transact, Patience(settings, SUBSCRIPTION))
