"""The verdicts of one broker's set of services: every order must get one, which must be told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import orjson

from experiment.clock import until
from experiment.side import Side, StalledError
from faults.beside import connected, patience_s
from faults.verdicts.checker import VerdictFindings, check
from faults.verdicts.found import CREATE_EFFECTS, PUT_ASIDE, orders_of, read

PROCESS = "fraud"
"""Of the fraud service, with all its roles."""
BATCH, LIST = "fraud-batch", "threat-list"
"""Its schedules."""
_REQUEST_TIMEOUT_S = 5.0
_POLL_S = 0.2
_WATCH_S = 0.02
"""A checkpoint takes longer."""

_TOLD = "select order_id from order_verdict where order_id = any($1::uuid[])"
_OPEN = "select count(*) from job where finished_at is null and submitted_at <= $1"
_STATE = "select state from job where id = $1 and finished_at is not null"
_AT = """
select coalesce((s.cursor ->> 'count')::integer, 0) as count, j.finished_at is not null as has_ended
  from job j join job_step s on s.job_id = j.id where j.id = $1
"""
_THREATS = "select value from threat"


@dataclass(frozen=True, slots=True)
class Batch:
    """A night's batch that runs, of so many orders; asked over a connection that no fault cuts."""

    job_id: UUID
    orders: int
    connection: asyncpg.Connection[Any]
    patience_s: float

    async def beyond(self, count: int) -> int:
        """Wait until its cursor is behind more orders than that; behind how many.

        Raises `StalledError` when it is through with all before anything was broken, or stands still.
        """
        row: Any = None

        async def is_beyond() -> bool:
            nonlocal row
            row = await self.connection.fetchrow(_AT, self.job_id)
            return bool(row["count"] > count or row["has_ended"])

        if not await until(is_beyond, self.patience_s, _WATCH_S):
            raise StalledError(f"the batch {self.job_id} stands still at {row['count']} of {self.orders} orders")
        if row["has_ended"] or row["count"] >= self.orders:
            raise StalledError(f"the batch {self.job_id} of {self.orders} orders was over too soon to be broken")
        return int(row["count"])


@dataclass(slots=True)
class VerdictSide:
    """One side's verdicts. The load is the orders themselves, which others place."""

    side: Side
    verdict: VerdictFindings = field(default_factory=VerdictFindings)
    """What the last check found."""
    lists: list[str] = field(default_factory=list)
    """What a fault found wrong with the threat list that was in force."""
    to_fail: set[UUID] = field(default_factory=set)
    """Jobs that must fail."""
    _aside: set[UUID] = field(default_factory=set)

    async def prepare(self) -> None:
        """Have each verdict that the order service is told leave a row."""
        async with connected(self.side, "order") as connection:
            await connection.execute(CREATE_EFFECTS)

    async def load(self, enough: asyncio.Event) -> None:
        """Nothing of its own."""
        await enough.wait()

    # -- what faults do

    @asynccontextmanager
    async def batch(self, orders: int) -> AsyncIterator[Batch]:
        """Keep so many orders of yesterday without a verdict, and have the night's batch begin."""
        ids = [uuid4() for _ in range(orders)]
        async with connected(self.side, "fraud") as connection:
            await connection.execute(PUT_ASIDE, ids, [UUID(user_id) for user_id in self.side.users])
            self._aside |= set(ids)
            yield Batch(await self.run(BATCH), orders, connection, patience_s(self.side))

    async def run(self, schedule: str) -> UUID:
        """Run a schedule now; its job. Raises `StalledError` when the service does not take that."""
        url = self.side.runtime.addresses.service_urls(self.side.broker)[PROCESS]
        headers = {"idempotency-key": str(uuid4())}
        job_id: UUID | None = None

        async def accepted() -> bool:
            nonlocal job_id
            try:
                async with session.post(f"{url}/schedules/{schedule}/run", headers=headers) as answer:
                    document = orjson.loads(await answer.read())
            except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError):
                return False
            job_id = UUID(document["id"]) if answer.status == 202 else None
            return job_id is not None

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)) as session:
            await until(accepted, patience_s(self.side), _POLL_S)
        if job_id is None:
            raise StalledError(f"the fraud service does not run its schedule {schedule}")
        return job_id

    async def ended(self, job_id: UUID) -> str:
        """How a job has ended. Raises `StalledError` when it does not."""
        state: str | None = None

        async def has_ended() -> bool:
            nonlocal state
            state = await connection.fetchval(_STATE, job_id)
            return state is not None

        async with connected(self.side, "fraud") as connection:
            await until(has_ended, patience_s(self.side), _POLL_S)
        if state is None:
            raise StalledError(f"job {job_id} of the fraud service does not end")
        return state

    async def threats(self) -> set[str]:
        """What is listed by the threat list that is in force."""
        async with connected(self.side, "fraud") as connection:
            return {value for (value,) in await connection.fetch(_THREATS)}

    # -- check

    async def verify(self) -> VerdictFindings:
        """Wait until every order that is there has its verdict and all jobs have ended, and check it.

        Returns what the check before had not found. New orders are the proof that orders are still judged.
        """
        async with connected(self.side, "order") as order, connected(self.side, "fraud") as fraud:
            moment = await fraud.fetchval("select clock_timestamp()")
            orders = await orders_of(order.fetch) | self._aside
            missing = set(orders)

            async def settled() -> bool:
                nonlocal missing
                missing -= {UUID(bytes=id_.bytes) for (id_,) in await order.fetch(_TOLD, list(missing))}
                return not missing and await fraud.fetchval(_OPEN, moment) == 0

            await until(settled, patience_s(self.side), _POLL_S)
            found = await read(order.fetch, fraud.fetch, moment)
        whole = check(orders, found, self.to_fail, self.lists)
        before, self.verdict = self.verdict, whole
        return whole.since(before)
