"""What befalls the channel by which events are published: the server closes it, and it may not be opened again."""

from __future__ import annotations

import aio_pika

from deploy.native import Runtime
from shared.errors import UnavailableError
from tests.conformance.harness import Harness, eventually, until_no_trouble
from tests.conformance.servers_seen import delete_exchange, delete_queue


async def test_a_publisher_whose_channel_could_not_be_opened_again_publishes_on(servers: Runtime) -> None:
    """aio-pika tries it once, and leaves the channel closed if what it declares with it is refused."""
    async with Harness(servers, "rabbit") as harness:
        broker, subscription = await harness.broker(publish_timeout_s=2.0), harness.subscription()
        await broker.declare([harness.channel], [subscription])  # nobody consumes: who does is told of a deletion
        messages = harness.messages(3)

        async def taken() -> bool:
            failures = await broker.publish(messages)
            assert all(isinstance(failure.error, UnavailableError) for failure in failures), "none is given up"
            return not failures

        async def in_trouble() -> bool:
            trouble = broker.troubles.get("publisher")
            return trouble is not None and trouble.stops

        await eventually(taken, "published", harness.deadline_s)
        await _replace_queue(servers, subscription.queue)
        await delete_exchange(servers, f"{harness.channel}.events")
        assert not await taken(), "the server closes the channel"
        await eventually(in_trouble, "it says that it cannot publish", harness.deadline_s)
        await delete_queue(servers, subscription.queue)
        await eventually(taken, "published again", harness.deadline_s)
        await until_no_trouble(broker, harness.deadline_s)


async def _replace_queue(servers: Runtime, name: str) -> None:
    """By one with other arguments, as an operator may."""
    async with await aio_pika.connect(servers.server_urls()["rabbit"]) as connection:
        channel = await connection.channel()
        await channel.queue_delete(name)
        await channel.declare_queue(name, durable=True)
