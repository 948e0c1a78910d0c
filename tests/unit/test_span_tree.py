"""The spans of an event from request to effect: names, kinds, parents, links, attributes and failures.

What is expected here was written by the SDK's own spans, before ours took their place on the way of an event.
Since then an event that comes alone is no batch any more, and its own span says what was raised.
"""

from __future__ import annotations

import asyncio
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.trace import SpanKind

from shared.broker import Subscription
from shared.envelope import Envelope
from shared.errors import BusinessError
from shared.settings import BrokerName, Settings
from shared.telemetry import Telemetry

REMOTE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SUBSCRIPTION = Subscription(channel="order", subscriber="notification", types=frozenset({"order.placed"}))
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203332-00"


EXPECTED = """\
send order: send order.events, kind 3, in 1 below create order/768, links ['send order batch/256'] |
    system=rabbitmq destination.name=order.events operation.name=send operation.type=send message.id=event-1
    tandem.event.type=order.placed | {} []
send order': send order.events, kind 3, in O below O/768, links ['send order batch/256'] | system=rabbitmq
    destination.name=order.events operation.name=send operation.type=send message.id=event-2
    tandem.event.type=order.paid | {'message': 'not confirmed', 'code': 2} []
send order batch: send order.events batch, kind 3, in 2 below none/256, links ['create order/768', 'O/768'] |
    system=rabbitmq destination.name=order.events operation.name=send operation.type=send
    batch.message_count=4 | {} []
POST /orders: POST /orders, kind 2, in 1 below none/256, links none |  | {} []
create order: create order.events, kind 4, in 1 below POST /orders/256, links none | system=rabbitmq
    destination.name=order.events operation.name=create operation.type=create message.id=new
    tandem.event.type=order.placed tandem.event.subject=order "1" | {} []
process order batch: process order.events batch, kind 5, in 3 below none/256, links ['create order/768',
    'O/768'] | system=rabbitmq destination.name=order.events operation.name=process operation.type=process
    consumer.group.name=notification batch.message_count=4 | {} []
process order: process order.events, kind 5, in 1 below create order/768, links ['process order batch/256'] |
    system=rabbitmq destination.name=order.events operation.name=process operation.type=process
    consumer.group.name=notification message.id=event-1 tandem.event.type=order.placed
    tandem.event.subject=order "1" tandem.status=done | {} []
create notification: create notification.events, kind 4, in 1 below process order/256, links ['O/768'] |
    system=rabbitmq destination.name=notification.events operation.name=create operation.type=create
    message.id=new tandem.event.type=notification.sent tandem.event.subject=n-1 | {} []
process order': process order.events, kind 5, in O below O/768, links ['process order batch/256'] |
    system=rabbitmq destination.name=order.events operation.name=process operation.type=process
    consumer.group.name=notification message.id=event-2 tandem.event.type=order.placed
    tandem.event.subject=order "2" tandem.status=dead_lettered error.type=BusinessError | {'message': 'no
    such', 'code': 2} []
process order'': process order.events, kind 5, in 4 below none/256, links ['process order batch/256'] |
    system=rabbitmq destination.name=order.events operation.name=process operation.type=process
    consumer.group.name=notification message.id=event-0 tandem.event.type=order.placed tandem.event.subject=
    tandem.status=done | {} []
process order''': process order.events, kind 5, in R below R/768, links none | system=rabbitmq
    destination.name=order.events operation.name=process operation.type=process
    consumer.group.name=notification message.id=event-5 tandem.event.type=order.placed
    tandem.event.subject=order "5" tandem.status=rolled_back error.type=LookupError | {'message': 'gone',
    'code': 2} [['exception', 'exception.type', 'exception.message', 'exception.stacktrace',
    'exception.escaped']]
create order': create order.events, kind 4, in R below R/768, links none | system=rabbitmq
    destination.name=order.events operation.name=create operation.type=create message.id=new
    tandem.event.type=order.placed tandem.event.subject=s | {'message': 'ValueError: too large', 'code': 2}
    [['exception', 'exception.type', 'exception.message', 'exception.stacktrace', 'exception.escaped']]
ask quotes: ask quotes.events, kind 3, in 5 below none/256, links none | system=rabbitmq
    destination.name=quotes.events operation.name=ask operation.type=send message.conversation_id=new
    tandem.event.type=quote.asked tandem.event.subject=q-1 | {} []
receive reply quotes: receive reply quotes.events, kind 5, in O below O/768, links ['ask quotes/256'] |
    system=rabbitmq destination.name=quotes.events operation.name=receive operation.type=receive
    message.conversation_id=request-1 | {} []"""


def telemetry_in(directory: Path, broker: BrokerName = "rabbit", trace_ratio: float = 1.0) -> Telemetry:
    return Telemetry(
        Settings(
            broker=broker, http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-", rabbit_url="amqp://-",
            kafka_bootstrap="-:1", otlp_dir=directory, trace_ratio=trace_ratio,
        ),
        "order",
    )  # fmt: skip


