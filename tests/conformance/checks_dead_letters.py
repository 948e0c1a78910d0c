"""Dead letters: parked with a confirmation, looked at without being used up, consumed, and given back to the one
subscriber that they are from; the broker's own nets park too."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from shared.broker.base import Broker, DeadLetter, Delivery, Message, Settlement, Subscription
from shared.errors import UnavailableError
from tests.conformance.harness import Harness, eventually, only_on, publish_all, until_one_got
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


GROUP = "letters"


async def check_consumed_dead_letters_come_again_until_they_are_settled(harness: Harness) -> None:
    broker, subscription = await harness.broker(), harness.subscription()
    await broker.declare([harness.channel], [subscription])
    letters = harness.messages(6, keys=3, headers={"cause": "planted"})
    for letter in letters:
        await broker.publish_dead_letter(subscription, _delivery(letter), {})
    refused = {letters[0].body, letters[3].body}
    first = harness.recorder(lambda d: Settlement.RETRY if d.body in refused else Settlement.ACK)
    leaving = await harness.make().__aenter__()
    await leaving.subscribe_dead_letters(subscription, GROUP, first)
    await first.until(lambda: all(first.bodies.count(body) > 1 for body in refused), "a retry comes again")
    assert all(delivery.headers["cause"] == "planted" for delivery in first.deliveries), "headers lost"
    await leaving.__aexit__(None, None, None)
    second = harness.recorder()
    await broker.subscribe_dead_letters(subscription, GROUP, second)
    last = harness.messages(1, prefix="last-")
    await broker.publish_dead_letter(subscription, _delivery(last[0]), {})
    await second.until_got([*last, *(letter for letter in letters if letter.body in refused)])
    harness.duplicates += first.duplicates() + second.duplicates()


async def check_replicas_share_the_dead_letters(harness: Harness) -> None:
    subscription, recorders = harness.subscription(), [harness.recorder(), harness.recorder()]
    brokers = [await harness.broker(), await harness.broker()]
    await brokers[0].declare([harness.channel], [subscription])
    for broker, recorder in zip(brokers, recorders, strict=True):
        await broker.subscribe_dead_letters(subscription, GROUP, recorder)
    letters = harness.messages(30, keys=15)
    for letter in letters:
        await brokers[0].publish_dead_letter(subscription, _delivery(letter), {})
    await until_one_got(recorders, letters)
    twice = {*recorders[0].bodies} & {*recorders[1].bodies}
    harness.duplicates += len(twice)
    assert len(twice) < len(letters), "every replica gets everything"


async def check_what_is_given_back_reaches_its_subscriber_alone(harness: Harness) -> None:
    broker, meant, other = await harness.broker(), harness.recorder(), harness.recorder()
    subscription = harness.subscription("meant")
    await broker.subscribe(subscription, meant)
    await broker.subscribe(harness.subscription("other"), other)
    (back,) = harness.messages(1, prefix="back-", headers={"traceparent": "00-1-2-01"})
    await broker.publish_retry(subscription, _delivery(back), {"added": "later"})
    await meant.until_got([back])
    marks = harness.messages(12, keys=12, prefix="mark-")
    await publish_all(broker, marks)
    await meant.until_got(marks)
    await other.until_got(marks)
    assert back.body not in other.bodies, "somebody else got it, too"
    (got,) = [delivery for delivery in meant.deliveries if delivery.body == back.body]
    assert got.headers.items() >= {"traceparent": "00-1-2-01", "added": "later"}.items(), "headers lost"
    assert got.channel == harness.channel


async def check_what_is_given_back_waits_for_its_subscriber(harness: Harness) -> None:
    broker, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()
    await broker.declare([harness.channel], [subscription])
    gone = await harness.make().__aenter__()
    await gone.declare([harness.channel], [subscription])
    back = harness.messages(5, keys=2)
    for message in back:
        await gone.publish_retry(subscription, _delivery(message), {})
    await gone.__aexit__(None, None, None)
    await broker.subscribe(subscription, recorder)
    await recorder.until_settled(back)
    harness.duplicates += recorder.duplicates()


async def check_giving_back_to_nobody_is_an_error(harness: Harness) -> None:
    broker, subscription = await harness.broker(), harness.subscription("nobody")
    (message,) = harness.messages(1)
    with pytest.raises(UnavailableError):
        await broker.publish_retry(subscription, _delivery(message), {})


def _delivery(message: Message) -> Delivery:
    """The message as somebody who kept it holds it."""
    return Delivery(message.body, message.headers, message.channel, message.key, False, "kept", None)


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
