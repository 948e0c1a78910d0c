"""Settling: what is acknowledged never comes again, what is not always does, to whoever is there."""

from __future__ import annotations

from collections.abc import Sequence

from shared.broker.base import Delivery, Settlement
from tests.conformance.harness import Harness, Recorder, Settle, assert_in_order, publish_all

ATTEMPTS = 2


async def check_what_is_acknowledged_never_comes_again(harness: Harness) -> None:
    subscription, first, second = harness.subscription(), harness.recorder(), harness.recorder()
    done, later = harness.messages(60, keys=6), harness.messages(6, keys=6, prefix="later-")
    async with harness.make() as broker:
        await broker.subscribe(subscription, first)
        await publish_all(broker, done)
        await first.until_got(done)
    broker = await harness.broker()
    await broker.subscribe(subscription, second)
    await publish_all(broker, later)
    await second.until_got(later)
    repeated = set(second.bodies) & {message.body for message in done}
    assert not repeated, f"{len(repeated)} acknowledged messages delivered twice"
    assert not any(broker.settlement_failures.values())


async def check_what_a_closed_consumer_left_goes_to_the_next(harness: Harness) -> None:
    subscription, stuck, next_one = harness.subscription(), harness.recorder(), harness.recorder()
    stuck.released.clear()
    messages = harness.messages(60, keys=6)
    async with harness.make(shutdown_grace_s=0.5) as broker:
        await broker.subscribe(subscription, stuck)
        await publish_all(broker, messages)
        await stuck.until(lambda: len(stuck.deliveries) > 0, "a first batch")
    await (await harness.broker()).subscribe(subscription, next_one)
    await next_one.until_got(messages)
    assert_in_order(next_one.bodies)


async def check_leaving_lets_the_running_batch_settle(harness: Harness) -> None:
    subscription, slow, next_one = harness.subscription(), harness.recorder(), harness.recorder()
    messages, later = harness.messages(20), harness.messages(1, prefix="later-", key="key-0")

    async def finishes_while_leaving(batch: Sequence[Delivery]) -> Sequence[Settlement]:
        settlements = await slow(batch)
        assert not left, "leaving did not wait for the running batch"
        return settlements

    left = False
    slow.released.clear()
    leaving = harness.make(shutdown_grace_s=30.0)
    async with leaving:
        await leaving.subscribe(subscription, finishes_while_leaving)
        await publish_all(leaving, messages)
        await slow.until(lambda: len(slow.deliveries) > 0, "a first batch")
        harness.soon(slow.released.set)
    left = True
    broker = await harness.broker()
    await broker.subscribe(subscription, next_one)
    await publish_all(broker, later)
    await next_one.until_got(later)
    assert not set(slow.settled) & set(next_one.bodies), "what settled while leaving was delivered twice"
    assert {message.body for message in messages} <= set(slow.settled + next_one.bodies), "lost while leaving"


async def check_a_retry_comes_again_in_order(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder(_refuse(b"key-1:000003", ATTEMPTS))
    subscription = harness.subscription(batch_max=4)
    await broker.declare([], [subscription])
    messages = harness.messages(60, keys=3)
    await publish_all(broker, messages)
    await broker.subscribe(subscription, _one_by_one_per_key(recorder))
    await recorder.until_settled(messages)
    assert recorder.bodies.count(b"key-1:000003") >= ATTEMPTS + 1
    assert_in_order(recorder.settled, "settled")
    harness.duplicates += recorder.duplicates()


async def check_a_retry_outlives_its_consumer(harness: Harness) -> None:
    subscription, next_one = harness.subscription(), harness.recorder()
    refused = b"key-0:000005"
    refusing = harness.recorder(_refuse(refused, 1_000))
    messages, later = harness.messages(20), harness.messages(1, prefix="later-", key="key-0")
    async with harness.make() as broker:
        await broker.subscribe(subscription, refusing)
        await publish_all(broker, messages)
        await refusing.until(lambda: refusing.bodies.count(refused) >= 2, "a retry comes again")
    broker = await harness.broker()
    await broker.subscribe(subscription, next_one)
    await publish_all(broker, later)
    await next_one.until_got(later)
    assert refused in next_one.bodies, "a message that was to be retried is lost"


async def check_a_handler_that_raises_gets_its_batch_again(harness: Harness) -> None:
    broker, recorder = await harness.broker(), harness.recorder()
    failures = iter([RuntimeError("the handler broke"), "a wrong count"])

    async def breaks_twice(batch: Sequence[Delivery]) -> Sequence[Settlement]:
        failure = next(failures, None)
        if isinstance(failure, Exception):
            raise failure
        return () if failure else await recorder(batch)

    messages = harness.messages(30, keys=3)
    subscription = harness.subscription()
    await broker.declare([], [subscription])
    await publish_all(broker, messages)
    await broker.subscribe(subscription, breaks_twice)
    await recorder.until_settled(messages)
    assert_in_order(recorder.settled, "settled")


def _refuse(body: bytes, times: int) -> Settle:
    """RETRY for one message, so many times."""
    left = times

    def settle(delivery: Delivery) -> Settlement:
        nonlocal left
        if delivery.body == body and left > 0:
            left -= 1
            return Settlement.RETRY
        return Settlement.ACK

    return settle


def _one_by_one_per_key(recorder: Recorder) -> Recorder:
    """As the pipeline does: what follows a refused event of its key in a batch is refused with it."""
    settle = recorder.settle
    refused: set[bytes] = set()

    def in_order(delivery: Delivery) -> Settlement:
        key, _, number = delivery.body.partition(b":")
        if key in refused and number != recorder_first[key]:
            return Settlement.RETRY
        settlement = settle(delivery)
        if settlement is Settlement.RETRY:
            refused.add(key)
            recorder_first[key] = number
        else:
            refused.discard(key)
        return settlement

    recorder_first: dict[bytes, bytes] = {}
    recorder.settle = in_order
    return recorder