def an_event(traceparent: str | None, number: int) -> Envelope:
    return Envelope(
        source="/services/order",
        type="order.placed",
        subject=None if number == 0 else f'order "{number}"',
        traceparent=traceparent,
        data={},
        id=f"event-{number}",
    )


def request(telemetry: Telemetry) -> str:
    """A request that places an order; the traceparent of its event."""
    with (
        telemetry._provider.tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER),
        telemetry.spans.create("order", "order.placed", 'order "1"') as created,
    ):
        assert created.traceparent is not None
        return created.traceparent


def relay(telemetry: Telemetry, placed: str) -> None:
    events: list[tuple[str, str, str | None]] = [
        ("event-1", "order.placed", placed),
        ("event-2", "order.paid", OTHER),
        ("event-3", "order.paid", UNSAMPLED),
        ("event-4", "order.paid", None),
    ]
    telemetry.sent("order", events, 1_000, 2_000, frozenset({"event-2", "event-3"}))


def consume(telemetry: Telemetry, placed: str) -> str | None:
    """A batch of which one publishes another, one fails alone and one begins a trace; the trace of that other."""
    spans = telemetry.spans
    events = [an_event(placed, 1), an_event(OTHER, 2), an_event(UNSAMPLED, 3), an_event("garbage", 0)]
    published = None
    with spans.process_batch(SUBSCRIPTION, events) as batch:
        assert batch is not None
        before = spans.current()
        batch.begin(0)
        caused_in = events[0].traceparent
        with spans.create("notification", "notification.sent", "n-1", caused_in, link=OTHER) as created:
            published = created.traceparent
        batch.begin(1)
        batch.begin(2)
        assert spans.current() == before
        with spans.create("notification", "notification.sent", "n-3", events[2].traceparent) as created:
            assert created.traceparent == UNSAMPLED
        batch.begin(3)
        batch.rest()
        assert spans.current() == before
    batch.end(["done", "dead_lettered", "done", "done"], {1: BusinessError("no such\npayload")})
    return published


def fail(telemetry: Telemetry) -> None:
    """A batch that is rolled back, and an event that cannot be made."""
    spans = telemetry.spans
    event = an_event(REMOTE, 5)
    with suppress(LookupError), spans.process_batch(SUBSCRIPTION, [event]) as batch:
        assert batch is not None
        batch.begin(0)
        raise LookupError("gone")
    assert batch is not None
    batch.end(["rolled_back"], {0: LookupError("gone")})
    with suppress(ValueError), spans.create("order", "order.placed", "s", parent=REMOTE):
        raise ValueError("too large")


def ask(telemetry: Telemetry) -> None:
    with telemetry.spans.ask("quotes", "quote.asked", "q-1") as asked:
        telemetry.spans.answered("quotes", "request-1", OTHER)
        telemetry.spans.answered("quotes", "request-2", UNSAMPLED)
        assert asked.traceparent == telemetry.spans.current()


def read(directory: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted(directory.glob("traces-*")) for line in path.read_bytes().splitlines()]
    documents = [resource for line in lines for resource in orjson.loads(line)["resourceSpans"]]
    for resource in documents:
        assert {"key": "service.name", "value": {"stringValue": "order"}} in resource["resource"]["attributes"]
    scopes = [scope for resource in documents for scope in resource["scopeSpans"]]
    assert {scope["scope"]["name"] for scope in scopes} == {"tandem"}
    return [span for scope in scopes for span in scope["spans"]]


def told(spans: list[dict[str, Any]]) -> str:
    """A paragraph for each span, in the order in which they began, with the names of spans for their ids."""
    spans = sorted(spans, key=lambda span: (int(span["startTimeUnixNano"]), span["name"]))
    traces = {REMOTE.split("-")[1]: "R", OTHER.split("-")[1]: "O"}
    names = {REMOTE.split("-")[2]: "R", OTHER.split("-")[2]: "O"}
    for span in spans:
        traces.setdefault(span["traceId"], str(len(traces) - 1))
        name = span["name"].replace(".events", "")
        while name in names.values():
            name += "'"
        names[span["spanId"]] = name
    return "\n".join(_paragraph(span, traces, names) for span in spans)


