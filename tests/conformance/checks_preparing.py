"""Preparing: the next batch is taken up while one runs, and nothing of it is seen before that has ended."""

from __future__ import annotations

import asyncio
from typing import Any

from shared.broker.base import Delivery, Settlement
from tests.conformance.harness import Harness, assert_in_order, publish_all, until_one_got

BATCH, IN_FLIGHT = 10, 20
BOUNDS: dict[str, Any] = {"batch_max": BATCH, "in_flight_max": IN_FLIGHT}
COUNT, KEYS = 300, 30
REFUSALS = 3


async def check_the_next_batch_is_prepared_while_one_runs(harness: Harness) -> None:
    broker, recorder, subscription = await harness.broker(), harness.preparing(), harness.subscription(**BOUNDS)
    await broker.declare([], [subscription])
    messages = harness.messages(COUNT, KEYS)
    await publish_all(broker, messages)
    await broker.subscribe(subscription, recorder)
    await recorder.until_settled(messages)
    assert recorder.held_max <= IN_FLIGHT, f"more than in_flight_max: {recorder.held_max}"
    assert recorder.beside, "nothing was prepared while another batch ran"
    assert not recorder.overlapped, "two batches ran at once"
    assert_in_order(recorder.bodies)
    assert (recorder.duplicates(), recorder.abandoned) == (0, []), "delivered twice"


async def check_what_was_prepared_behind_a_retry_is_abandoned(harness: Harness) -> None:
    """Three times, whenever something is prepared behind it, a whole batch is to be retried."""
    left = REFUSALS
    refused: list[Delivery] = []

    def settle(delivery: Delivery) -> Settlement:
        nonlocal left
        if delivery is recorder.in_hand[0]:
            refused.clear()
            if left and recorder.waiting:
                left -= 1
                refused.extend(recorder.in_hand)
        return Settlement.RETRY if refused else Settlement.ACK

    broker, subscription = await harness.broker(), harness.subscription(**BOUNDS)
    recorder = harness.preparing(settle)
    await broker.declare([], [subscription])
    messages = harness.messages(COUNT, KEYS)
    await publish_all(broker, messages)
    await broker.subscribe(subscription, recorder)
    await recorder.until_settled(messages)
    assert left == 0, "nothing was prepared behind a batch that was to be retried"
    assert recorder.abandoned, "what was prepared behind it was not abandoned"
    assert_in_order(recorder.settled, "settled")
    assert len(recorder.settled) == len(messages), "settled twice"


async def check_leaving_abandons_what_was_prepared(harness: Harness) -> None:
    subscription, stuck, next_one = harness.subscription(**BOUNDS), harness.preparing(), harness.preparing()
    stuck.holds = True
    messages = harness.messages(COUNT, KEYS)
    async with harness.make(shutdown_grace_s=0.5) as broker:
        await broker.declare([], [subscription])
        await publish_all(broker, messages)
        await broker.subscribe(subscription, stuck)
        await asyncio.wait_for(stuck.holding.wait(), harness.deadline_s)
        prepared = [delivery.body for delivery in stuck.waiting[0]]
    assert (stuck.abandoned, stuck.waiting) == (prepared, []), "not abandoned"
    await (await harness.broker()).subscribe(subscription, next_one)
    await until_one_got([stuck, next_one], messages)
    assert set(stuck.bodies) == set(stuck.settled), "what was never settled ran"
    assert not set(stuck.settled) & set(next_one.bodies), "delivered twice"
    assert_in_order([*stuck.settled, *next_one.bodies])


async def check_a_replica_that_joins_gets_nothing_that_is_in_hand(harness: Harness) -> None:
    """Neither what runs nor what is prepared, and all that is behind it in order."""
    subscription, first, second = harness.subscription(**BOUNDS), harness.preparing(), harness.preparing()
    first.holds = True
    here, joining = await harness.broker(), await harness.broker()
    await here.declare([], [subscription])
    messages = harness.messages(COUNT, KEYS)
    await publish_all(here, messages)
    await here.subscribe(subscription, first)
    await asyncio.wait_for(first.holding.wait(), harness.deadline_s)
    join = asyncio.create_task(joining.subscribe(subscription, second))
    await asyncio.sleep(1)
    assert not set(second.bodies) & {delivery.body for delivery in (*first.in_hand, *first.waiting[0])}
    first.holds = False
    first.go_on.set()
    await join
    await until_one_got([first, second], messages)
    repeated = len(first.bodies) + len(second.bodies) - len(messages)
    assert repeated == 0, f"the second one joining had {repeated} delivered twice"
    assert_in_order([*first.settled, *second.bodies])
