"""Metrics: what one process counts and times along an event's way, and what it only knows by asking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from shared.broker import Subscription, Trouble
from shared.settings import BrokerName
from shared.telemetry.conventions import (
    DURATION_BUCKETS_S,
    JOB_BUCKETS_S,
    destination_attributes,
    process_attributes,
)
from shared.telemetry.measurements import METRICS, Measurements

Labels = tuple[str, str]


class _Tally:
    """A counter that is added up here, and read when metrics are: to tell the SDK each time takes 4 µs, and
    40 of CPU where the process wakes for a single event."""

    def __init__(self, meter: Meter, name: str, unit: str, description: str = "") -> None:
        self._counts: dict[Labels, int] = {}
        self._attributes: dict[Labels, Mapping[str, str]] = {}
        meter.create_observable_counter(name, [self._observe], unit, description)

    def add(self, count: int, labels: Labels, attributes: Mapping[str, str]) -> None:
        """Count for `labels`, which always have the same attributes."""
        self._attributes[labels] = attributes
        self._counts[labels] = self._counts.get(labels, 0) + count

    def _observe(self, _options: CallbackOptions) -> list[Observation]:
        counts = self._counts.copy()  # another thread asks
        return [Observation(count, self._attributes[labels]) for labels, count in counts.items()]


class Metrics:
    """One process's counters, histograms and gauges."""

    def __init__(self, meter: Meter, broker: BrokerName) -> None:
        self._broker = broker
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}")
        self._processed: dict[tuple[str, StrEnum], Mapping[str, str]] = {}
        """The attributes of what became of a subscription's deliveries."""
        self._consumed = _Tally(meter, "messaging.client.consumed.messages", "{message}")
        self._sending: dict[str, Mapping[str, Mapping[str, str]]] = {}
        self._send_duration = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "One published batch, until confirmed",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
        )
        self._process_duration = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "One batch's way through the pipeline, by queue and status",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
        )
        self._job_duration = meter.create_histogram(
            "tandem.job.duration",
            "s",
            "A job, from when it was due to its end, by kind and outcome",
            explicit_bucket_boundaries_advisory=JOB_BUCKETS_S,
        )
        self._claims = _Tally(meter, "tandem.claims", "{claim}", "Redis claims by outcome")
        self.measurements = Measurements()
        for name, (unit, description) in METRICS.items():
            meter.create_observable_gauge(name, [partial(self._observe, name)], unit, description)
        self._settlement_failures: Callable[[], Mapping[str, int]] = dict
        meter.create_observable_counter(
            "tandem.settlement.failures",
            [self._observe_settlement_failures],
            "{message}",
            "Settlements that the broker refused or never got; these messages come again",
        )
        self._troubles: Callable[[], Mapping[str, Trouble]] = dict
        meter.create_observable_gauge(
            "tandem.broker.troubles",
            [self._observe_troubles],
            "1",
            "1 where a stream is stopped, 0 where it works, though not as declared; no series where all is well",
        )
        self._spans_lost: Callable[[], Mapping[tuple[str, str], int]] = dict
        meter.create_observable_counter(
            "tandem.spans.lost",
            [self._observe_spans_lost],
            "{span}",
            "Spans that were recorded and not exported, by exporter and reason",
        )
        self._breaker_state = meter.create_gauge(
            "tandem.breaker.state", "1", "Circuit breaker: 0 closed, 1 half-open, 2 open"
        )

    def sent(self, channel: str, *, confirmed: int, failed: int, duration_s: float) -> None:
        """Count a published batch's events, and record how long it took until all were confirmed or were not."""
        sending = self._sending.get(channel) or self._sending_to(channel)
        self._send_duration.record(duration_s, sending["send"])
        self._sent.add(confirmed, sending["confirmed"])
        if failed:
            self._sent.add(failed, sending["failed"])

    def _sending_to(self, channel: str) -> Mapping[str, Mapping[str, str]]:
        """The attributes of what is sent to a channel, made once."""
        destination = destination_attributes(self._broker, channel)
        made = {status: {**destination, "tandem.status": status} for status in ("confirmed", "failed")}
        made["send"] = {**destination, "messaging.operation.name": "send"}
        self._sending[channel] = made
        return made

    def processed(self, subscription: Subscription, counts: Mapping[StrEnum, int], duration_s: float) -> None:
        """Count a batch's deliveries by status and record how long the batch took."""
        queue = subscription.queue
        for status, count in counts.items():
            attributes = self._processed.get((queue, status))
            if attributes is None:
                attributes = {
                    **process_attributes(self._broker, subscription),
                    "tandem.queue": queue,
                    "tandem.status": status.value,
                }
                self._processed[queue, status] = attributes
            self._consumed.add(count, (queue, status), attributes)
            self._process_duration.record(duration_s, attributes)

    def job_ended(self, kind: str, outcome: str, duration_s: float) -> None:
        """Record a job that has ended."""
        self._job_duration.record(duration_s, {"tandem.job.kind": kind, "tandem.job.outcome": outcome})

    def claimed(self, subscription: Subscription, outcomes: Mapping[StrEnum, int]) -> None:
        """Count claims by outcome."""
        for outcome, count in outcomes.items():
            self._claimed(subscription.queue, outcome.value, count)

    def without_claims(self, subscription: Subscription, count: int) -> None:
        """Redis is away: so many events go on under the inbox alone."""
        self._claimed(subscription.queue, "unavailable", count)

    def _claimed(self, queue: str, outcome: str, count: int) -> None:
        self._claims.add(count, (queue, outcome), {"tandem.queue": queue, "tandem.outcome": outcome})

    def breaker(self, name: str, state: int) -> None:
        """A circuit breaker's state: 0 closed, 1 half-open, 2 open."""
        self._breaker_state.set(state, {"tandem.breaker": name})

    def settlement_failures_from(self, source: Callable[[], Mapping[str, int]]) -> None:
        """Where to ask for the settlements that failed since the start, by queue."""
        self._settlement_failures = source

    def troubles_from(self, source: Callable[[], Mapping[str, Trouble]]) -> None:
        """Where to ask what is in trouble now, by its name on the broker."""
        self._troubles = source

    def spans_lost_from(self, source: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Where to ask for the spans that were not exported since the start, by exporter and reason."""
        self._spans_lost = source

    def _observe(self, metric: str, _options: CallbackOptions) -> list[Observation]:
        return [Observation(sample.value, sample.attributes) for sample in self.measurements.of(metric)]

    def _observe_settlement_failures(self, _options: CallbackOptions) -> list[Observation]:
        return [
            Observation(count, {"tandem.queue": queue}) for queue, count in self._settlement_failures().items()
        ]

    def _observe_spans_lost(self, _options: CallbackOptions) -> list[Observation]:
        return [
            Observation(count, {"tandem.exporter": exporter, "error.type": reason})
            for (exporter, reason), count in self._spans_lost().items()
        ]

    def _observe_troubles(self, _options: CallbackOptions) -> list[Observation]:
        return [
            Observation(int(trouble.stops), {"tandem.place": name}) for name, trouble in self._troubles().items()
        ]