def _paragraph(span: dict[str, Any], traces: dict[str, str], names: dict[str, str]) -> str:
    parent = names[span["parentSpanId"]] if "parentSpanId" in span else "none"
    links = [f"{names[link['spanId']]}/{link['flags']}" for link in span.get("links", ())]
    attributes = {row["key"]: next(iter(row["value"].values())) for row in span.get("attributes", ())}
    for key in ("messaging.message.id", "messaging.message.conversation_id"):
        if len(attributes.get(key, "")) == 36:  # a UUID
            attributes[key] = "new"
    pairs = (f"{key.removeprefix('messaging.')}={value}" for key, value in attributes.items())
    events = [[event["name"], *(row["key"] for row in event["attributes"])] for event in span.get("events", ())]
    assert int(span["endTimeUnixNano"]) >= int(span["startTimeUnixNano"])
    words = (
        f"{names[span['spanId']]}: {span['name']}, kind {span['kind']}, in {traces[span['traceId']]} "
        f"below {parent}/{span['flags']}, links {links or 'none'} | {' '.join(pairs)} | {span['status']} {events}"
    )
    return textwrap.fill(words, 110, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def test_the_spans_of_an_event_are_as_they_ever_were(tmp_path: Path) -> None:
    telemetry = telemetry_in(tmp_path)
    placed = request(telemetry)
    relay(telemetry, placed)
    published = consume(telemetry, placed)
    assert published is not None
    assert published.split("-")[1] == placed.split("-")[1]
    fail(telemetry)
    ask(telemetry)
    telemetry.shutdown()
    assert told(read(tmp_path)) == EXPECTED


STEPS = """\
run render: run render, kind 5, in R below R/768, links none | tandem.job.handler=render
    tandem.event.subject=job-1 tandem.job.step=step-1 tandem.job.queue=pdf tandem.job.attempt=1
    tandem.status=done | {} []
run render': run render, kind 5, in O below O/768, links none | tandem.job.handler=render
    tandem.event.subject=job-1 tandem.job.step=step-2 tandem.job.queue=pdf tandem.job.attempt=2
    tandem.status=failed error.type=BusinessError | {'message': 'BusinessError', 'code': 2} []
run render'': run render, kind 5, in R below R/768, links none | tandem.job.handler=render
    tandem.job.attempt=4 | {'message': 'LookupError: gone', 'code': 2} [['exception', 'exception.type',
    'exception.message', 'exception.stacktrace', 'exception.escaped']]"""


def test_the_spans_of_leased_steps_are_as_they_ever_were(tmp_path: Path) -> None:
    telemetry = telemetry_in(tmp_path)
    for number, (parent, error) in enumerate([(REMOTE, None), (OTHER, "BusinessError"), (UNSAMPLED, None)], 1):
        attributes = {
            "tandem.event.subject": "job-1",
            "tandem.job.step": f"step-{number}",
            "tandem.job.queue": "pdf",
        }
        with telemetry.steps.attempt("render", number, attributes, parent) as attempted:
            attempted.end("failed" if error else "done", error)
    with suppress(LookupError), telemetry.steps.attempt("render", 4, {}, REMOTE):
        raise LookupError("gone")
    telemetry.shutdown()
    assert told(read(tmp_path)) == STEPS


@pytest.mark.parametrize("traceparent", ["garbage", None])
def test_where_nothing_is_sampled_a_trace_that_begins_is_handed_on_and_not_recorded(
    tmp_path: Path, traceparent: str | None
) -> None:
    telemetry = telemetry_in(tmp_path, trace_ratio=0.0)
    spans = telemetry.spans
    event = an_event(traceparent, 1)
    with spans.process_batch(SUBSCRIPTION, [event]) as batch:
        assert batch is not None
        batch.begin(0)
        running = spans.current()
        assert running is not None
        caused = [spans.create("order", "order.paid", "s", event.traceparent) for _ in range(2)]
        with caused[0], caused[1]:
            pass
        batch.rest()
    batch.end(["done"], {})
    assert spans.current() is None
    handed_on = [created.traceparent or "" for created in caused]
    assert {each.split("-")[1] for each in handed_on} == {running.split("-")[1]}
    assert all(each.endswith("-00") for each in handed_on)
    telemetry.shutdown()
    assert list(tmp_path.glob("traces-*")) == []


def test_of_so_many_links_a_batch_has_the_first_and_every_event_still_links_to_it(tmp_path: Path) -> None:
    telemetry = telemetry_in(tmp_path)
    events = [an_event(f"00-{number:032x}-{number:016x}-01", number) for number in range(1, 301)]
    with telemetry.spans.process_batch(SUBSCRIPTION, events) as batch:
        assert batch is not None
        for number in range(300):
            batch.begin(number)
    batch.end(["done"] * 300, {})
    telemetry.shutdown()
    [of_batch], of_events = _by_name(read(tmp_path))
    assert [int(link["spanId"], 16) for link in of_batch["links"]] == list(range(1, 129))
    assert len(of_events) == 300
    assert {link["spanId"] for span in of_events for link in span["links"]} == {of_batch["spanId"]}


def _by_name(spans: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    of_batch = [span for span in spans if span["name"].endswith(" batch")]
    return of_batch, [span for span in spans if span not in of_batch]


async def test_a_task_begun_in_a_handler_stays_in_its_event(tmp_path: Path) -> None:
    """What a handler leaves to a task is not told of the event after it."""
    telemetry = telemetry_in(tmp_path)
    running: list[tuple[str | None, asyncio.Task[str | None]]] = []

    async def later() -> str | None:
        await asyncio.sleep(0)
        return telemetry.spans.current()

    events = [an_event(REMOTE, 1), an_event(REMOTE, 2)]
    with telemetry.spans.process_batch(SUBSCRIPTION, events) as batch:
        assert batch is not None
        for number in range(2):
            batch.begin(number)
            running.append((telemetry.spans.current(), asyncio.create_task(later())))
    assert telemetry.spans.current() is None
    assert [await task for _, task in running] == [traceparent for traceparent, _ in running]
    assert len({traceparent for traceparent, _ in running}) == 2
    telemetry.shutdown()
