"""A consumer whose channel the server closes, and refuses to restore, is left for dead by aio-pika, not by us."""

from __future__ import annotations

from deploy.native import Runtime
from shared.broker.rabbit import RabbitAdapter
from tests.conformance.harness import Harness, eventually, publish_all
from tests.conformance.servers_seen import delete_account, give_rights, make_account, withdraw_rights


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
