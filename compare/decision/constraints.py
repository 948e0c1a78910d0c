"""Which broker lacks what one must have, and of which that is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Final

from compare.decision.preferences import Must
from compare.document import BrokerFigures, Summary
from deploy.topology import BrokerName
from experiment.facts import TITLES
from experiment.profiles import PROFILES
from shared.broker.kafka import KafkaAdapter
from shared.broker.rabbit import RabbitAdapter

SAMPLES_MIN: Final = 1_000
"""Latencies in each round, without which a 99th percentile is not known."""
_CAPABILITIES: Final[dict[BrokerName, dict[str, object]]] = {
    "rabbit": asdict(RabbitAdapter.capabilities),
    "kafka": asdict(KafkaAdapter.capabilities),
}
"""What the adapters state, each proved by the conformance suite."""
_ON_DISK: Final = "confirmed_is_on_disk"
_BEFORE_PROFILES: Final = "as-usual"


def lacking(summary: Summary, must: Must) -> dict[BrokerName, list[str]]:
    """Of each broker that is out, why."""
    profile = PROFILES[summary.workload.get("profile", _BEFORE_PROFILES)]
    found: dict[BrokerName, list[str]] = {}
    for broker, one in summary.brokers.items():
        able = {**_CAPABILITIES[broker], _ON_DISK: broker in profile.on_disk or broker in summary.not_checked}
        found[broker] = list(_lacks(broker, one, must, able))
    return {broker: reasons for broker, reasons in found.items() if reasons}


def open_questions(summary: Summary, must: Must) -> dict[BrokerName, str]:
    """Of each broker that may or may not have what one must have, why that is not known."""
    found: dict[BrokerName, str] = {}
    for broker, one in summary.brokers.items():
        if broker in summary.not_checked and _ON_DISK in must.capabilities:
            found[broker] = f"whether what {TITLES[broker]} has confirmed is on the disk was not checked"
        if must.p99_ms_max is None:
            continue
        rounds = _p99(one)
        fewest = min((each.latency.samples for each in one.steady_rounds), default=0)
        if not rounds or fewest < SAMPLES_MIN:
            found[broker] = f"{TITLES[broker]}'s p99 rests on {fewest:,} of {SAMPLES_MIN:,} samples a round"
        elif min(rounds) <= must.p99_ms_max < max(rounds):
            found[broker] = f"{TITLES[broker]}'s p99 was within {must.p99_ms_max:g} ms in some rounds only"
    return found


def _lacks(broker: BrokerName, one: BrokerFigures, must: Must, able: Mapping[str, object]) -> Iterator[str]:
    for name in must.capabilities:
        if not able[name]:
            yield f"{TITLES[broker]} is out: it lacks {name}"
    rounds = _p99(one)
    if must.p99_ms_max is not None and rounds and min(rounds) > must.p99_ms_max:
        yield f"{TITLES[broker]} is out: its p99 was over {must.p99_ms_max:g} ms in every round"


def _p99(one: BrokerFigures) -> list[float]:
    return [value for value in one.by_round.get("p99_ms", []) if value is not None]
