"""Which broker lacks what one must have, and of which that is not known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from compare.decision.preferences import Must
from compare.document import BrokerFigures, Summary
from deploy.topology import BrokerName
from experiment.facts import TITLES
from shared.broker.kafka import KafkaAdapter
from shared.broker.rabbit import RabbitAdapter

SAMPLES_MIN: Final = 1_000
"""Latencies in each round, without which a 99th percentile is not known."""
CAPABILITIES: Final[dict[BrokerName, dict[str, object]]] = {
    # A quorum queue confirms what is synced; one Kafka node confirms what is in its page cache.
    "rabbit": {**asdict(RabbitAdapter.capabilities), "confirmed_is_on_disk": True},
    "kafka": {**asdict(KafkaAdapter.capabilities), "confirmed_is_on_disk": False},
}
"""What the adapters state, each proved by the conformance suite, and the durability of the profile
`single-node`."""


def lacking(summary: Summary, must: Must) -> dict[BrokerName, list[str]]:
    """Of each broker that is out, why."""
    found = {broker: list(_lacks(broker, one, must)) for broker, one in summary.brokers.items()}
    return {broker: reasons for broker, reasons in found.items() if reasons}


def open_questions(summary: Summary, must: Must) -> dict[BrokerName, str]:
    """Of each broker that may or may not keep the latency budget, why that is not known."""
    if must.p99_ms_max is None:
        return {}
    found: dict[BrokerName, str] = {}
    for broker, one in summary.brokers.items():
        rounds = _p99(one)
        fewest = min((each.latency.samples for each in one.steady_rounds), default=0)
        if not rounds or fewest < SAMPLES_MIN:
            found[broker] = f"{TITLES[broker]}'s p99 rests on {fewest:,} of {SAMPLES_MIN:,} samples a round"
        elif min(rounds) <= must.p99_ms_max < max(rounds):
            found[broker] = f"{TITLES[broker]}'s p99 was within {must.p99_ms_max:g} ms in some rounds only"
    return found


def _lacks(broker: BrokerName, one: BrokerFigures, must: Must) -> Iterator[str]:
    for name in must.capabilities:
        if not CAPABILITIES[broker][name]:
            yield f"{TITLES[broker]} is out: it lacks {name}"
    rounds = _p99(one)
    if must.p99_ms_max is not None and rounds and min(rounds) > must.p99_ms_max:
        yield f"{TITLES[broker]} is out: its p99 was over {must.p99_ms_max:g} ms in every round"


def _p99(one: BrokerFigures) -> list[float]:
    return [value for value in one.by_round.get("p99_ms", []) if value is not None]
