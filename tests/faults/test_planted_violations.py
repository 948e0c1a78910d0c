"""Each kind of broken system is found out: the same faults, load and checker, with one part sabotaged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from deploy.native import BrokerName, Runtime
from deploy.topology import BROKERS
from experiment.clock import Clock
from experiment.effects import CONSUMER
from experiment.instance import databases_of
from experiment.progress_bar import ProgressBar
from experiment.side import Side
from experiment.workload import load_workload
from faults.fault import Fault
from faults.phase import PhaseResult, play
from faults.proxy import Proxies
from faults.run import LOAD, start_services
from faults.scene import ORDER, Scene
from tests.conftest import ServersFor, start_alone
from tests.faults.sabotaged import ARMED

pytestmark = pytest.mark.timeout(600)

WORKLOAD = load_workload(LOAD).model_copy(update={"users": 6, "settle_timeout_s": 6.0})


@pytest.fixture(scope="module")
def runtime(servers_for: ServersFor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with servers_for(*BROKERS) as servers:
        with start_alone(tmp_path_factory):
            start_services(servers, BROKERS)
        yield servers


@pytest.fixture(scope="module")
async def sides(runtime: Runtime) -> AsyncIterator[dict[BrokerName, Side]]:
    made: dict[BrokerName, Side] = {}
    async with AsyncExitStack() as stack:
        for broker in BROKERS:
            databases = await stack.enter_async_context(databases_of(runtime, broker))
            await databases.drop_unique_constraint()
            made[broker] = Side(broker, runtime, WORKLOAD, Clock(), ProgressBar([]), databases)
            await made[broker].register_users()
        yield made


async def sabotage(name: str, side: Side) -> PhaseResult:
    """Play the death of a sabotaged process; what follows it is sabotaged in the same way."""
    process = ORDER if name == "mark-before-confirming" else CONSUMER
    service = process.partition("-")[0]
    module = ["tests.faults.sabotaged", name, service]

    async def prepare(scene: Scene) -> None:
        await scene.stand_in(process, {"TANDEM_FAILPOINTS": f"{ARMED[name]}=kill@10"}, module)

    async def act(scene: Scene) -> None:
        stand_in = f"{scene.process(process)}-stand-in"
        await scene.await_end(stand_in)
        scene.begin()
        await scene.call(scene.runtime.processes.stop_extra, stand_in)
        await scene.stand_in(process, {}, module)
        scene.end()

    async def restore(scene: Scene) -> None:
        await scene.restored(process)

    return await play(Fault(name, name, act, 8, prepare, restore), side, Proxies({}))


async def test_an_adapter_that_acknowledges_early_loses_events(sides: dict[BrokerName, Side]) -> None:
    for side in sides.values():
        result = await sabotage("acknowledge-early", side)
        assert result.verdict.lost, side.broker
        assert not result.sound


async def test_a_relay_that_marks_before_confirming_loses_events(sides: dict[BrokerName, Side]) -> None:
    result = await sabotage("mark-before-confirming", sides["kafka"])
    assert result.verdict.lost
    assert not result.sound


async def test_a_claim_without_an_owner_loses_events(sides: dict[BrokerName, Side]) -> None:
    result = await sabotage("claim-without-owner", sides["rabbit"])
    assert result.verdict.lost
    assert not result.sound


async def test_without_an_inbox_effects_are_doubled(sides: dict[BrokerName, Side]) -> None:
    result = await sabotage("no-inbox", sides["rabbit"])
    assert result.verdict.duplicate_effects
    assert not result.sound
