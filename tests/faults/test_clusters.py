"""Three nodes of each broker, one of which is killed: the adapters go on with the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from deploy.native import BrokerName, Ports, Runtime
from experiment.backlog import settings_from
from experiment.clock import until
from shared.broker.base import Delivery, Message, Settlement, Subscription
from shared.broker.connect import create_broker

pytestmark = pytest.mark.timeout(400)

DEADLINE_S = 90.0
SUBSCRIPTION = Subscription(channel="thing", subscriber="tester", types=frozenset({"thing.happened"}))


@pytest.fixture(params=["rabbit", "kafka"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    broker: BrokerName = request.param
    runtime = Runtime(tmp_path_factory.mktemp("cluster"), Ports.free_block(nodes=3), servers=[broker])
    try:
        runtime.start_servers()
        yield runtime
    finally:
        runtime.stop(remove=True)


def messages(first: int, count: int) -> list[Message]:
    return [
        Message("thing", "thing.happened", f"key-{number % 5}", b"%d" % number)
        for number in range(first, first + count)
    ]


async def test_what_was_confirmed_arrives_when_the_first_of_three_nodes_is_killed(cluster: Runtime) -> None:
    [name] = cluster.servers
    nodes = cluster.addresses.server_processes
    assert nodes == [name, f"{name}-2", f"{name}-3"]
    assert all(await asyncio.gather(*(asyncio.to_thread(cluster.processes.is_healthy, node) for node in nodes)))
    settings = settings_from(cluster.service_env("notification-consumer", name))  # type: ignore[arg-type]
    seen: set[bytes] = set()

    async def take(deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
        seen.update(delivery.body for delivery in deliveries)
        return [Settlement.ACK] * len(deliveries)

    async with create_broker(settings, "cluster-test") as broker:
        await broker.declare(("thing",), (SUBSCRIPTION,))
        if name == "rabbit":
            members = await asyncio.to_thread(cluster.rabbitmqctl, "list_queues", "-q", "name", "members")
            [line] = [line for line in members.splitlines() if line.startswith("tester.thing\t")]
            assert line.count("tandem-") == 3, "a quorum queue has a member on each node"
        await broker.subscribe(SUBSCRIPTION, take)
        assert await broker.publish(messages(0, 50)) == []
        await asyncio.to_thread(cluster.processes.kill, name)
        left = messages(50, 50)

        async def confirmed() -> bool:
            nonlocal left
            left = [failure.message for failure in await broker.publish(left)]
            return not left

        assert await until(confirmed, DEADLINE_S, 0.2)

        async def arrived() -> bool:
            return len(seen) == 100

        assert await until(arrived, DEADLINE_S, 0.1), sorted({b"%d" % n for n in range(100)} - seen)
