"""Makes figures of times: rates between two marks, and latencies in HdrHistograms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hdrh.histogram import HdrHistogram

LOW_SHARE = 0.05
HIGH_SHARE = 0.95
SHORT_S = 0.5
"""A rate over less time says little: one hiccough of the machine, or one fetch of a client, decides it."""
EFFECTS_PER_S = (
    "Effects per second while a backlog is drained: of all effects in the order in which COMMIT returned for "
    "them, those after the one that completes the first 5 % up to the one that completes 95 %, divided by the "
    "time between these two. As many consumer processes as the workload says, started cold."
)
RELAY_EVENTS_PER_S = (
    "Outbox rows per second that the relay published and had confirmed, by the times of the confirmations, "
    "between 5 % and 95 % of the backlog."
)
LATENCY = (
    "From the time at which the request was scheduled to be sent (not when it was sent) to the moment at which "
    "COMMIT of its effect had returned to the consumer, at the steady rate; one host, one monotonic clock. An "
    "effect whose stamp is missing is counted as unstamped and has PostgreSQL's own commit time. What has no "
    "effect is a sample too: a request that failed, was refused or never sent has the time-out of a request, an "
    "acknowledged one the time that was waited for its effect."
)
_LATENCY_MAX_US = 3_600 * 1_000_000
_SIGNIFICANT_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Progressed:
    """How much was done at a time: `count` in total at `at_s`."""

    at_s: float
    count: int


@dataclass(frozen=True, slots=True)
class RateFigure:
    """`per_s` = `count` / `seconds`. None where the work came in one go, so that no time can be told."""

    count: int
    seconds: float
    per_s: float | None


def cumulative(times_s: Iterable[float]) -> list[Progressed]:
    """The running total at each distinct time."""
    progress: list[Progressed] = []
    count = 0
    for at_s, group in groupby(sorted(times_s)):
        count += sum(1 for _ in group)
        progress.append(Progressed(at_s, count))
    return progress


def rate(progress: Sequence[Progressed], low: float = LOW_SHARE, high: float = HIGH_SHARE) -> RateFigure:
    """The rate from the first mark at or over `low` of the total to the first at or over `high` of it."""
    if not progress:
        return RateFigure(0, 0.0, None)
    total = progress[-1].count
    first = next(mark for mark in progress if mark.count >= low * total)
    last = next(mark for mark in progress if mark.count >= high * total)
    count, seconds = last.count - first.count, last.at_s - first.at_s
    return RateFigure(count, seconds, count / seconds if seconds > 0 else None)


class Latencies:
    """A histogram of microseconds. Negative samples are counted apart and enter the histogram as 0; what never
    came to its end is counted apart and enters it with the time that was waited."""

    def __init__(self) -> None:
        self.histogram = HdrHistogram(1, _LATENCY_MAX_US, _SIGNIFICANT_DIGITS)
        self.negative = 0
        self.endless = 0
        self.most_negative_s = 0.0

    def record(self, seconds: float) -> None:
        if seconds < 0:
            self.negative += 1
            self.most_negative_s = min(self.most_negative_s, seconds)
        self.histogram.record_value(min(max(0, round(seconds * 1e6)), _LATENCY_MAX_US))

    def record_endless(self, waited_s: float) -> None:
        """What had not come to its end after so long."""
        self.endless += 1
        self.record(waited_s)

    def add(self, other: Latencies) -> None:
        self.histogram.add(other.histogram)
        self.negative += other.negative
        self.endless += other.endless
        self.most_negative_s = min(self.most_negative_s, other.most_negative_s)

    @property
    def count(self) -> int:
        return int(self.histogram.get_total_count())

    def percentile_ms(self, percentile: float) -> float | None:
        """The value in milliseconds under which `percentile` percent of the samples lie; None without samples."""
        return self._percentiles_ms(percentile)[0]

    def _percentiles_ms(self, *percentiles: float) -> list[float | None]:
        """All of them in one walk over the histogram, which has ten thousands of counts."""
        found = self.histogram.get_percentile_to_value_dict(percentiles) if self.count else {}
        return [round(float(found[one]) / 1_000, 3) if one in found else None for one in percentiles]

    def figures(self) -> dict[str, float | int | None]:
        p50_ms, p90_ms, p99_ms, max_ms = self._percentiles_ms(50, 90, 99, 100)
        return {
            "samples": self.count,
            "p50_ms": p50_ms,
            "p90_ms": p90_ms,
            "p99_ms": p99_ms,
            "max_ms": max_ms,
            "without_effect": self.endless,
            "negative_samples": self.negative,
            "most_negative_ms": round(self.most_negative_s * 1_000, 3),
        }


def write_histogram_log(path: Path, latencies: Mapping[str, tuple[float, float, Latencies]]) -> None:
    """Write HdrHistogram's log format 1.3: (start in epoch seconds, length in seconds, latencies) by tag.

    Values are microseconds; the column of the maximum is in milliseconds.
    """
    lines = [
        "#[latencies in microseconds from intended time to committed effect]",
        "#[Histogram log format version 1.3]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for tag, (start_s, length_s, recorded) in latencies.items():
        payload = "".join(recorded.histogram.encode().decode().split())
        maximum_ms = recorded.histogram.get_max_value() / 1_000
        lines.append(f"Tag={tag},{start_s:.3f},{length_s:.3f},{maximum_ms:.3f},{payload}")
    path.write_text("\n".join(lines) + "\n")
