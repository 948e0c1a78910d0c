"""What is counted and timed along an event's way is what every reader of the metrics is told."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from shared.consuming.batch import Status
from shared.consuming.claims import ClaimState
from shared.telemetry.metrics import Metrics
from tests.unit.stages import SUBSCRIPTION

BASE = {
    "messaging.system": "rabbitmq",
    "messaging.destination.name": "thing.events",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.consumer.group.name": "tester",
    "tandem.queue": "tester.thing",
}


def points(reader: InMemoryMetricReader, name: str) -> list[Any]:
    """The series of a metric."""
    data = reader.get_metrics_data()
    assert data is not None
    found = [
        metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
    ]
    return [point for metric in found for point in metric.data.data_points]


def test_batches_are_counted_and_timed_to_the_last_for_each_reader() -> None:
    batches = 3
    first, second = readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    metrics = Metrics(MeterProvider(readers).get_meter("tests"), "rabbit")
    for _ in range(batches):
        metrics.processed(SUBSCRIPTION, {Status.DONE: 2, Status.RETRIED: 1}, 0.25)
    for reader in (first, second, first):
        counted = {
            point.attributes["tandem.status"]: point for point in points(reader, "messaging.process.duration")
        }
        assert {status: (point.count, point.sum) for status, point in counted.items()} == {
            "done": (batches, batches * 0.25),
            "retried": (batches, batches * 0.25),
        }
        assert [
            (dict(point.attributes), point.value) for point in points(reader, "messaging.client.consumed.messages")
        ] == [
            (BASE | {"tandem.status": "done"}, 2 * batches),
            (BASE | {"tandem.status": "retried"}, batches),
        ]
    metrics.processed(SUBSCRIPTION, {Status.DONE: 1}, 0.5)
    [done] = [p for p in points(second, "messaging.process.duration") if p.attributes["tandem.status"] == "done"]
    assert (done.count, done.max, dict(done.attributes)) == (batches + 1, 0.5, BASE | {"tandem.status": "done"})


def test_claims_are_counted_by_outcome() -> None:
    reader = InMemoryMetricReader()
    metrics = Metrics(MeterProvider([reader]).get_meter("tests"), "rabbit")
    metrics.claimed(SUBSCRIPTION, {ClaimState.NEW: 2, ClaimState.BUSY: 1})
    metrics.claimed(SUBSCRIPTION, {ClaimState.NEW: 3})
    metrics.without_claims(SUBSCRIPTION, 4)
    assert {
        (p.attributes["tandem.queue"], p.attributes["tandem.outcome"]): p.value
        for p in points(reader, "tandem.claims")
    } == {
        ("tester.thing", "new"): 5,
        ("tester.thing", "busy"): 1,
        ("tester.thing", "unavailable"): 4,
    }
