"""Rates, latencies and their histograms say what their definitions say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hdrh.log import HistogramLogReader

from experiment.figures import Latencies, Progressed, cumulative, rate, write_histogram_log


def test_the_running_total_has_one_mark_for_each_commit() -> None:
    assert cumulative([2.0, 1.0, 2.0, 4.0]) == [Progressed(1.0, 1), Progressed(2.0, 3), Progressed(4.0, 4)]


def test_a_steady_stream_has_its_rate_whatever_the_size_of_its_batches() -> None:
    for batch in (1, 10, 40):
        progress = [Progressed(k * batch / 1_000, k * batch) for k in range(1, 4_000 // batch + 1)]
        assert rate(progress).per_s == pytest.approx(1_000)


def test_a_slow_start_and_a_slow_end_do_not_count_within_the_marks() -> None:
    stream = [Progressed(10.0 + k / 100, k) for k in range(50, 951)]
    progress = [Progressed(0.0, 10), *stream, Progressed(100.0, 1_000)]
    assert rate(progress).per_s == pytest.approx(100)
    assert rate(progress, low=0.0, high=1.0).per_s == pytest.approx(9.9)


def test_work_done_in_one_commit_has_no_rate() -> None:
    assert rate([Progressed(5.0, 100)]).per_s is None
    assert rate([]).per_s is None


def test_latencies_are_exact_to_three_digits() -> None:
    latencies = Latencies()
    for milliseconds in range(1, 101):
        latencies.record(milliseconds / 1_000)
    assert latencies.percentile_ms(50) == pytest.approx(50, rel=1e-3)
    assert latencies.percentile_ms(99) == pytest.approx(99, rel=1e-3)
    assert latencies.figures()["max_ms"] == pytest.approx(100, rel=1e-3)


def test_negative_latencies_are_kept_and_counted() -> None:
    latencies = Latencies()
    latencies.record(-0.002)
    latencies.record(0.010)
    figures = latencies.figures()
    assert (figures["samples"], figures["negative_samples"], figures["most_negative_ms"]) == (2, 1, -2.0)


def test_what_never_came_to_its_end_is_counted_with_the_time_that_was_waited() -> None:
    latencies, others = Latencies(), Latencies()
    latencies.record(0.010)
    others.record_endless(10.0)
    latencies.add(others)
    assert (latencies.count, latencies.endless) == (2, 1)
    assert latencies.percentile_ms(99) == pytest.approx(10_000, rel=1e-3)


def test_the_histogram_log_can_be_read_back(tmp_path: Path) -> None:
    latencies = Latencies()
    for _ in range(10):
        latencies.record(0.025)
    write_histogram_log(tmp_path / "log.hlog", {"rabbit-steady-1": (1_000.0, 5.0, latencies)})
    reader = HistogramLogReader(str(tmp_path / "log.hlog"), Latencies().histogram)
    read = reader.get_next_interval_histogram()
    reader.close()
    assert read.get_total_count() == 10
    assert read.get_value_at_percentile(50) == pytest.approx(25_000, rel=1e-3)
