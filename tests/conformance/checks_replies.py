"""Request and reply: each gets its own answer, in time or not at all; what is over is not begun."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from shared.broker.asking import TIMEOUT_S_MAX
from shared.broker.base import Broker, Delivery, Settlement, Subscription
from shared.envelope import Envelope
from shared.errors import UnavailableError
from shared.event import Asked, EventData
from shared.reply.answers import answered
from shared.reply.errors import NoAnswerError, TooManyRequestsError
from shared.reply.requester import REQUESTS_IN_FLIGHT_MAX, Requests
from shared.telemetry import Spans
from shared.telemetry.tracing.recorder import Recorder as SpanRecorder
from tests.conformance.harness import TYPE, Harness, Recorder, eventually

SOON_S = 1.0
"""What is asked for so long is to go without an answer."""

Answers = Callable[[Envelope, Asked], Sequence[tuple[Asked, bytes]]]
"""What is sent for a request."""


class Asking(EventData):
    """A number to be given back."""

    channel = "replaced"
    event_type = TYPE
    number: int


def same(request: Envelope, asked: Asked) -> list[tuple[Asked, bytes]]:
    return [(asked, answered("answerer", request, request.data, None))]


class Answerer:
    """Answers at the seam, and writes down what it was asked, and whether its time was over."""

    def __init__(self, broker: Broker, answers: Answers = same) -> None:
        self.answers = answers
        self.got: dict[int, bool] = {}
        self.released = asyncio.Event()
        self.released.set()
        self._broker = broker

    async def __call__(self, batch: Sequence[Delivery]) -> Sequence[Settlement]:
        replies: list[tuple[Asked, bytes]] = []
        for delivery in batch:
            request = Envelope.decode(delivery.body)
            assert delivery.asked is not None, "nobody says who asked"
            self.got[request.data["number"]] = over = time.monotonic() > delivery.asked.begin_by_s
            replies += [] if over else self.answers(request, delivery.asked)
        await self.released.wait()
        await asyncio.gather(*(self._broker.publish_reply(*reply) for reply in replies))
        return [Settlement.ACK] * len(batch)


def requests_on(harness: Harness, broker: Broker) -> Requests:
    return Requests(broker, harness.channel, Spans(SpanRecorder(None), harness.system))


def place(harness: Harness) -> Subscription:
    """On a channel that has requests alone."""
    own = harness.subscription("answerer", channel=f"{harness.channel}ask")
    return replace(own, answers=True, in_flight_max=2 * REQUESTS_IN_FLIGHT_MAX)


async def answerer(harness: Harness, answers: Answers = same) -> Answerer:
    broker = await harness.broker()
    handler = Answerer(broker, answers)
    await broker.subscribe(place(harness), handler)
    return handler


async def ask(harness: Harness, requests: Requests, number: int, timeout_s: float | None = None) -> int:
    timeout_s = TIMEOUT_S_MAX if timeout_s is None else timeout_s  # the suite's own limits are shorter
    answer = await requests.ask(place(harness).channel, Asking(number=number), timeout_s)
    given: int = answer["number"]
    return given


async def check_each_of_a_thousand_requests_gets_its_own_answer(harness: Harness) -> None:
    """Of two processes, at once; one more than a thousand is refused at once, and others' answers are dropped."""
    handler = await answerer(harness)
    first, second = [requests_on(harness, await harness.broker(publish_timeout_s=60.0)) for _ in range(2)]
    assert await ask(harness, first, -1) == -1
    assert await ask(harness, second, -2) == -2
    handler.released.clear()
    asking = [asyncio.create_task(ask(harness, first, n)) for n in range(REQUESTS_IN_FLIGHT_MAX)]
    asking.append(asyncio.create_task(ask(harness, second, REQUESTS_IN_FLIGHT_MAX)))
    await eventually(lambda: _in_flight(first, REQUESTS_IN_FLIGHT_MAX), "all are asked", harness.deadline_s)
    with pytest.raises(TooManyRequestsError):
        await ask(harness, first, -3)
    handler.released.set()
    async with asyncio.timeout(harness.deadline_s):
        assert await asyncio.gather(*asking) == list(range(REQUESTS_IN_FLIGHT_MAX + 1))
    assert first.in_flight == second.in_flight == 0


