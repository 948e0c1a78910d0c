"""The tables of this engine's jobs: fills them, has steps announced, and reads what came of them."""

from __future__ import annotations

from typing import Self
from uuid import UUID

import asyncpg

from bench import backlog, committed
from bench.contenders import tandem_steps
from bench.publishing import until_relayed
from shared.broker import Subscription
from shared.database import Database
from shared.jobs import Signature
from shared.migrate import bring_up_to_date
from shared.publishing import UnitsOfWork
from shared.settings import Settings
from shared.telemetry import Telemetry

_PER_UNIT = 200
_DELAY_S = 86_400.0

_CLEAR = "truncate job, job_step, job_edge, job_attempt, job_unique, inbox, outbox"
_SUCCEEDED = "select count(*) from job where state = 'succeeded'"
_RESULTS = "select s.result::text from job_step s join job j on j.id = s.job_id where j.state = 'succeeded'"
_RESULT = f"{_RESULTS} and j.id = $1 and s.output = 0"
_ENDED = "job where state = 'succeeded'"


class JobTables:
    """A database of this engine's; an async context manager."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._telemetry = telemetry

    async def __aenter__(self) -> Self:
        await bring_up_to_date("jobs", self._settings.postgres_dsn)
        self._postgres = await asyncpg.connect(self._settings.postgres_dsn)
        self._database = Database(self._settings, "bench-jobs")
        self._units = UnitsOfWork(self._database, "bench", self._telemetry.spans)
        self._units.submitter = tandem_steps.SUBMITTED
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._database.close()
        await self._postgres.close()

    @property
    def dsn(self) -> str:
        return self._settings.postgres_dsn

    @property
    def subscription(self) -> Subscription:
        """Where announcements wait for the consumer."""
        ready = tandem_steps.BenchStepReady
        return backlog.subscription(ready.channel, tandem_steps.SUBSCRIBER, ready.event_type)

    async def clear(self) -> None:
        """Forget what there was."""
        await self._postgres.execute(_CLEAR)

    async def settle(self) -> None:
        """Have the server know what it holds, as autovacuum would within its ten seconds."""
        await self._postgres.execute("vacuum analyze job, job_step, job_edge")
        await self._postgres.execute("checkpoint")

    async def submit(self, *graphs: Signature) -> list[UUID]:
        """Submit these, some in each transaction; their ids."""
        ids: list[UUID] = []
        for start in range(0, len(graphs), _PER_UNIT):
            async with self._units.begin() as uow:
                ids += [(await uow.submit(graph)).job_id for graph in graphs[start : start + _PER_UNIT]]
        return ids

    async def have_waiting(self, count: int) -> None:
        """So many jobs that never begin: every other is for a later time, the others in a queue nobody serves."""
        later = tandem_steps.add.s(1, 1).after(_DELAY_S)
        await self.submit(*(tandem_steps.waits.s(number) if number % 2 else later for number in range(count)))

    async def announce(self, settings: Settings) -> None:
        """Publish what the outbox holds, by the relay. Raises `BenchError` when something is left."""
        of_jobs = settings.model_copy(update={"postgres_dsn": self.dsn})
        await until_relayed(of_jobs, self._telemetry, self._postgres, self.subscription)

    async def ended(self) -> int:
        """How many jobs have succeeded."""
        return int(await self._postgres.fetchval(_SUCCEEDED))

    async def result(self, job_id: UUID) -> str | None:
        """The first result of a job, as JSON text; None as long as it has none."""
        result: str | None = await self._postgres.fetchval(_RESULT, job_id)
        return result

    async def results(self) -> list[int]:
        """Of the steps of jobs that succeeded."""
        return [int(row[0]) for row in await self._postgres.fetch(_RESULTS)]

    async def rate_per_s(self) -> float:
        """Jobs per second from the first commit of an end to the last."""
        return await committed.rate_per_s(self._postgres, _ENDED)
