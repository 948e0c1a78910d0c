"""How orders are judged as they are placed, and what is kept of orders and users for it."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import Executable

from services.fraud import domain, store
from services.fraud.domain import Policy
from services.fraud.events import (
    FraudOrderEvaluated,
    OrderCancelled,
    OrderEvent,
    OrderPaid,
    OrderPlaced,
    Reason,
    UserDeactivated,
    UserEvent,
    UserProfileUpdated,
    UserRegistered,
)
from services.fraud.store import By, Subject
from shared.consuming import Handler, Subscriber
from shared.event import Event, EventData
from shared.publishing import UnitOfWork
from shared.settings import Settings

NAME: Final = "fraud"


def policy_of(settings: Settings) -> Policy:
    """The limits that the settings say."""
    return Policy(
        amounts=settings.fraud_amounts,
        amount_default=settings.fraud_amount_default,
        velocity_orders=settings.fraud_velocity_orders,
        velocity_window_s=settings.fraud_velocity_window_s,
        new_user_s=settings.fraud_new_user_s,
        review_score=settings.fraud_review_score,
        reject_score=settings.fraud_reject_score,
    )


class Told(Protocol):
    """What a verdict is told to: the unit of work of an event, or the context of a step."""

    def tell(self, statement: Executable, row: dict[str, Any]) -> None: ...

    def publish(self, data: EventData, *, subject: str) -> Any: ...


def judge(told: Told, subject: Subject, policy: Policy, by: By) -> None:
    """Evaluate an order, store that and publish it, both or neither; a second time for one order it fails."""
    now = datetime.now(UTC)
    found = domain.evaluate(subject.facts, policy)
    told.tell(store.INSERT_EVALUATION, store.evaluated(subject, found, by, now))
    event = FraudOrderEvaluated(
        order_id=subject.order_id,
        user_id=subject.user_id,
        verdict=found.verdict,
        score=found.score,
        reasons=tuple(Reason(rule=one.rule, points=one.points, said=one.said) for one in found.reasons),
        evaluated_at=now,
    )
    told.publish(event, subject=str(subject.order_id))


# -- a batch of events


@dataclass(slots=True)
class Batch:
    """What one unit of work knows of the orders of its events: see `UnitOfWork.part`."""

    known: set[UUID] = field(default_factory=set)
    evaluated: set[UUID] = field(default_factory=set)
    subjects: dict[UUID, Subject] = field(default_factory=dict)

    def begin_event(self) -> None:
        """Nothing to remember: what a handler changes here is the last that it does."""

    def discard_event(self) -> None:
        """Nothing to take back: a handler that fails has changed nothing here."""

    async def flush(self, uow: UnitOfWork) -> None:
        """Nothing to send: the handlers told everything."""


class Judges:
    """The handlers of orders, with the limits by which they judge."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def prepare(self, events: Sequence[Event[OrderEvent]], uow: UnitOfWork) -> None:
        """Read what is known of the orders of a batch, and of each that is placed what it is judged by.

        Nobody else has orders of these users meanwhile, and those of the batch count each other.
        """
        if not events:
            return
        batch = uow.part(Batch, Batch)
        await store.lock_users(uow.connection, [event.data.user_id for event in events])
        known, evaluated = await store.standing_of(uow.connection, [event.data.order_id for event in events])
        batch.known |= known
        batch.evaluated |= evaluated
        placed = [event for event in events if isinstance(event.data, OrderPlaced)]
        rows = {row["order_id"]: row for row in map(row_of, placed) if row["order_id"] not in evaluated}
        if not rows:
            return
        found = await store.facts_of(uow.connection, list(rows.values()), self._policy)
        new = [row for row in rows.values() if row["order_id"] not in known]
        window = timedelta(seconds=self._policy.velocity_window_s)
        batch.subjects |= {subject.order_id: subject for subject in counted(found.values(), new, window)}

    async def on_order_placed(self, event: Event[OrderPlaced], uow: UnitOfWork) -> None:
        """Judge the order, unless it is judged already, and keep it to count those of its user by."""
        batch, row = uow.part(Batch, Batch), row_of(event)
        order_id = event.data.order_id
        if order_id in batch.known:
            told = {"of_order": order_id, "from_ip": row["client_ip"], "at": row["placed_at"]}
            uow.tell(store.COMPLETE_ORDER, told)
        else:
            uow.tell(store.INSERT_ORDER, row)
        if order_id not in batch.evaluated:
            judge(uow, batch.subjects[order_id], self._policy, "event")
        batch.known.add(order_id)
        batch.evaluated.add(order_id)

    async def on_later_event(self, event: Event[OrderEvent], uow: UnitOfWork) -> None:
        """Keep an order of which the placing was not heard: if it never is, the next night judges it."""
        batch, order_id = uow.part(Batch, Batch), event.data.order_id
        if order_id not in batch.known | batch.evaluated:
            uow.tell(store.INSERT_ORDER, row_of(event))
            batch.known.add(order_id)

    async def put_aside(self, event: Event[OrderEvent], _error: Exception, uow: UnitOfWork) -> None:
        """Keep an order whose event has become a dead letter: the next night judges it."""
        uow.tell(store.KEEP_ORDER, row_of(event))


def row_of(event: Event[Any]) -> dict[str, Any]:
    """What is kept of an order, as `INSERT_ORDER` takes it."""
    data: OrderEvent = event.data
    return {
        "order_id": data.order_id,
        "user_id": data.user_id,
        "currency": data.currency,
        "amount": data.total_amount,
        "client_ip": data.client_ip if isinstance(data, OrderPlaced) else None,
        "placed_at": domain.moment_of(event.envelope.time, datetime.now(UTC)),
    }


def counted(subjects: Iterable[Subject], new: Iterable[dict[str, Any]], window: timedelta) -> list[Subject]:
    """The subjects, with those orders counted, too, that are `new` and in no table yet."""
    times: defaultdict[UUID, list[datetime]] = defaultdict(list)
    ids = set()
    for row in sorted(new, key=lambda row: row["placed_at"]):
        times[row["user_id"]].append(row["placed_at"])
        ids.add(row["order_id"])
    found = []
    for subject in subjects:
        facts, mine = subject.facts, times[subject.user_id]
        count = bisect_right(mine, facts.placed_at) - bisect_right(mine, facts.placed_at - window)
        count += facts.earlier_orders - (subject.order_id in ids)
        found.append(replace(subject, facts=replace(facts, earlier_orders=count)))
    return found


# -- users


async def on_user_event(event: Event[UserEvent], uow: UnitOfWork) -> None:
    """Keep the user's address, and when the user registered."""
    user, registered_at = event.data, None
    if isinstance(user, UserRegistered):
        registered_at = domain.moment_of(event.envelope.time, datetime.now(UTC))
    row = {"user_id": user.user_id, "email": user.email, "registered_at": registered_at, "version": user.version}
    uow.tell(store.RECORD_USER, row)


SUBSCRIBERS: Final = (
    Subscriber(
        channel="user",
        name=NAME,
        handlers=tuple(
            Handler(model, on_user_event) for model in (UserRegistered, UserProfileUpdated, UserDeactivated)
        ),
    ),
)


def order_subscriber(settings: Settings) -> Subscriber:
    """Who judges orders, by the limits of the settings."""
    judges = Judges(policy_of(settings))
    return Subscriber(
        channel="order",
        name=NAME,
        handlers=(
            Handler(OrderPlaced, judges.on_order_placed),
            Handler(OrderPaid, judges.on_later_event),
            Handler(OrderCancelled, judges.on_later_event),
        ),
        prepare=judges.prepare,
        put_aside=judges.put_aside,
    )
