"""Requests through the pipeline: the answer follows the commit, a refusal leaves nothing, one trace has it all."""

from __future__ import annotations

import asyncio
from copy import copy
from dataclasses import replace
from math import inf

import pytest
from msgspec import structs
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from pydantic import BaseModel

from shared.broker.base import Delivery, Settlement
from shared.dead_letter.headers import LETTER_ID
from shared.envelope import Envelope
from shared.errors import BusinessError, PermanentError
from shared.event import Asked, Event
from shared.failpoints import FailPoints
from shared.publishing.uow import UnitOfWork
from shared.reply import Requests, Responder
from shared.reply.errors import RefusedError
from shared.telemetry import Spans
from shared.telemetry.tracing.recorder import Recorder
from shared.telemetry.tracing.span_batches import Ended, readable
from tests.integration.world import DEADLINE_S, HandlerFunction, Happened, World, happened, take_effect

ACK = Settlement.ACK
STILL = Asked(reply_to="", correlation_id="", begin_by_s=inf)
OVER = replace(STILL, begin_by_s=-inf)


class Doubled(BaseModel):
    """What is answered."""

    number: int


async def double(event: Event[Happened], uow: UnitOfWork) -> Doubled:
    take_effect(event, uow)
    if event.data.number == 2:
        raise BusinessError("two is refused")
    if event.data.number == 3:
        raise LookupError("a fault")
    return Doubled(number=2 * event.data.number)


async def answering(world: World, spans: Spans, breaking: FailPoints | None = None) -> HandlerFunction:
    """The handler of the world's subscriber, which answers from here on."""
    world.subscriber_options["answers"] = True
    responder = Responder(await world.publisher(), "answerer", spans, breaking)
    world.subscriber_options["put_aside"] = responder.put_aside
    return responder.answering(double)


def requested(world: World, event: Envelope, asked: Asked | None, **headers: str) -> Delivery:
    (delivery,) = world.deliver([event])
    return structs.replace(delivery, asked=asked, headers=headers)


def ids(span: ReadableSpan) -> tuple[int, int, int | None]:
    """Trace, span and parent."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id, span.parent.span_id if span.parent else None


async def test_answers_follow_the_commit_and_one_trace_leads_through_request_handler_and_reply(
    world: World,
) -> None:
    kept: list[Ended] = []
    spans = Spans(Recorder(TraceIdRatioBased(1.0), [kept.append]), world.broker_name)
    world.telemetry = copy(world.telemetry)
    world.telemetry.spans = spans
    handler = await answering(world, spans)
    requests = Requests(await world.publisher(), world.name, spans)
    async with world.consumer(handler):
        assert await requests.ask(world.channel, world.data(number=21), DEADLINE_S) == {"number": 42}
        assert await world.numbers() == [21], "committed before it was answered"
        recorded = {span.name.partition(" ")[0]: span for span in readable(kept) if span.parent}
        (ask,) = [span for span in readable(kept) if span.name.startswith("ask ")]
        trace_id, ask_id, _ = ids(ask)
        process_trace, process_id, process_parent = ids(recorded["process"])
        assert (process_trace, process_parent) == (trace_id, ask_id)
        assert ids(recorded["receive"])[::2] == (trace_id, process_id)
        refusals = await asyncio.gather(
            *(requests.ask(world.channel, world.data(number=number), DEADLINE_S) for number in (2, 3)),
            return_exceptions=True,
        )
    told = [(error.reason, str(error)) for error in refusals if isinstance(error, RefusedError)]
    assert told == [("BusinessError", "two is refused"), ("LookupError", "a fault")]
    assert await world.numbers() == [21], "what is refused has no effect"
    assert len(await world.dead_letters()) == 1, "a fault is for people to see, a refusal is not"


async def test_a_request_whose_time_is_over_is_not_begun_then_or_later(rabbit_world: World) -> None:
    handler = await answering(rabbit_world, rabbit_world.telemetry.spans)
    pipeline = await rabbit_world.pipeline(handler)
    late, given_back, event = happened(1), happened(4), happened(5)
    assert await pipeline([requested(rabbit_world, late, OVER)]) == [ACK]
    assert await pipeline([requested(rabbit_world, late, STILL)]) == [ACK]
    letter = {LETTER_ID: "0198c0de-0000-7000-8000-000000000001"}
    assert await pipeline([requested(rabbit_world, given_back, STILL, **letter)]) == [ACK]
    assert await rabbit_world.numbers() == []
    assert await pipeline([requested(rabbit_world, event, None)]) == [ACK]
    assert len(await rabbit_world.await_dead_letters(2)) == 2, "no request, and the receipt of the letter"


async def test_a_reply_with_which_its_asker_breaks_has_its_effect_and_the_next_one_is_answered(
    rabbit_world: World,
) -> None:
    """As where the process dies with the answer in its hands: here it only raises, once, as who answers does."""
    spans = rabbit_world.telemetry.spans
    handler = await answering(rabbit_world, spans, FailPoints.told("responder.answered=raise*1"))
    breaking = FailPoints.told("requester.received=raise*1@2")
    requests = Requests(await rabbit_world.publisher(), rabbit_world.name, spans, breaking)
    async with rabbit_world.consumer(handler):
        with pytest.raises(RefusedError, match=r"responder\.answered"):
            await requests.ask(rabbit_world.channel, rabbit_world.data(number=5), DEADLINE_S)
        with pytest.raises(PermanentError, match=r"requester\.received"):
            await requests.ask(rabbit_world.channel, rabbit_world.data(number=21), DEADLINE_S)
        assert await rabbit_world.numbers() == [21], "committed before it was answered"
        assert requests.in_flight == 0
        assert await requests.ask(rabbit_world.channel, rabbit_world.data(number=4), DEADLINE_S) == {"number": 8}


async def test_what_is_not_committed_is_not_answered(rabbit_world: World) -> None:
    sent: list[int] = []

    async def failing() -> None:
        async with rabbit_world.units.begin() as uow:
            uow.after_commit(lambda: sent.append(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await failing()
    async with rabbit_world.units.begin() as uow:
        uow.after_commit(lambda: sent.append(2))
        uow.begin_event(happened(1))
        uow.after_commit(lambda: sent.append(3))
        uow.discard_event()
        assert sent == []
    assert sent == [2]
