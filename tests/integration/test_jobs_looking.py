"""A worker looks for steps where some may be: what its looks find is counted."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.native import Runtime
from shared.jobs.signatures import chain, group
from shared.jobs.taking import Taking
from tests.integration.databases import migrated_database
from tests.integration.leased_steps import quick
from tests.integration.test_jobs_leased import Leased
from tests.integration.world import World

SILENT: dict[str, Any] = {
    "worker_beat_interval_s": 30.0,
    "worker_beat_limit_s": 90.0,
    "worker_poll_interval_s": 30.0,
}
"""So much that it hears of steps only by being told."""
END_SESSION = """
    select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and application_name like '%-taking'
"""


@pytest.fixture(scope="module")
async def dsn(servers: Runtime) -> str:
    return await migrated_database(servers, "jobs")


@pytest.fixture
async def leased(rabbit_world: World, dsn: str) -> Leased:
    made = Leased(rabbit_world, dsn)
    await made.open()
    return made


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """How each look of a worker went: of what kind it was, and how many steps it found."""
    counted: list[tuple[str, int]] = []

    def count(kind: str) -> None:
        look = getattr(Taking, kind)

        async def counts(*args: Any) -> Any:
            taken = await look(*args)
            counted.append((kind, len(taken)))
            return taken

        monkeypatch.setattr(Taking, kind, counts)

    count("take")
    count("take_one")
    return counted


async def test_the_only_step_is_taken_without_a_look_and_an_empty_queue_is_not_looked_at_when_it_ends(
    leased: Leased, looks: list[tuple[str, int]]
) -> None:
    async with leased.worker(**SILENT):
        for name in ("first", "second"):  # a look of the beginning may be under way
            await leased.ended(await leased.submit(quick.s(name)))
        looks.clear()
        await leased.ended(await leased.submit(quick.s("third")))
        await leased.ended(await leased.submit(chain(quick.si("fourth"), quick.si("fifth"))))
        assert looks == [("take_one", 1)] * 3
        await leased.ended(await leased.submit(group(*(quick.s(str(number)) for number in range(40)))))
        assert ("take_one", 0) not in looks, "what are many is looked for"
    assert len(await leased.effects()) == 45


async def test_a_worker_whose_session_was_ended_hears_of_steps_in_another(
    leased: Leased, looks: list[tuple[str, int]]
) -> None:
    async with leased.worker(**SILENT):
        await leased.ended(await leased.submit(quick.s("before")))
        assert await leased.rows(END_SESSION), "there is one to be ended"
        await leased.ended(await leased.submit(quick.s("meanwhile")))
        await leased.ended(await leased.submit(quick.s("after")))
        looks.clear()
        await leased.ended(await leased.submit(quick.s("later")))
        assert looks == [("take_one", 1)]
    assert len(await leased.effects()) == 4
