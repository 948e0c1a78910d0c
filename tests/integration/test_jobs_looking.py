"""A worker looks for steps where some may be: what its looks find is counted."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.native import Runtime
from shared.jobs import leases
from shared.jobs.signatures import group
from tests.integration.databases import migrated_database
from tests.integration.leased_steps import quick
from tests.integration.test_jobs_leased import Leased
from tests.integration.world import World


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


@pytest.fixture
async def leased(rabbit_world: World, dsn: str) -> Leased:
    made = Leased(rabbit_world, dsn)
    await made.open()
    return made


async def test_an_empty_queue_is_not_looked_at_again_when_a_step_ends(
    leased: Leased, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    async def take(*args: Any) -> Any:
        taken = await leases_taken(*args)
        looked.append(len(taken))
        return taken

    leases_taken = leases.take
    monkeypatch.setattr(leases, "take", take)
    silent: dict[str, Any] = {
        "worker_beat_interval_s": 30.0,
        "worker_beat_limit_s": 90.0,
        "worker_poll_interval_s": 30.0,
    }
    async with leased.worker(**silent):
        await leased.ended(await leased.submit(quick.s("first")))
        looked.clear()
        await leased.ended(await leased.submit(quick.s("second")))
        assert looked[looked.index(1) :] == [1]  # a look of the beginning may have been under way
        await leased.ended(await leased.submit(group(*(quick.s(str(number)) for number in range(40)))))
    assert len(await leased.effects()) == 42
