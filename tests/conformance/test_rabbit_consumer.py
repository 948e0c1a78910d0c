"""What befalls one consumer: its channel is closed and may not be opened again, or its queue is deleted."""

from __future__ import annotations

from itertools import count

import pytest

from deploy.native import Runtime
from shared.broker import tending
from shared.broker.rabbit import RabbitAdapter
from tests.conformance.harness import Harness, eventually, publish_all
from tests.conformance.servers_seen import delete_account, delete_queue, give_rights, make_account, withdraw_rights


async def test_a_consumer_whose_channel_stays_closed_consumes_anew(servers: Runtime) -> None:
    async with Harness(servers, "rabbit") as harness:
        url = await make_account(servers, harness.channel)
        try:
            other, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()
            await other.declare([harness.channel], [subscription])
            settings = harness.settings(rabbit_url=url)
            async with RabbitAdapter(settings, "test") as broker:
                await broker.subscribe(subscription, recorder)
                [consumer] = broker._subscriptions._consumers
                assert consumer._channel is not None
                await withdraw_rights(servers, harness.channel)  # while it stays connected
                await (await consumer._channel.get_underlay_channel()).basic_ack(9_999)  # of nothing: 406

                async def in_trouble() -> bool:
                    return subscription.queue in broker.troubles

                await eventually(in_trouble, "it says that it cannot consume", harness.deadline_s)
                await give_rights(servers, harness.channel)
                messages = harness.messages(3)
                await publish_all(other, messages)
                await recorder.until_settled(messages)
        finally:
            await delete_account(servers, harness.channel)


async def test_a_queue_that_is_deleted_while_another_takes_the_events_is_there_again_before_the_next_look(
    servers: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who publishes is told that it is gone: what comes until then is lost to its subscriber."""
    monkeypatch.setattr(tending, "TEND_INTERVAL_S", 3_600.0)
    async with Harness(servers, "rabbit") as harness:
        broker, other = await harness.broker(), await harness.broker()
        recorder, taken = harness.recorder(), harness.recorder()
        subscription = harness.subscription("bereft")
        await broker.subscribe(subscription, recorder)
        await other.subscribe(harness.subscription("other"), taken)
        numbers = count()

        async def reached() -> bool:
            message = harness.messages(1, prefix=f"{next(numbers)}-")
            await publish_all(other, message)
            return message[0].body in recorder.bodies

        for turn in range(3):  # as often as it happens
            await delete_queue(servers, subscription.queue)
            await eventually(reached, "its events arrive again", harness.deadline_s)
            messages = harness.messages(20, prefix=f"after-{turn}-")
            await publish_all(other, messages)
            await recorder.until_settled(messages)
