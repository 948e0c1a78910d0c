"""The transaction in which a batch takes effect: whose handler is called, what an error undoes, what spans say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import StatusCode

from shared.consuming import inbox
from shared.consuming.batch import Batch, Status
from shared.consuming.subscriber import Handler, Prepare
from shared.consuming.transaction import Transaction
from shared.errors import BusinessError, DelayError, PermanentError, TransientError
from shared.event import Event
from shared.failpoints import FailPoints
from shared.publishing.uow import UnitOfWork
from shared.telemetry import Spans
from shared.telemetry.tracing.recorder import Recorder
from shared.telemetry.tracing.span_batches import Ended, readable
from tests.unit.stages import DEAD, DONE, SUBSCRIPTION, Happened, Inbox, batch_of, settings_with, statuses

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
Handle = Callable[[str, UnitOfWork], Awaitable[None]]


class Stage:
    """Transactions of events whose handler is `handle`, and what they leave."""

    def __init__(
        self,
        handle: Handle,
        *,
        known: Sequence[str] = (),
        prepare: Prepare | None = None,
        fail_points: str = "",
        **overrides: Any,
    ) -> None:
        async def on_happened(event: Event[Happened], uow: UnitOfWork) -> None:
            self.handled.append(event.id)
            await handle(event.id, uow)

        self.handled: list[str] = []
        self.handler = Handler(Happened, on_happened)
        self.inbox = Inbox(known)
        self.committed = 0
        self._kept: list[Ended] = []
        self._spans = Spans(Recorder(TraceIdRatioBased(1.0), [self._kept.append]), "kafka")
        units: Any = self
        points = FailPoints.told(fail_points, SUBSCRIPTION.channel)
        self._transaction = Transaction(
            settings_with(**overrides), SUBSCRIPTION, units, self._spans, points, prepare=prepare
        )

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        connection: Any = self.inbox
        uow = UnitOfWork(connection, "tests", self._spans)
        yield uow
        await uow.flush()
        self.committed += 1

    def batch(self, *keys: str, traceparent: str | None = UNSAMPLED) -> Batch:
        return batch_of(*keys, handler=self.handler, traceparent=traceparent)

    async def run(self, batch: Batch) -> None:
        await self._transaction.run(list(batch.works.values()))

    def spans(self) -> list[ReadableSpan]:
        return readable(self._kept)


async def succeed(name: str, uow: UnitOfWork) -> None:
    assert uow.origin().event_id == name, "what it publishes is caused by its event"


def fail_of(failures: dict[str, Exception]) -> Handle:
    async def fail(name: str, _uow: UnitOfWork) -> None:
        if name in failures:
            raise failures[name]

    return fail


async def test_handlers_see_what_the_inbox_did_not_have_and_prepare_sees_it_first() -> None:
    prepared: list[object] = []

    async def prepare(events: Sequence[Event[Any]], uow: UnitOfWork) -> None:
        assert isinstance(uow, UnitOfWork)
        prepared.extend(["before", *stage.handled, *(event.id for event in events)])

    stage = Stage(succeed, known=["1"], prepare=prepare)
    await stage.run(batch := stage.batch("a", "b", "c"))
    assert (stage.handled, prepared) == (["0", "2"], ["before", "0", "2"])
    assert statuses(batch) == [DONE, Status.DUPLICATE, DONE]
    assert [work.runs for work in batch.works.values()] == [1, 0, 1]
    stage.inbox.known = ["0", "1", "2"]
    await stage.run(batch := stage.batch("a", "b"))
    assert statuses(batch) == [Status.DUPLICATE] * 2
    assert (stage.committed, stage.inbox.forgotten) == (2, [])


@pytest.mark.parametrize(
    ("error", "status"), [(BusinessError("no"), DEAD), (DelayError("not yet", delay_s=9), Status.DELAYED)]
)
async def test_what_no_retry_changes_undoes_its_event_alone(error: Exception, status: Status) -> None:
    stage = Stage(fail_of({"1": error}))
    await stage.run(batch := stage.batch("a", "b", "c"))
    assert (stage.handled, statuses(batch)) == (["0", "1", "2"], [DONE, status, DONE])
    assert [work.error for work in batch.works.values()] == [None, error, None]
    assert (stage.inbox.forgotten, stage.committed) == (["1"], 1), "it may be redriven"


async def test_what_cannot_be_undone_alone_undoes_all() -> None:
    alone = Stage(fail_of({"0": BusinessError("no")}))
    with pytest.raises(BusinessError):
        await alone.run(alone.batch("a"))

    async def flush_and_fail(name: str, uow: UnitOfWork) -> None:
        if name == "1":
            await uow.flush()
            raise BusinessError("too late")

    flushed = Stage(flush_and_fail)
    with pytest.raises(BusinessError):
        await flushed.run(flushed.batch("a", "b"))
    lost = Stage(fail_of({"1": TransientError("planted")}))
    with pytest.raises(TransientError):
        await lost.run(lost.batch("a", "b", "c"))
    assert lost.handled == ["0", "1"]
    assert (alone.committed, flushed.committed, lost.committed) == (0, 0, 0)


async def test_what_takes_too_long_is_transient_and_a_handler_s_own_time_out_is_its_own() -> None:
    async def hang(_name: str, _uow: UnitOfWork) -> None:
        await asyncio.Event().wait()

    hanging = Stage(hang, handler_timeout_s=0.01)
    with pytest.raises(TransientError, match=r"^not finished within 0\.01 s$"):
        await hanging.run(hanging.batch("a"))
    with pytest.raises(TransientError):
        await hanging.run(hanging.batch("a", traceparent=SAMPLED))
    [said] = [dict(span.attributes or {}) for span in hanging.spans() if not span.name.endswith(" batch")]
    assert (said["tandem.status"], said["error.type"]) == ("rolled_back", "TimeoutError")
    own = TimeoutError("of a client")
    timing_out = Stage(fail_of({"0": own}))
    with pytest.raises(TimeoutError) as raised:
        await timing_out.run(timing_out.batch("a"))
    assert raised.value is own


OUTCOMES: list[tuple[dict[str, Exception], list[tuple[str, str | None]]]] = [
    ({}, [("done", None), ("done", None)]),
    ({"1": BusinessError("no")}, [("done", None), ("dead_lettered", "BusinessError")]),
    ({"1": DelayError("later", delay_s=9)}, [("done", None), ("delayed", "DelayError")]),
    ({"1": TransientError("lost")}, [("rolled_back", "TransientError"), ("rolled_back", "TransientError")]),
]


@pytest.mark.parametrize(("failures", "expected"), OUTCOMES)
async def test_the_span_of_each_event_says_what_became_of_it(
    failures: dict[str, Exception], expected: list[tuple[str, str | None]]
) -> None:
    running: list[str] = []

    async def handle(name: str, uow: UnitOfWork) -> None:
        running.append(f"{trace.get_current_span().get_span_context().span_id:016x}")
        await fail_of(failures)(name, uow)

    stage = Stage(handle)
    batch = stage.batch("a", "b", traceparent=SAMPLED)
    if any(type(error) is TransientError for error in failures.values()):
        with pytest.raises(TransientError):
            await stage.run(batch)
    else:
        await stage.run(batch)
    of_batch = [span for span in stage.spans() if span.name.endswith(" batch")]
    of_events = [span for span in stage.spans() if not span.name.endswith(" batch")]
    said = [dict(span.attributes or {}) for span in of_events]
    assert [(one.get("tandem.status"), one.get("error.type")) for one in said] == expected
    assert [span.status.status_code is StatusCode.ERROR for span in of_events] == [
        error is not None for _, error in expected
    ]
    assert [one["messaging.message.id"] for one in said] == ["0", "1"]
    assert [f"{span.context.span_id:016x}" for span in of_events if span.context] == running, (
        "it is the running one"
    )
    [together] = of_batch
    assert dict(together.attributes or {})["messaging.batch.message_count"] == 2
    assert [link.context for span in of_events for link in span.links] == [together.context] * 2


async def test_a_failure_that_no_retry_changes_is_said_by_the_span_of_an_event_alone() -> None:
    stage = Stage(fail_of({"0": BusinessError("no")}))
    with pytest.raises(BusinessError):
        await stage.run(stage.batch("a", traceparent=SAMPLED))
    [said] = [dict(span.attributes or {}) for span in stage.spans() if not span.name.endswith(" batch")]
    assert (said["tandem.status"], said["error.type"]) == ("dead_lettered", "BusinessError")


async def test_every_call_of_a_handler_is_counted() -> None:
    stage = Stage(succeed)
    batch = stage.batch("a", "b")
    for _ in range(3):
        await stage.run(batch)
    assert [work.runs for work in batch.works.values()] == [3, 3]


async def test_a_duplicate_has_no_span() -> None:
    stage = Stage(succeed, known=["0"])
    await stage.run(stage.batch("a", "b", traceparent=SAMPLED))
    ids = [dict(span.attributes or {}).get("messaging.message.id") for span in stage.spans()]
    assert sorted(filter(None, ids), key=str) == ["1"]


@pytest.mark.parametrize(
    ("place", "handled", "sent"),
    [
        ("pipeline.before_effect", [], 0),
        ("handler:thing.happened", [], 1),
        ("pipeline.after_effect", ["0"], 2),
    ],
)
async def test_every_place_of_a_transaction_is_reached_before_it_is_committed(
    place: str, handled: list[str], sent: int
) -> None:
    """`sent`: the inbox's statement, and what the handler told."""

    async def tell(_name: str, uow: UnitOfWork) -> None:
        uow.tell(inbox._PRUNE, {"n": 1})

    stage = Stage(tell, fail_points=f"{place}=raise")
    with pytest.raises(PermanentError, match=place):
        await stage.run(stage.batch("a"))
    assert (stage.handled, len(stage.inbox.sent), stage.committed) == (handled, sent, 0)