async def check_doubled_foreign_and_late_replies_are_dropped(harness: Harness) -> None:
    strays: list[tuple[Asked, bytes]] = []

    def twice_and_more(request: Envelope, asked: Asked) -> list[tuple[Asked, bytes]]:
        (own,) = same(request, asked)
        foreign = replace(asked, correlation_id="nobody's")
        if request.data["number"] == 0:  # it is answered too late
            strays.append(own)
            return [(foreign, own[1]), (asked, b"no envelope")]
        return [*strays, (foreign, own[1]), (asked, strays[0][1]), (asked, b"no envelope"), own, own]

    await answerer(harness, twice_and_more)
    requests = requests_on(harness, await harness.broker())
    await nobody_answers(harness, requests, 0)
    assert [await ask(harness, requests, number) for number in (1, 2)] == [1, 2]
    assert requests.in_flight == 0


async def check_a_request_whose_time_is_over_is_not_begun(harness: Harness) -> None:
    """When who asked has given up: neither one that a consumer had in hand, and left, nor one that waited behind.
    What is asked afterwards is answered."""
    requests, holding = requests_on(harness, await harness.broker()), harness.recorder()
    holding.released.clear()
    async with harness.make(shutdown_grace_s=0.1) as leaving:
        await leaving.subscribe(replace(place(harness), in_flight_max=1), holding)
        await eventually(lambda: _held(harness, requests, holding), "one is in hand", harness.deadline_s)
        await nobody_answers(harness, requests, 1)
    handler = await answerer(harness)
    assert await ask(harness, requests, 2) == 2
    assert all(handler.got.get(number, True) for number in (0, 1)), "begun when its time was over"


async def check_a_reply_to_who_has_gone_disturbs_nobody(harness: Harness) -> None:
    """It is answered when its connection is gone; and to addresses that no requester has."""
    channel = harness.channel
    addresses = ("", f"{channel}-events/0", "nobody-replies/0", f"{channel}-replies/999", place(harness).queue)
    handler = await answerer(harness, lambda request, asked: [
        *(
            (replace(asked, reply_to=address), b"")
            for address in addresses
        ),
        *same(request, asked),
    ])  # fmt: skip
    staying = requests_on(harness, await harness.broker())
    handler.released.clear()
    async with harness.make() as leaving:
        going = asyncio.create_task(ask(harness, requests_on(harness, leaving), 1))
        await eventually(lambda: _got(handler, 1), "it is asked", harness.deadline_s)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
    handler.released.set()
    assert await ask(harness, staying, 2) == 2


async def nobody_answers(harness: Harness, requests: Requests, number: int) -> None:
    """Ask until the broker has confirmed it early enough, and nobody has answered in time."""

    async def unanswered() -> bool:
        with suppress(UnavailableError):
            with pytest.raises(NoAnswerError):
                await ask(harness, requests, number, SOON_S)
            return True
        return False

    await eventually(unanswered, "it is asked, and not answered", harness.deadline_s)


async def _held(harness: Harness, requests: Requests, holding: Recorder) -> bool:
    await nobody_answers(harness, requests, 0)
    return bool(holding.deliveries)


async def answered_again(harness: Harness, requests: Requests) -> bool:
    """Whether it is: one that is asked while the broker comes back may be lost."""
    with suppress(NoAnswerError, UnavailableError):
        return await ask(harness, requests, 1, SOON_S) == 1
    return False


async def _in_flight(requests: Requests, count: int) -> bool:
    return requests.in_flight == count


async def _got(handler: Answerer, number: int) -> bool:
    return number in handler.got
