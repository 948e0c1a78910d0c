"""A stream that stands still with something waiting is told, on both brokers; a minute is a second here."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaProducer

from deploy.native import BrokerName, Runtime
from deploy.topology import BROKERS
from shared.broker import tending
from shared.broker.base import Broker, Settlement
from tests.conformance.harness import Harness, eventually, publish_all, until_no_trouble

BAD = b"bad-key-0:000000"


@pytest.fixture(autouse=True)
def a_minute_is_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tending, "TEND_INTERVAL_S", 0.3)
    monkeypatch.setattr(tending, "_STANDS_STILL_S", 1.0)


@pytest.mark.parametrize("system", BROKERS)
async def test_an_event_that_is_never_settled_is_told_until_it_is(system: BrokerName, servers: Runtime) -> None:
    async with Harness(servers, system) as harness:
        broker, subscription = await harness.broker(), harness.subscription()
        recorder = harness.recorder(lambda delivery: Settlement.RETRY if delivery.body == BAD else Settlement.ACK)
        await broker.subscribe(subscription, recorder)
        good = harness.messages(10, keys=5)
        await publish_all(broker, good)
        await recorder.until_settled(good)
        assert not broker.troubles
        await publish_all(broker, harness.messages(2, prefix="bad-"))
        place = await eventually(lambda: _standing(broker), "it is told", harness.deadline_s)
        assert harness.channel in place
        recorder.settle = lambda _: Settlement.ACK
        await until_no_trouble(broker, harness.deadline_s)


@pytest.mark.parametrize("system", BROKERS)
async def test_a_handler_that_never_ends_is_told(system: BrokerName, servers: Runtime) -> None:
    async with Harness(servers, system) as harness:
        broker, recorder = await harness.broker(), harness.recorder()
        recorder.released.clear()
        await broker.subscribe(harness.subscription(), recorder)
        await publish_all(broker, harness.messages(1))
        await eventually(lambda: _standing(broker), "it is told", harness.deadline_s)
        recorder.released.set()
        await until_no_trouble(broker, harness.deadline_s)


async def test_what_an_open_transaction_holds_back_is_told_until_it_ends(servers: Runtime) -> None:
    """A foreign producer may die in the midst of one; Kafka waits for minutes, and so does what came behind it."""
    async with Harness(servers, "kafka") as harness:
        broker, recorder, subscription = await harness.broker(), harness.recorder(), harness.subscription()
        await broker.subscribe(subscription, recorder)
        async with AIOKafkaProducer(
            bootstrap_servers=servers.server_urls()["kafka"], transactional_id=harness.channel
        ) as foreign:
            await foreign.begin_transaction()
            await foreign.send_and_wait(f"{harness.channel}-events", b"undecided", partition=0)
            place = await eventually(lambda: _standing(broker), "it is told", harness.deadline_s)
            assert place == f"{harness.channel}-events/0"
            assert "transaction" in broker.troubles[place].reason
            await foreign.abort_transaction()
            await until_no_trouble(broker, harness.deadline_s)
        assert recorder.bodies == []


async def _standing(broker: Broker) -> str | None:
    """The place that stands still."""
    return next((place for place, trouble in broker.troubles.items() if "stands still" in trouble.reason), None)
