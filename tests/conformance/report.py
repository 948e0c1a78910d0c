"""Collects what the conformance run found, for the matrix that pytest prints at the end."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from shared.broker.base import Capabilities
from shared.broker.kafka.adapter import KafkaAdapter
from shared.broker.rabbit.adapter import RabbitAdapter

_CAPABILITIES = {"rabbit": RabbitAdapter.capabilities, "kafka": KafkaAdapter.capabilities}


@dataclass
class Report:
    """Results by check and broker, repetitions counted, and which broken adapters were caught by which check."""

    results: dict[str, dict[str, str]] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    caught: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def brokers(self) -> list[str]:
        """Those that something was checked of."""
        return sorted({b for row in (*self.results.values(), *self.caught.values()) for b in row}, reverse=True)

    def note(self, claim: str, broker: str, result: str, duplicates: int = 0) -> None:
        """A check's result, and the repetitions that it allowed and counted."""
        self.results.setdefault(claim, {})[broker] = result + (f", {duplicates} repeated" if duplicates else "")
        self.duplicates[broker] = self.duplicates.get(broker, 0) + duplicates

    def note_caught(self, adapter: str, broker: str, result: str) -> None:
        """Whether a check saw that this adapter is broken."""
        self.caught.setdefault(adapter, {})[broker] = result

    def lines(self) -> list[str]:
        """The matrix as text."""
        brokers = self.brokers
        blank = ("", *("" for _ in brokers))
        rows: list[tuple[str, ...]] = [("", *brokers)]
        names = [f.name for f in fields(Capabilities) if f.name != "name"]
        rows += [(_words(n), *(_word(getattr(_CAPABILITIES[b], n)) for b in brokers)) for n in names]
        rows += [
            blank,
            *((claim, *(row.get(b, "-") for b in brokers)) for claim, row in sorted(self.results.items())),
        ]
        rows.append(("repeated deliveries, all allowed", *(str(self.duplicates.get(b, 0)) for b in brokers)))
        if self.caught:
            rows += [blank, ("broken on purpose, and the checks that caught it", *brokers)]
            rows += [(name, *(row.get(b, "-") for b in brokers)) for name, row in sorted(self.caught.items())]
        width = max(len(name) for name, *_ in rows) + 2
        return [f"{name:<{width}}" + "".join(f"{value:<24}" for value in values) for name, *values in rows]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
