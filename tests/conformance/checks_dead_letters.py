"""Dead letters: parked with a confirmation, looked at without being used up; the broker's own nets park too."""

from __future__ import annotations

from collections.abc import Sequence

from shared.broker.base import Broker, DeadLetter, Delivery, Settlement, Subscription
from tests.conformance.harness import Harness, eventually, only_on, publish_all
from tests.conformance.servers_seen import reject_until_gone

LOOKS = 25
"""More often than the default delivery limit of a quorum queue, 20."""


async def check_a_dead_letter_is_kept_whole_and_looking_changes_nothing(harness: Harness) -> None:
    broker, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()

    async def park(batch: Sequence[Delivery]) -> Sequence[Settlement]:
        for delivery in batch:
            await broker.publish_dead_letter(subscription, delivery, {"cause": f"why {delivery.body!r}"})
        return await recorder(batch)

    await broker.subscribe(subscription, park)
    messages = harness.messages(5, keys=2, headers={"traceparent": "00-1-2-01"})
    await publish_all(broker, messages)
    await recorder.until_settled(messages)
    for _ in range(LOOKS):
        letters = await broker.dead_letters(subscription)
        assert sorted(letter.body for letter in letters) == sorted(m.body for m in messages), "dead letters lost"
    assert all(letter.headers["cause"] == f"why {letter.body!r}" for letter in letters)
    assert all(letter.headers["traceparent"] == "00-1-2-01" for letter in letters), "headers lost"
    assert len(await broker.dead_letters(subscription, limit=2)) == 2
    assert len(await broker.dead_letters(subscription)) == 5


async def check_no_dead_letters_is_an_empty_list(harness: Harness) -> None:
    broker, subscription = await harness.broker(), harness.subscription()
    await broker.declare([], [subscription])
    assert await broker.dead_letters(subscription) == []


@only_on("rabbit")
async def check_a_message_over_its_ttl_becomes_a_dead_letter(harness: Harness) -> None:
    broker, subscription = await harness.broker(message_ttl_s=0.5), harness.subscription()
    await broker.declare([], [subscription])
    (message,) = harness.messages(1)
    await publish_all(broker, [message])
    (letter,) = await _letters(harness, broker, subscription)
    assert letter.body == message.body
    assert "expired" in letter.headers["x-death"]
    assert message.headers.items() <= letter.headers.items()


@only_on("rabbit")
async def check_a_message_delivered_too_often_is_parked_by_the_broker(harness: Harness) -> None:
    # Unordered: a quorum queue with a single active consumer hands nothing out one by one.
    broker, subscription = await harness.broker(), harness.subscription(ordered=False)
    await broker.declare([], [subscription])
    (message,) = harness.messages(1)
    await publish_all(broker, [message])
    times = await reject_until_gone(harness.runtime, subscription.queue, times_max=60)
    assert 45 <= times <= 55, f"parked after {times} deliveries"
    (letter,) = await _letters(harness, broker, subscription)
    assert letter.body == message.body
    assert "delivery_limit" in letter.headers["x-death"]


async def _letters(harness: Harness, broker: Broker, subscription: Subscription) -> list[DeadLetter]:
    async def look() -> list[DeadLetter]:
        return await broker.dead_letters(subscription)

    letters: list[DeadLetter] = await eventually(look, "a dead letter", harness.deadline_s)
    return letters
