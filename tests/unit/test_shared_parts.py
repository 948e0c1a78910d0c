"""Small contracts of shared parts: errors, outbox shards, trace contexts, dead-letter headers, reading events."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from shared import errors
from shared.broker.base import Subscription, destination_name
from shared.consuming.subscriber import Handler, Subscriber
from shared.envelope import Envelope
from shared.errors import PermanentError, SchemaViolationError, TransientError, UnknownSchemaError
from shared.event import Event, EventData
from shared.publishing.outbox import VIRTUAL_SHARDS, shard_of
from shared.publishing.uow import UnitOfWork
from shared.telemetry.spans import Spans
from shared.telemetry.tracing import traceparent as trace_context
from shared.telemetry.tracing.event_spans import EventSpan
from shared.telemetry.tracing.recorder import Recorder, as_links
from shared.telemetry.tracing.span_batches import Ended

# -- errors

ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


def test_every_error_is_of_one_tree_drawn_in_its_module() -> None:
    for kind in ERRORS:
        assert issubclass(kind, errors.TandemError)
        assert kind.__name__ in (errors.__doc__ or ""), f"{kind.__name__} is not drawn"


def test_no_error_is_both_transient_and_permanent() -> None:
    assert [kind for kind in ERRORS if issubclass(kind, TransientError) and issubclass(kind, PermanentError)] == []


# -- outbox


@given(st.text())
def test_a_key_has_one_of_the_shards_and_always_the_same(key: str) -> None:
    assert 0 <= shard_of(key) < VIRTUAL_SHARDS
    assert shard_of(key) == shard_of(str(key))


def test_shards_are_for_good() -> None:
    """Fixed by rows that wait in somebody's outbox: another hash would let events of one key overtake."""
    known = {"": 0, "a": 3, "0198c0de-0000-7000-8000-00000000000a": 13, "名前": 0}
    assert {key: shard_of(key) for key in known} == known


def test_shards_share_the_keys() -> None:
    counts = [0] * VIRTUAL_SHARDS
    for number in range(1_600):
        counts[shard_of(f"key-{number}")] += 1
    assert min(counts) > 50


# -- spans

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


FLAGS = [("00", False), ("01", True), ("02", False), ("03", True), ("08", False), ("09", True), ("ff", True)]


@pytest.mark.parametrize(("flags", "sampled"), FLAGS)
@pytest.mark.parametrize("version", ["00", "01", "cc", "fe"])
def test_a_traceparent_is_read_and_written_back(version: str, flags: str, sampled: bool) -> None:
    """Trace Context, level 1 (3.2.2.5, 3.2.4) and level 2 (its random flag): one bit says sampled, others nothing,
    and who reads a later version writes on the one that it knows."""
    traceparent = f"{version}-{TRACE}-{SPAN}-{flags}"
    context = trace_context.remote_span(traceparent)
    assert context is not None
    assert trace_context.write(context) == f"00-{TRACE}-{SPAN}-{'01' if sampled else '00'}"
    assert trace_context.is_sampled(traceparent) is sampled
    assert context.is_remote


@pytest.mark.parametrize("more", ["-", "-what-the-future-will-be-like", "-01"])
def test_a_later_traceparent_may_be_longer(more: str) -> None:
    assert trace_context.is_sampled(f"cc-{TRACE}-{SPAN}-01{more}")


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "garbage",
        "00-xyz",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-zz",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01.",
        f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like",
        f".0-{TRACE}-{SPAN}-01",
        f"0.-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f"00-.{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-.{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN}-.1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-+{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE[:10]}_{TRACE[11:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}\u0661-01",
    ],
)
def test_a_malformed_traceparent_is_no_trace(traceparent: str | None) -> None:
    """Variants of what the W3C test suite for Trace Context sends, and what Python takes for numbers besides."""
    assert trace_context.remote_span(traceparent) is None
    assert not trace_context.is_sampled(traceparent)


def test_a_trace_that_is_none_is_written_as_none() -> None:
    """All zeros are no ids (Trace Context, 3.2.2.3 and 3.2.2.4); such a context is what a disabled SDK has."""
    assert trace_context.write(trace.INVALID_SPAN_CONTEXT) is None


SUBSCRIPTION = Subscription(channel="order", subscriber="notification", types=frozenset({"order.placed"}))


def traced(traceparent: Any) -> tuple[str | None, list[EventSpan]]:
    """The traceparent of an event that one with this traceparent causes, and the spans that were recorded."""
    recorded: list[Ended] = []
    own = Spans(Recorder(TraceIdRatioBased(1.0), [recorded.append]), "kafka")
    cause = Envelope(source="s", type="thing.happened", traceparent=traceparent, data={})
    with own.process_batch(SUBSCRIPTION, [cause]) as batch:
        if batch is not None:
            batch.begin(0)
        with own.create("order", "t", "s", cause.traceparent) as created:
            pass
    if batch is not None:
        batch.end(["done"], {})
    spans = [span for span in recorded if isinstance(span, EventSpan)]
    return created.traceparent, [span for span in spans if not span.shape.name.endswith("batch")]


@pytest.mark.parametrize("traceparent", [f"00-{TRACE}-{SPAN}-03", f"01-{TRACE}-{SPAN}-09-x"])
def test_an_event_with_any_sampled_traceparent_is_traced(traceparent: str) -> None:
    handed_on, recorded = traced(traceparent)
    assert handed_on is not None
    assert handed_on.startswith(f"00-{TRACE}-")
    assert [span.trace_id for span in recorded] == [TRACE, TRACE]


