"""What is written of a new event: the row and the bytes that its envelope has, and the moment when it happened."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from shared import envelope
from shared.envelope import Envelope, time_now
from shared.event import EventData
from shared.publishing.written import Cause, Published, written
from shared.telemetry import Created
from tests.outbox_rows import outbox_row

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


class Happened(EventData):
    channel = "thing"
    event_type = "thing.happened"
    said: str


@pytest.mark.parametrize("traceparent", [TRACEPARENT, None])
@pytest.mark.parametrize(
    ("subject", "key", "cause", "correlation"),
    [
        ("s", "k", Cause(None, None, None), "id-1"),
        ("", "", Cause("cause", TRACEPARENT, "root"), "root"),
        ("s", "s", Cause("cause", None, None), "cause"),
    ],
)
def test_it_is_what_its_envelope_would_be_written_as(
    subject: str, key: str, cause: Cause, correlation: str, traceparent: str | None
) -> None:
    data, created = Happened(said='ä \u0001 "'), Created("id-1", traceparent)
    row = written(data, created, cause, source="/services/tests", subject=subject, key=key)
    event = Envelope.decode(row["body"])
    assert event.encode() == row["body"]
    assert row == outbox_row("thing", event)
    assert (event.id, event.source, event.type) == ("id-1", "/services/tests", "thing.happened")
    assert (event.subject, event.partitionkey, event.traceparent) == (subject, key, traceparent)
    assert (event.correlationid, event.causationid) == (correlation, cause.event_id)
    assert (event.dataschema, event.data) == ("urn:tandem:thing.happened:1", {"said": data.said})
    published = Published(row)
    assert (published.id, published.traceparent, published.envelope) == ("id-1", traceparent, event)


def test_of_an_event_without_a_trace_or_a_cause_nothing_is_said_of_them() -> None:
    row = written(
        Happened(said=""), Created("id-1", None), Cause(None, None, None), source="/s", subject="s", key="s"
    )
    assert {"traceparent", "causationid"}.isdisjoint(orjson.loads(row["body"]))


@pytest.mark.parametrize(
    "moment_ns", [0, 999_999_999, 1_800_000_000_000_000_000, 1_800_000_000_000_001_999, 1_800_000_059_999_999_999]
)
def test_its_time_is_exact_to_a_microsecond(monkeypatch: pytest.MonkeyPatch, moment_ns: int) -> None:
    monkeypatch.setattr(envelope, "time_ns", lambda: moment_ns)
    told = datetime.fromisoformat(time_now())
    second, nanosecond = divmod(moment_ns, 1_000_000_000)
    assert told == datetime.fromtimestamp(second, UTC).replace(microsecond=nanosecond // 1_000)
