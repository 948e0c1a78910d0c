"""Trace and metric files: bounded, whole lines only, and a full disk costs telemetry alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from opentelemetry.trace import Tracer
from structlog.testing import capture_logs

from deploy.show.traces import find_in_files
from shared.settings import Settings
from shared.telemetry import files
from shared.telemetry.files import OLDER_MAX, RotatingLines
from shared.telemetry.provider import Provider

LINE = "x" * 99 + "\n"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BYTES_MAX", 1_000)


@pytest.fixture
def lines(tmp_path: Path) -> RotatingLines:
    return RotatingLines(tmp_path / "telemetry" / "traces-order.jsonl")


def written(tmp_path: Path) -> dict[str, int]:
    return {place.name: place.stat().st_size for place in sorted((tmp_path / "telemetry").iterdir())}


def test_a_file_is_bounded_and_the_newest_are_kept(tmp_path: Path, lines: RotatingLines) -> None:
    for number in range(200):
        lines.write(f"{number:099}\n")

    sizes = written(tmp_path)
    assert list(sizes) == ["traces-order.jsonl", "traces-order.jsonl.1", "traces-order.jsonl.2"]
    assert max(sizes.values()) <= 1_000
    newest_last = [tmp_path / "telemetry" / name for name in reversed(sizes)]
    kept = [int(line) for place in newest_last for line in place.read_text().splitlines()]
    assert kept == list(range(200 - len(kept), 200))
    assert len(kept) > 10 * OLDER_MAX


def test_another_process_of_the_name_goes_on_within_the_same_bound(tmp_path: Path, lines: RotatingLines) -> None:
    for _ in range(7):
        lines.write(LINE)
    successor = RotatingLines(tmp_path / "telemetry" / "traces-order.jsonl")
    for _ in range(7):
        successor.write(LINE)

    assert written(tmp_path) == {"traces-order.jsonl": 400, "traces-order.jsonl.1": 1_000}


def test_no_file_takes_the_place_of_another(
    tmp_path: Path, lines: RotatingLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ext4 would write it out at once."""
    replaced: list[str] = []
    replace = Path.replace

    def watched(old: Path, new: Path) -> Path:
        replaced.extend([str(new)] if new.exists() else [])
        return replace(old, new)

    monkeypatch.setattr(Path, "replace", watched)
    for number in range(50):
        lines.write(f"{number:099}\n")
    assert replaced == []
    assert len(written(tmp_path)) == 1 + OLDER_MAX


def full_disk(_file: object, _data: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def nearly_full_disk(file: Callable[..., int], data: bytes) -> None:
    file.write(data[: len(data) // 2])  # type: ignore[attr-defined]
    full_disk(file, data)


@pytest.mark.parametrize("write_all", [full_disk, nearly_full_disk])
def test_a_full_disk_drops_whole_lines_says_so_once_and_is_tried_again(
    tmp_path: Path, lines: RotatingLines, monkeypatch: pytest.MonkeyPatch, write_all: Callable[..., None]
) -> None:
    lines.write(LINE)
    with capture_logs() as said, monkeypatch.context() as full:
        full.setattr(files, "_write_all", write_all)
        for _ in range(50):
            lines.write(LINE)
    assert [(line["event"], line["log_level"], line["error"]) for line in said] == [
        ("telemetry.dropped", "warning", "[Errno 28] No space left on device")
    ]
    lines.write(LINE)

    assert (tmp_path / "telemetry" / "traces-order.jsonl").read_text() == LINE * 2


def test_what_a_disk_takes_only_in_parts_is_written_whole(tmp_path: Path) -> None:
    class Reluctant:
        taken = b""

        def write(self, data: memoryview) -> int:
            self.taken += bytes(data[:7])
            return min(7, len(data))

    file = Reluctant()
    files._write_all(file, LINE.encode())  # type: ignore[arg-type]
    assert file.taken == LINE.encode()


def test_a_directory_that_cannot_be_made_or_was_deleted_stops_nobody(tmp_path: Path, lines: RotatingLines) -> None:
    (tmp_path / "telemetry").touch()  # no directory
    lines.write(LINE)
    (tmp_path / "telemetry").unlink()
    lines.write(LINE)

    assert written(tmp_path) == {"traces-order.jsonl": 100}


def test_lines_that_no_file_has_room_for_are_dropped(tmp_path: Path, lines: RotatingLines) -> None:
    lines.write(LINE)
    lines.write("x" * 1_001)

    assert written(tmp_path) == {"traces-order.jsonl": 100}


def recorded(tracer: Tracer, count: int) -> str:
    """So many spans; the trace of the last."""
    for _ in range(count):
        with tracer.start_as_current_span("handle") as span:
            pass
    return f"{span.get_span_context().trace_id:032x}"


def test_a_process_writes_spans_and_metrics_through_it_and_a_trace_is_found_in_an_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BYTES_MAX", 20_000)
    settings = Settings(
        broker="rabbit", http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-", rabbit_url="amqp://-",
        otlp_dir=tmp_path / "telemetry",
    )  # fmt: skip
    provider = Provider(settings, "order", "order-consumer")
    provider.meter.create_counter("tandem.tests").add(1)
    trace = recorded(provider.tracer, 3)
    provider._tracers.force_flush()
    for _ in range(20):
        recorded(provider.tracer, 5)
        provider._tracers.force_flush()
    provider.shutdown()

    sizes = written(tmp_path)
    assert max(sizes.values()) <= 20_000
    assert {name for name in sizes if name.startswith("traces")} >= {"traces-order-consumer.jsonl.1"}
    assert "metrics-order-consumer.jsonl" in sizes
    for name in sizes:
        for line in (tmp_path / "telemetry" / name).read_bytes().splitlines():
            orjson.loads(line)
    assert [*find_in_files(tmp_path / "telemetry", trace).traces] == [trace]
