"""Histograms of which a value costs half a microsecond. By the SDK's instruments it is 4.4, three times a request.

The SDK makes an object of each value, copies and hashes its attributes, and passes it through readers, views and
aggregations. Here who records holds the series of its attributes. Exporters get data points of the SDK's own types
beside what the SDK has collected: the same buckets, sums, extremes and exemplars, always cumulative.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricsData,
)
from opentelemetry.sdk.metrics.export import (
    Histogram as Points,
)
from opentelemetry.trace import SpanContext

from shared.telemetry.conventions import SCOPE

Attributes: TypeAlias = Mapping[str, str | int]

_SIZES: Final = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2.5e3, 5e3, 7.5e3, 1e4)
"""The bounds of a histogram that has none of its own, as the SDK's specification has them."""


class Series:
    """The values that were recorded with the same attributes."""

    def __init__(self, attributes: Attributes, bounds: Sequence[float]) -> None:
        self._attributes = dict(attributes)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum: float = 0
        self._least, self._most = float("inf"), float("-inf")
        self._exemplars: dict[int, Exemplar] = {}
        self._started_ns = time.time_ns()
        self._lock = threading.Lock()

    def record(self, value: float, span: SpanContext | None) -> None:
        """Count a value. `span` is the one in which it was measured, if that is sampled: an exemplar."""
        place = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[place] += 1
            self._sum += value
            self._least = min(self._least, value)
            self._most = max(self._most, value)
            if span is not None:
                self._exemplars[place] = Exemplar({}, value, time.time_ns(), span.span_id, span.trace_id)

    def point(self, now_ns: int, since_ns: int) -> HistogramDataPoint:
        """All that was recorded, with the exemplars since a point in time."""
        with self._lock:
            return HistogramDataPoint(
                attributes=self._attributes,
                start_time_unix_nano=self._started_ns,
                time_unix_nano=now_ns,
                count=sum(self._counts),
                sum=self._sum,
                bucket_counts=tuple(self._counts),
                explicit_bounds=tuple(self._bounds),
                min=self._least,
                max=self._most,
                exemplars=[
                    exemplar
                    for _, exemplar in sorted(self._exemplars.items())
                    if exemplar.time_unix_nano >= since_ns
                ],
            )


class Histogram:
    """One metric, with a series for each set of attributes."""

    def __init__(self, name: str, unit: str, description: str, bounds: Sequence[float] | None = None) -> None:
        self._said = (name, description, unit)
        self._bounds = bounds or _SIZES
        self._series: list[Series] = []

    def series(self, attributes: Attributes) -> Series:
        """A new series; who asks for it keeps it."""
        series = Series(attributes, self._bounds)
        self._series.append(series)
        return series

    def metric(self, now_ns: int, since_ns: int) -> Metric | None:
        """What an exporter writes of it; None where nothing was recorded."""
        points = [point for series in list(self._series) if (point := series.point(now_ns, since_ns)).count]
        return Metric(*self._said, Points(points, AggregationTemporality.CUMULATIVE)) if points else None


class Histograms:
    """Those of one process, for its exporters."""

    def __init__(self) -> None:
        self._histograms: list[Histogram] = []

    def create(self, name: str, unit: str, description: str, bounds: Sequence[float] | None = None) -> Histogram:
        """A new metric."""
        histogram = Histogram(name, unit, description, bounds)
        self._histograms.append(histogram)
        return histogram

    def exporter(self) -> Callable[[MetricsData], MetricsData]:
        """What adds them to all that the SDK has collected for one exporter."""
        since_ns = 0

        def with_histograms(collected: MetricsData) -> MetricsData:
            nonlocal since_ns
            now_ns = time.time_ns()
            metrics = [histogram.metric(now_ns, since_ns) for histogram in self._histograms]
            since_ns = now_ns
            return _beside(collected, [metric for metric in metrics if metric is not None])

        return with_histograms


def _beside(collected: MetricsData, metrics: Sequence[Metric]) -> MetricsData:
    """The same with these metrics in our scope, which always has some."""
    return replace(
        collected,
        resource_metrics=[
            replace(
                resource,
                scope_metrics=[
                    replace(scope, metrics=[*scope.metrics, *metrics]) if scope.scope.name == SCOPE else scope
                    for scope in resource.scope_metrics
                ],
            )
            for resource in collected.resource_metrics
        ],
    )
