"""A worker's heart: what ends a session ends no worker."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from uuid import UUID

import asyncpg

from shared.jobs.heart import Heart
from tests.integration.databases import migrated_database
from tests.integration.world import World, eventually


class LosesTrackOnce:
    """A worker to a heart; the driver's complaint comes out of what the heart does, once."""

    slots, running, woken = 1, 0, 0

    def wake(self, handler: str = "") -> None:
        self.woken += 1
        if self.woken == 1:
            raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")

    def cancel(self, steps: Collection[UUID]) -> None: ...

    def lose(self) -> None: ...


async def test_a_heart_whose_session_the_driver_lost_track_of_beats_on_in_another(rabbit_world: World) -> None:
    settings = rabbit_world.settings(postgres_dsn=await migrated_database(rabbit_world.runtime, "jobs"))
    body = LosesTrackOnce()
    beating = asyncio.create_task(Heart(settings, "tester", body).run())

    async def again() -> bool:
        return body.woken > 1

    try:
        await eventually(again, "it beats on")
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating
