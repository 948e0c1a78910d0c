"""Where the time from an intended request to its durable effect went, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping

from experiment.clock import Clock
from experiment.figures import Latencies
from experiment.ledger import Entry
from experiment.stamps.reader import Times

STAGES: Mapping[str, str] = {
    "to_send": "intended → sent: the load generator",
    "to_relay": "sent → relayed: HTTP, outbox, relay",
    "to_consumer": "relayed → received: broker, its client, the batch before",
    "to_effect": "received → durable: pipeline, COMMIT",
}
"""One after the other: their means add up to the mean latency."""
ASIDE: Mapping[str, str] = {
    "to_answer": "sent → answered: what the caller waits for",
    "to_confirm": "relayed → confirmed: what the relay waits for",
}
"""Beside them, in the same time."""


class Stages:
    """A histogram for each stage, and the sums for their means."""

    def __init__(self) -> None:
        self.latencies = {name: Latencies() for name in (*STAGES, *ASIDE)}
        self._sums_s = dict.fromkeys(self.latencies, 0.0)

    def record(self, entry: Entry, times: Times, clock: Clock) -> None:
        """Enter an event that was sent over HTTP and has every stamp; any other is left out."""
        sent_s, answered_s = entry.sent_s, entry.acknowledged_s
        if sent_s is None or answered_s is None or not times.complete:
            return
        relayed_s, confirmed_s, received_s, durable_s = (
            clock.at_s(mark) for mark in times.marks if mark is not None
        )
        for name, seconds in {
            "to_send": sent_s - entry.intended_s,
            "to_relay": relayed_s - sent_s,
            "to_consumer": received_s - relayed_s,
            "to_effect": durable_s - received_s,
            "to_answer": answered_s - sent_s,
            "to_confirm": confirmed_s - relayed_s,
        }.items():
            self.latencies[name].record(seconds)
            self._sums_s[name] += seconds

    def add(self, other: Stages) -> None:
        for name, latencies in other.latencies.items():
            self.latencies[name].add(latencies)
            self._sums_s[name] += other._sums_s[name]

    def figures(self) -> dict[str, dict[str, float | int | None]]:
        """By stage: samples, mean, p50 and p99 in milliseconds; empty without samples."""
        return {
            name: {
                "samples": latencies.count,
                "mean_ms": round(self._sums_s[name] / latencies.count * 1_000, 3),
                "p50_ms": latencies.percentile_ms(50),
                "p99_ms": latencies.percentile_ms(99),
            }
            for name, latencies in self.latencies.items()
            if latencies.count
        }
