"""The events that services exchange: what a producer once published, every consumer can read for ever.

`golden/<type>.<schema version>.json` are wire bytes as the producer encoded them. They are history: a change
that breaks one must not be made; publish a new schema version instead and add a sample of it. To add the
samples of new types or versions: `python -m tests.unit.test_event_contracts`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import orjson
import pytest

from deploy.topology import SERVICES
from services.fraud import events as fraud_events
from services.fraud.app import SERVICE as FRAUD
from services.jobs import events as jobs_events
from services.order import domain as order_domain
from services.order import events as order_events
from services.user import domain as user_domain
from services.user import events as user_events
from services.wallet import events as wallet_events
from services.wallet.app import SERVICE as WALLET
from services.wallet.domain.transfers import FailureReason, Transfer, TransferStatus
from shared.consuming.subscriber import Subscriber
from shared.envelope import Envelope
from shared.errors import SchemaViolationError, UnknownSchemaError
from shared.event import EventData
from tests.unit.unserved import unserved

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
USER_ID = UUID("0198c0de-0000-7000-8000-00000000000a")
ORDER_ID = UUID("0198c0de-0000-7000-8000-000000000001")

APPS = [import_module(f"services.{name}.app").SERVICE for name in SERVICES]
PUBLISHED = {app.name: app.publishes for app in APPS}
SUBSCRIBERS = [
    *(subscriber for app in APPS for subscriber in app.subscribers),
    *(subscriber for app in (FRAUD, WALLET) for subscriber in app.more_subscribers(unserved(app))),
]
MODELS = [(service, model) for service, models in PUBLISHED.items() for model in models]
SAMPLES = sorted(GOLDEN.glob("*.json"))


def published_now() -> dict[str, EventData]:
    """One event of each type, as today's producers make it."""
    user = user_domain.register(USER_ID, "ada@example.org", "Ada Lovelace", NOW)
    renamed = user_domain.update_profile(user, None, "Ada King", NOW)
    known = order_domain.KnownUser(USER_ID, active=True, version=1, traceparent=None)
    lines = [order_domain.Line("TEA-250", 2, 1250), order_domain.Line("POT-1", 1, 4999)]
    order = order_domain.place(ORDER_ID, known, "EUR", lines, NOW)
    transfer = Transfer(
        id=ORDER_ID,
        sender_id=UUID(int=1),
        receiver_id=UUID(int=2),
        user_id=USER_ID,
        currency="KRW",
        amount=50_000,
        fee=500,
        free=False,
        sender_label="rent",
        receiver_label="from Ada",
        day=NOW.date(),
        status=TransferStatus.PENDING,
        reason=None,
        requested_at=NOW,
        ended_at=None,
    )
    done = replace(transfer, status=TransferStatus.COMPLETED, ended_at=NOW)
    failed = replace(done, status=TransferStatus.FAILED, reason=FailureReason.RECEIVER_FROZEN)
    events: list[EventData] = [
        user_events.UserRegistered.of(user),
        user_events.UserProfileUpdated.of(renamed),
        user_events.UserDeactivated.of(user_domain.deactivate(renamed, NOW)),
        order_events.OrderPlaced.of(order),
        order_events.OrderPaid.of(order_domain.pay(order, NOW)),
        order_events.OrderCancelled.of(order_domain.cancel(order, NOW)),
        wallet_events.TransferRequested.of(transfer),
        wallet_events.TransferCompleted.of(done),
        wallet_events.TransferReceived.by(done, UUID(int=3)),
        wallet_events.TransferFailed.of(failed),
        wallet_events.TransferCancelled.of(replace(done, status=TransferStatus.CANCELLED)),
        wallet_events.DistributionClosed(
            distribution_id=ORDER_ID,
            user_id=USER_ID,
            account_id=UUID(int=1),
            currency="KRW",
            amount=1_000,
            people=10,
            given_back=300,
        ),
        wallet_events.ShareAsked(receipt_id=ORDER_ID),
        fraud_events.FraudOrderEvaluated(
            order_id=ORDER_ID,
            user_id=USER_ID,
            verdict="review",
            score=40,
            reasons=(fraud_events.Reason(rule="amount", points=40, said="the amount is large"),),
            evaluated_at=NOW,
        ),
        jobs_events.JobStepReady(job_id=ORDER_ID, step_id=USER_ID, attempt=1, handler="add"),
    ]
    return {event.event_type: event for event in events}


