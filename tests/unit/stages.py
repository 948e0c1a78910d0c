"""What tests of single stages of consuming stand on: batches by their keys, transactions that fail when told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from shared.broker.base import Delivery, Subscription
from shared.consuming import inbox
from shared.consuming.attempts import Attempts, Patience
from shared.consuming.batch import Batch, Status, Work
from shared.consuming.claiming import Claiming
from shared.consuming.claims import Claim, Claims, ClaimState
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


def batch_of(*keys: str, handler: Handler = HANDLER, traceparent: str | None = None) -> Batch:
    """An event for each key; its id is its place."""
    works = {}
    deliveries = []
    for place, key in enumerate(keys):
        envelope = Envelope(
            source="/tests",
            type="thing.happened",
            id=str(place),
            partitionkey=key,
            traceparent=traceparent,
            data={},
        )
        delivery = Delivery(b"", {}, "thing", key, redelivered=False, position=f"thing#{place}", token=None)
        works["/tests", str(place)] = Work(envelope, Event(envelope, Happened()), handler, [delivery])
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


class Told(Claims):
    """Redis that answers what it is told for an id, else that it is new and was taken up before."""

    def __init__(self, answers: dict[str, Claim] | None = None, **overrides: Any) -> None:
        super().__init__(settings_with(redis_url="redis://127.0.0.1:1", **overrides))
        self.answers = answers or {}
        self.asked: list[str] = []
        self.marked: list[str] = []
        self.released: list[tuple[str, bool]] = []

    async def claim(self, subscriber: str, events: Sequence[Envelope]) -> list[Claim]:
        assert subscriber == SUBSCRIPTION.subscriber
        self.asked += [event.id for event in events]
        return [self.answers.get(event.id, Claim(ClaimState.NEW, 2)) for event in events]

    async def done(self, subscriber: str, events: Sequence[Envelope]) -> None:
        self.marked += [f"{subscriber}:{event.id}" for event in events]

    async def release(self, subscriber: str, events: Sequence[Envelope], *, forget: bool = False) -> None:
        self.released += [(f"{subscriber}:{event.id}", forget) for event in events]


class Counted:
    """Metrics that take note of what they are told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def claimed(self, subscription: Subscription, outcomes: Mapping[StrEnum, int]) -> None:
        self.told.append(("claimed", subscription.queue, dict(outcomes)))

    def without_claims(self, subscription: Subscription, count: int) -> None:
        self.told.append(("without claims", subscription.queue, count))

    def processed(self, subscription: Subscription, counts: Mapping[StrEnum, int], duration_s: float) -> None:
        self.told.append(("processed", subscription.queue, dict(counts), duration_s))


def claiming(claims: Claims, counted: Counted | None = None, **overrides: Any) -> Claiming:
    metrics: Any = counted or Counted()
    return Claiming(settings_with(**overrides), SUBSCRIPTION, claims, metrics)


class Slept:
    """A clock that goes on while a stage sleeps, by as much or by `step_s`, and by nothing else. What is drawn is
    the most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str, step_s: float | None = None) -> None:
        self.now = 1_000.0
        self.asked_for: list[float] = []
        self._step_s = step_s
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(f"{module}.asyncio", SimpleNamespace(sleep=self._sleep))
        monkeypatch.setattr(f"{module}.random", SimpleNamespace(random=lambda: 1.0), raising=False)

    async def _sleep(self, seconds: float) -> None:
        self.asked_for.append(seconds)
        self.now += seconds if self._step_s is None else self._step_s


class Inbox:
    """A connection to a database that has these events in its inbox; what is forgotten, and all that is sent."""

    def __init__(self, known: Sequence[str]) -> None:
        self.known = known
        self.forgotten: list[str] = []
        self.sent: list[Any] = []

    async def execute(self, statement: Any, parameters: Any) -> Any:
        self.sent.append(statement)
        if statement is inbox._FORGET:
            assert parameters["subscriber"] == SUBSCRIPTION.subscriber
            self.forgotten += parameters["ids"]
        if parameters.get("inbox_event_id") in self.known:
            raise IntegrityError("insert", None, Exception("duplicate key"))
        if statement is inbox._RECORD_ONE:
            assert (parameters["subscriber"], parameters["source"]) == (SUBSCRIPTION.subscriber, "/tests")
            return SimpleNamespace(rowcount=int(parameters["event_id"] not in self.known))
        if statement is not inbox._RECORD:
            return None
        assert parameters["subscriber"] == SUBSCRIPTION.subscriber
        new = [name for name in parameters["ids"] if name not in self.known]
        return SimpleNamespace(one=lambda: (len(new), ["/tests"] * len(new) or None, new or None))