def test_an_event_that_is_not_sampled_hands_its_trace_on() -> None:
    assert traced(f"01-{TRACE}-{SPAN}-02-x") == (f"00-{TRACE}-{SPAN}-00", [])


@pytest.mark.parametrize("traceparent", ["garbage", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-x"])
def test_an_event_with_a_malformed_traceparent_begins_a_trace_as_one_without(traceparent: str) -> None:
    """Trace Context, 3.2.2: who cannot read it must not hand it on."""
    handed_on, recorded = traced(traceparent)
    assert trace_context.is_sampled(handed_on)
    assert len(recorded) == 2
    assert len(traced(None)[1]) == 2


@given(
    st.text()
    | st.from_regex(r"[0-9a-f-]{0,80}", fullmatch=True)
    | st.from_regex(r"(00|01|ff)-[0a]{31,33}-[0a]{15,17}-0[0-9](-x)?", fullmatch=True)
)
@example("00-" + "0" * 31 + "1-" + "0" * 15 + "1-03")
def test_no_text_breaks_the_reading_of_a_traceparent(traceparent: str) -> None:
    trace_context.remote_span(traceparent)
    as_links([traceparent, None], 128)
    fields, parent = trace_context.read(traceparent), trace_context.parent_of(traceparent)
    if fields is None:
        assert parent is None
    elif trace_context.is_sampled(traceparent):
        assert parent in {f"00-{fields[0]}-{fields[1]}-{flags}" for flags in ("01", fields[2])}
    else:
        assert parent is trace_context.NOT_SAMPLED


RECORDED, OF_OTHERS, NOT_RECORDED = f"00-{TRACE}-{SPAN}-01", f"00-{SPAN}{SPAN}-{SPAN}-03", f"00-{TRACE}-{SPAN}-02"
ODD = (
    None, "", "garbage", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"01-{TRACE}-{SPAN}-01-x",
    f"01-{TRACE}-{SPAN}-01", f"10-{TRACE}-{SPAN}-01", f"00-{TRACE[1:]}-0{SPAN}-01",
    f"00-{TRACE.upper()}-{SPAN}-01", f"000{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}001",
    f"00-{TRACE[1:]}--{SPAN}-01", f"00-{TRACE}-{SPAN}-0\u0661",
)  # fmt: skip


@given(st.lists(st.sampled_from((RECORDED, OF_OTHERS, NOT_RECORDED)), max_size=5))
@example([RECORDED, OF_OTHERS])
@example([NOT_RECORDED] * 3)
@example([RECORDED, NOT_RECORDED])
def test_what_stands_above_many_is_what_stands_above_each(traceparents: list[str]) -> None:
    each = [trace_context.parent_of(traceparent) for traceparent in traceparents]
    assert list(trace_context.parents_of(traceparents)) == each
    for odd in (*ODD, f"{RECORDED}\n{RECORDED}", RECORDED[:-1], f"0{RECORDED}"):
        among = [*traceparents, odd, RECORDED]
        assert list(trace_context.parents_of(among)) == [*each, trace_context.parent_of(odd), RECORDED]


def test_what_stands_above_many_is_not_misread_where_their_texts_only_look_right_together() -> None:
    two_in_one, rest = f"{RECORDED}\n{RECORDED}", RECORDED[:-1]
    for traceparents in ([RECORDED + "\n" + rest, "1"], [two_in_one, ""], [two_in_one], [rest, "1" + RECORDED]):
        assert list(trace_context.parents_of(traceparents)) == [None] * len(traceparents)


def test_destinations_have_their_brokers_names() -> None:
    assert destination_name("rabbit", "order") == "order.events"
    assert destination_name("kafka", "order") == "order-events"


# -- reading events


class Happened(EventData):
    channel = "thing"
    event_type = "thing.happened"
    schema_version = 2
    number: int


async def ignore(_event: Event[Happened], _uow: UnitOfWork) -> None: ...


HANDLER = Handler(Happened, ignore)


def envelope(schema: str | None, data: object) -> Envelope:
    return Envelope(source="s", type="thing.happened", dataschema=schema, data=data)


@pytest.mark.parametrize("schema", [None, "urn:tandem:thing.happened:2"])
def test_a_known_schema_is_read_and_unknown_fields_are_tolerated(schema: str | None) -> None:
    event = HANDLER.read(envelope(schema, {"number": 1, "new": "field"}))
    assert event.data == Happened(number=1)
    assert event.id == event.envelope.id


@pytest.mark.parametrize("schema", ["urn:tandem:thing.happened:3", "urn:tandem:thing.happened:1", ""])
def test_another_schema_version_is_refused(schema: str) -> None:
    with pytest.raises(UnknownSchemaError):
        HANDLER.read(envelope(schema, {"number": 1}))


@pytest.mark.parametrize("data", [None, {}, [], {"number": "x"}, {"number": None}, "text", 7])
def test_data_that_breaks_the_schema_is_refused(data: object) -> None:
    with pytest.raises(SchemaViolationError) as raised:
        HANDLER.read(envelope(None, data))
    assert "thing.happened" in str(raised.value)


def test_a_refusal_names_the_field_and_keeps_the_payload_to_itself() -> None:
    with pytest.raises(SchemaViolationError, match="number: ") as raised:
        HANDLER.read(envelope(None, {"number": "a secret"}))
    assert "a secret" not in str(raised.value)


def test_a_subscriber_wants_what_it_handles() -> None:
    subscriber = Subscriber("thing", "tests", (HANDLER,), ignores=frozenset({"thing.else"}))
    assert subscriber.types == {"thing.happened"}