def envelope_of(service: str, data: EventData) -> Envelope:
    subject = str(ORDER_ID if service in {"fraud", "order", "wallet"} else USER_ID)
    return Envelope(
        source=f"/services/{service}",
        type=data.event_type,
        subject=subject,
        partitionkey=subject,
        dataschema=data.schema_uri(),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        correlationid="0198c0de-0000-7000-8000-0000000000cc",
        data=data.model_dump(mode="json"),
    )


def read_by_all(envelope: Envelope, channel: str) -> int:
    """Have every consumer of the event read it; how many there are."""
    readers = [
        handler
        for subscriber in SUBSCRIBERS
        if subscriber.channel == channel
        for handler in subscriber.handlers
        if handler.model.event_type == envelope.type
    ]
    for handler in readers:
        assert handler.read(envelope).id == envelope.id
    return len(readers)


def channel_of(event_type: str) -> str:
    return published_now()[event_type].channel


def assert_still_says(now: Any, then: Any, where: str) -> None:
    """Whatever was there then is there now, in the same kind of JSON value."""
    assert type(now) is type(then), f"{where} was {type(then).__name__}, is {type(now).__name__}"
    if isinstance(then, dict):
        for name, value in then.items():
            assert name in now, f"{where}.{name} is not published any more"
            assert_still_says(now[name], value, f"{where}.{name}")
    if isinstance(then, list):
        assert_still_says(now[0], then[0], f"{where}[0]")


@pytest.mark.parametrize(("service", "model"), MODELS, ids=lambda value: getattr(value, "event_type", value))
def test_every_published_event_has_a_golden_sample(service: str, model: type[EventData]) -> None:
    assert (GOLDEN / f"{model.event_type}.{model.schema_version}.json").is_file(), service


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_consumer_reads_the_golden_sample(path: Path) -> None:
    envelope = Envelope.decode(path.read_bytes())
    assert read_by_all(envelope, channel_of(envelope.type)) >= 1


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_consumer_tolerates_what_it_does_not_know(path: Path) -> None:
    document = orjson.loads(path.read_bytes())
    document["brandnewattribute"] = "x"
    document["data"]["brand_new_field"] = {"x": 1}
    envelope = Envelope.decode(orjson.dumps(document))
    assert read_by_all(envelope, channel_of(envelope.type)) >= 1


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_producer_still_publishes_all_that_the_golden_sample_has(path: Path) -> None:
    then = Envelope.decode(path.read_bytes())
    data = published_now()[then.type]
    if then.dataschema == data.schema_uri():
        assert_still_says(data.model_dump(mode="json"), then.data, then.type)


@pytest.mark.parametrize(("service", "model"), MODELS, ids=lambda value: getattr(value, "event_type", value))
def test_every_consumer_reads_what_is_published_today(service: str, model: type[EventData]) -> None:
    envelope = Envelope.decode(envelope_of(service, published_now()[model.event_type]).encode())
    assert read_by_all(envelope, model.channel) >= 1


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_missing_field_or_a_future_schema_is_refused(path: Path) -> None:
    envelope = Envelope.decode(path.read_bytes())
    with pytest.raises(SchemaViolationError):
        read_by_all(msgspec.structs.replace(envelope, data={}), channel_of(envelope.type))
    with pytest.raises(UnknownSchemaError):
        read_by_all(
            msgspec.structs.replace(envelope, dataschema=f"urn:tandem:{envelope.type}:99"),
            channel_of(envelope.type),
        )


@pytest.mark.parametrize(
    "subscriber", SUBSCRIBERS, ids=lambda subscriber: f"{subscriber.name}.{subscriber.channel}"
)
def test_a_subscriber_knows_all_types_of_its_channel_and_no_others(subscriber: Subscriber) -> None:
    published = {model.event_type for _, model in MODELS if model.channel == subscriber.channel}
    assert subscriber.types | subscriber.ignores == published


def write_missing_samples() -> None:
    for service, model in MODELS:
        path = GOLDEN / f"{model.event_type}.{model.schema_version}.json"
        if not path.exists():
            path.write_bytes(envelope_of(service, published_now()[model.event_type]).encode())
            print(f"wrote {path.name}")


if __name__ == "__main__":
    write_missing_samples()
