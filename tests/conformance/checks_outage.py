"""The server away: stopped and started, and killed under load."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

import pytest

from shared.broker.base import Broker, Message, Subscription
from shared.errors import UnavailableError
from tests.conformance.checks_replies import SOON_S, answered_again, answerer, ask, requests_on
from tests.conformance.harness import TYPE, Harness, assert_in_order, eventually, publish_all
from tests.conformance.servers_seen import rabbit_keeps
from tests.held_ports import held_port

KEYS = 20
LEAVING_S = 15.0
"""Several steps, each within the grace period of 2 s: what this finds is a hang."""


async def check_a_broker_that_is_not_there_is_unavailable(harness: Harness) -> None:
    nobody = f"127.0.0.1:{held_port()}"
    broker = harness.make(connect_timeout_s=3.0, rabbit_url=f"amqp://a:b@{nobody}/", kafka_bootstrap=nobody)
    with pytest.raises(UnavailableError):
        async with broker:
            pytest.fail("connected to nobody")


async def check_an_outage_is_reported_and_survived(harness: Harness) -> None:
    """Stopped while a handler runs: settling fails and is counted, publishing and asking fail in time, so does
    leaving end; then all recovers. One claim: stopping a server takes longer than all other checks together."""
    broker, recorder, subscription = (
        await harness.broker(publish_timeout_s=4.0),
        harness.recorder(),
        harness.subscription(),
    )
    leaving = await harness.make(shutdown_grace_s=2.0, publish_timeout_s=1.0).__aenter__()
    await leaving.subscribe(harness.subscription("leaving"), harness.recorder())
    await broker.subscribe(subscription, recorder)
    requests = requests_on(harness, broker)
    await answerer(harness)
    assert await ask(harness, requests, 1) == 1
    first = harness.messages(30, keys=3)
    await publish_all(broker, first)
    await recorder.until_settled(first)
    recorder.released.clear()
    caught = harness.messages(5, prefix="caught-")
    await publish_all(broker, caught)
    await recorder.until(lambda: recorder.bodies[-1].startswith(b"caught-"), "a batch is being handled")
    await broker.ping()
    await asyncio.to_thread(harness.runtime.processes.stop, harness.system)
    try:
        with pytest.raises(UnavailableError):
            await broker.ping()
        lost = harness.messages(3, prefix="down-")
        failures = await broker.publish(lost)
        assert [failure.message for failure in failures] == lost, "confirmed by nobody"
        assert all(isinstance(failure.error, UnavailableError) for failure in failures)
        with pytest.raises(UnavailableError):
            await ask(harness, requests, 1, SOON_S)
        recorder.released.set()
        await eventually(lambda: _failed(broker), "the failed settlement is counted", harness.deadline_s)
        assert await leaving.publish(lost), "confirmed by nobody"  # leaves with something unsent
        await asyncio.wait_for(leaving.__aexit__(None, None, None), LEAVING_S)
    finally:
        await asyncio.to_thread(harness.runtime.processes.start, harness.system)
    again = harness.messages(30, keys=3, prefix="again-")
    await _publish_until_confirmed(broker, again, harness.deadline_s)
    await recorder.until_settled(again)
    await recorder.until(lambda: recorder.bodies.count(caught[0].body) > 1, "the unsettled message comes again")
    assert_in_order(recorder.bodies)
    harness.duplicates += recorder.duplicates()
    await eventually(lambda: _answers(broker), "ping answers again", harness.deadline_s)
    await eventually(lambda: answered_again(harness, requests), "requests are answered again", harness.deadline_s)


async def check_a_kill_under_load_loses_nothing_confirmed(harness: Harness) -> None:
    """SIGKILL of the server while messages flow both ways; duplicates are allowed and counted."""
    broker, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()
    await broker.subscribe(subscription, recorder)
    if harness.system == "rabbit":
        await eventually(lambda: _kept(harness, subscription), "the queue outlives its node", harness.deadline_s)
    confirmed: list[Message] = []
    enough, restarted = asyncio.Event(), asyncio.Event()
    load = asyncio.create_task(_publish_load(harness, broker, confirmed, enough, restarted))
    await recorder.until(lambda: len(recorder.deliveries) > 500 or load.done(), "the load flows")
    await asyncio.to_thread(harness.runtime.processes.kill, harness.system)
    await asyncio.to_thread(harness.runtime.processes.wait_ready, harness.system)
    restarted.set()
    await asyncio.wait_for(load, harness.deadline_s)
    await recorder.until_got(confirmed)
    assert_in_order(recorder.bodies)
    harness.duplicates += recorder.duplicates()


async def _kept(harness: Harness, subscription: Subscription) -> bool:
    return rabbit_keeps(harness.runtime, subscription.queue)


async def _publish_load(
    harness: Harness, broker: Broker, confirmed: list[Message], enough: asyncio.Event, restarted: asyncio.Event
) -> None:
    """As the relay does: per key in order, a failed message and what follows it again, until confirmed."""
    numbers: dict[str, int] = defaultdict(int)
    after_restart = 0
    while after_restart < 300:
        batch = [
            Message(harness.channel, TYPE, f"key-{k}", f"key-{k}:{numbers[f'key-{k}'] + n:06}".encode())
            for n in range(5)
            for k in range(KEYS)
        ]
        failures = await broker.publish(batch)
        failed = {id(failure.message) for failure in failures}
        done = [message for message in batch if id(message) not in failed]
        for message in done:
            numbers[message.key] += 1
        confirmed += done
        after_restart += len(done) if restarted.is_set() else 0
        await asyncio.sleep(0.2 if failures else 0.01)


async def _publish_until_confirmed(broker: Broker, messages: list[Message], deadline_s: float) -> None:
    async def confirmed() -> bool:
        return not await broker.publish(messages)

    await eventually(confirmed, "publishing works again", deadline_s)


async def _failed(broker: Broker) -> bool:
    return sum(broker.settlement_failures.values()) > 0


async def _answers(broker: Broker) -> bool:
    with contextlib.suppress(UnavailableError):
        await broker.ping()
        return True
    return False
