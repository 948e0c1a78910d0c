"""The jobs of one broker's set of services: submits them, waits for them, and checks what they did."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import orjson

from experiment.clock import until
from experiment.side import Side
from faults.beside import ask_steadily, connected, patience_s
from faults.jobs.checker import Found, JobFindings, check
from faults.jobs.found import read
from faults.jobs.played import CREATE_EFFECTS, FIRES_EVERY, SCHEDULE

_PER_S = 1.5
"""Graphs a second: each has 9 steps or 10."""
_REQUEST_TIMEOUT_S = 5.0
_POLL_S = 0.2

_OPEN = """
select (select count(*) from job
         where case when schedule_id is null then submitted_at else due_at end <= $1 and finished_at is null),
       (select next_due > $1 from job_schedule where name = $2)
"""


@dataclass(slots=True)
class JobSide:
    """One side's jobs. `acknowledged` are the ids that were answered with, in every phase."""

    side: Side
    acknowledged: set[UUID] = field(default_factory=set)
    verdict: JobFindings = field(default_factory=JobFindings)
    """What the last check found."""
    _number: int = 0

    async def query(self, statement: str, *parameters: object) -> list[asyncpg.Record]:
        """Rows."""
        async with connected(self.side, "jobs") as connection:
            return list(await connection.fetch(statement, *parameters))

    async def prepare(self) -> None:
        """Make the table of effects."""
        await self.query(CREATE_EFFECTS)

    # -- load

    async def load(self, enough: asyncio.Event) -> None:
        """Submit graph after graph at a fixed rate until `enough`, whether or not they are answered."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)) as session:
            await ask_steadily(lambda: self._submit(session), _PER_S, enough)

    async def _submit(self, session: aiohttp.ClientSession) -> bool:
        """Whether it was acknowledged."""
        self._number += 1
        url = self.side.runtime.addresses.service_urls(self.side.broker)["jobs"]
        headers = {"idempotency-key": str(uuid4())}
        try:
            async with session.post(f"{url}/graphs", json={"number": self._number}, headers=headers) as answer:
                document = orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError):
            return False
        if answer.status != 202:
            return False
        self.acknowledged.add(UUID(document["id"]))
        return True

    # -- check

    async def verify(self) -> JobFindings:
        """Wait until all that was submitted has ended, and check it; returns what the check before had not found.

        One more graph must be acknowledged: a service that takes nothing any more would have nothing to lose.
        """
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)) as session:
            is_served = await until(lambda: self._submit(session), patience_s(self.side), _POLL_S)
        [row] = await self.query("select clock_timestamp() as now")
        moment: datetime = row["now"]

        async def ended() -> bool:
            [row] = await self.query(_OPEN, moment, SCHEDULE)
            return row[0] == 0 and bool(row[1])

        await until(ended, patience_s(self.side), _POLL_S)
        whole = check(self.acknowledged, await self._found(moment), FIRES_EVERY)
        whole.unserved = [*self.verdict.unserved, *([] if is_served else [moment.isoformat()])]
        before, self.verdict = self.verdict, whole
        return whole.since(before)

    async def _found(self, moment: datetime) -> Found:
        """All of one moment: steps that still run may record effects between two queries."""
        async with connected(self.side, "jobs") as connection, connection.transaction(isolation="repeatable_read"):
            return await read(connection.fetch, moment)
