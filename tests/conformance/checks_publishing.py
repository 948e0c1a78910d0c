"""Publishing: what is confirmed arrives, in order; what is not confirmed is reported and harms nothing else."""

from __future__ import annotations

import asyncio
import random

from shared.broker.base import Message
from shared.envelope import EVENT_BYTES_MAX
from shared.errors import EventTooLargeError, UnavailableError, UnroutableError
from tests.conformance.harness import (
    TYPE,
    Harness,
    assert_in_order,
    failed_bodies,
    only_on,
    publish_all,
)


async def check_what_is_confirmed_is_delivered_once(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder()
    await broker.subscribe(harness.subscription(), recorder)
    messages = harness.messages(600, keys=40)
    await publish_all(broker, messages)
    await recorder.until_got(messages)
    assert recorder.duplicates() == 0, "delivered twice with nothing to excuse it"
    assert set(recorder.bodies) == {message.body for message in messages}


async def check_bytes_and_headers_arrive_as_sent(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder()
    await broker.subscribe(harness.subscription(), recorder)
    headers = {"traceparent": "00-1-2-01", "grüße": "größe ✓", "empty": ""}
    message = Message(harness.channel, TYPE, "key", bytes(range(256)), headers)
    await publish_all(broker, [message])
    await recorder.until_got([message])
    delivery = recorder.deliveries[0]
    assert headers.items() <= delivery.headers.items(), f"headers lost or changed: {delivery.headers}"
    assert delivery.channel == harness.channel
    assert delivery.key in (None, "key")


async def check_one_key_keeps_its_order(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder()
    await broker.subscribe(harness.subscription(), recorder)
    messages = harness.messages(500, keys=5)
    for start in range(0, 500, 100):
        await publish_all(broker, messages[start : start + 100])
    await recorder.until_got(messages)
    assert_in_order(recorder.bodies)


async def check_callers_publish_at_the_same_time(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder()
    await broker.subscribe(harness.subscription(), recorder)
    parts = [harness.messages(100, keys=4, prefix=f"caller-{n}-") for n in range(8)]
    await asyncio.gather(*(publish_all(broker, part) for part in parts))
    await recorder.until_got(message for part in parts for message in part)
    assert_in_order(recorder.bodies)
    assert recorder.duplicates() == 0, "delivered twice"


async def check_nothing_to_publish_is_no_failure(harness: Harness) -> None:
    broker = await harness.broker()
    assert await broker.publish([]) == []


async def check_a_refused_message_stops_its_key_and_nothing_else(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder()
    await broker.subscribe(harness.subscription(), recorder)
    before, after, other = (
        Message(harness.channel, TYPE, key, body)
        for key, body in (("bad", b"bad:1"), ("bad", b"bad:3"), ("good", b"good:1"))
    )
    refused = harness.unpublishable("bad")
    failures = await broker.publish([before, refused, after, other])
    assert failed_bodies(failures) == sorted([refused.body, after.body]), "a refused message passes as confirmed"
    again = Message(harness.channel, TYPE, "bad", b"bad:4")
    await publish_all(broker, [again])  # the shared channel or producer is as good as before
    await recorder.until_got([before, other, again])
    assert after.body not in recorder.bodies, "an event overtook the failed one before it: out of order"


async def check_publishing_to_an_undeclared_channel_is_reported(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder()
    await broker.subscribe(harness.subscription(), recorder)
    beside = Message(harness.channel, TYPE, "other", b"other:1")
    failures = await broker.publish([beside, Message("never-declared", TYPE, "key", b"lost?")])
    assert failed_bodies(failures) == [b"lost?"], "each goes to its own channel"
    assert isinstance(failures[0].error, UnavailableError)
    message = Message(harness.channel, TYPE, "key", b"key:1")
    await publish_all(broker, [message])
    await recorder.until_got([beside, message])


async def check_unroutable_is_detected_where_the_capability_says_so(harness: Harness) -> None:
    broker = await harness.broker()
    await broker.declare([harness.channel])
    failures = await broker.publish(harness.messages(1))
    assert bool(failures) == broker.capabilities.unroutable_detected, "unroutable passes as confirmed"
    assert all(isinstance(failure.error, UnroutableError) for failure in failures)


async def check_the_largest_event_passes(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder()
    await broker.subscribe(harness.subscription(), recorder)
    incompressible = random.Random(1).randbytes(EVENT_BYTES_MAX)
    message = Message(harness.channel, TYPE, "key", incompressible, {"stack": "x" * 16_384})
    await publish_all(broker, [message])
    await recorder.until_got([message])


@only_on("kafka")
async def check_two_megabytes_are_refused_not_hung(harness: Harness) -> None:
    broker = await harness.broker()
    await broker.declare([harness.channel])
    (failure,) = await broker.publish([harness.unpublishable("key")])
    assert isinstance(failure.error, EventTooLargeError)
