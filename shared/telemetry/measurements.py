"""The last answers to questions about what nobody counts: how queues, outbox and dead letters stand.

A value is there for as long as its last answer stands: by an old one, whatever is in trouble would look well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

UP: Final = "tandem.measurement.up"
METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "tandem.outbox.messages": ("{message}", "Waiting for the relay"),
    "tandem.outbox.oldest.age": ("s", "Age of the first that waits"),
    "tandem.schedule.lag": ("s", "How long a schedule should have fired already"),
    "tandem.job.steps": ("{step}", "Steps of jobs by queue and state: ready, running, scheduled"),
    "tandem.job.oldest.age": ("s", "How long the first step of a queue has been ready"),
    "tandem.job.workers": ("{worker}", "Workers that are alive, draining, lost"),
    "tandem.queue.messages": ("{message}", "Waiting for the subscriber; on Kafka the group's lag"),
    "tandem.queue.consumers": ("{consumer}", "Connected consumers"),
    "tandem.dead_letters": ("{letter}", "Dead letters by state and kind"),
    UP: ("", "1: the last question was answered; 0: it was not, and what it asks about has no series"),
}
"""Unit and description of each."""


class Sample(NamedTuple):
    """One value of a metric of `METRICS`."""

    metric: str
    value: float
    attributes: Mapping[str, str] = {}


class Measurements:
    """The last answer to each question."""

    def __init__(self) -> None:
        self._answers: dict[str, Sequence[Sample]] = {}

    def answered(self, question: str, samples: Sequence[Sample]) -> None:
        """Replace what was known by this answer."""
        self._answers[question] = (*samples, Sample(UP, 1, {"tandem.question": question}))

    def failed(self, question: str) -> None:
        """Forget what was known: the question was not answered."""
        self._answers[question] = (Sample(UP, 0, {"tandem.question": question}),)

    def of(self, metric: str) -> list[Sample]:
        """The values of one metric. May be called in any thread, as exporters do."""
        answers = list(self._answers.values())
        return [sample for answer in answers for sample in answer if sample.metric == metric]
