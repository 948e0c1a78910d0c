"""Submits graphs of jobs beside the orders, at a fixed rate, and checks each one's end and its steps' effects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from experiment.beside.checks import wrong_job
from experiment.beside.company import DATABASE, Told, ask_on_time, process
from experiment.beside.graphs import SUBSCRIBER
from experiment.clock import until
from experiment.figures import Latencies
from experiment.ledger import Entry
from experiment.side import Side
from experiment.workload import JobGraphs

_POLL_S = 0.2
_ACCEPTED = 202
_OPEN = "select count(*) from job where id = any($1::uuid[]) and finished_at is null"
# The last change of a job's row is its end.
_JOBS = """
select j.id::text, j.state, extract(epoch from pg_xact_commit_timestamp(j.xmin))::float8 as ended_s,
       (select s.result::text from job_step s where s.job_id = j.id and s.output = 0) as result
  from job j where j.id = any($1::uuid[])
"""
_STEPS = """
select s.job_id::text, s.id::text, count(e.position)
  from job_step s left join beside_effect e on e.subscriber = $2 and e.key = s.id::text
 where s.job_id = any($1::uuid[])
 group by s.job_id, s.id
"""


@dataclass(slots=True)
class SubmittedJobs:
    """One phase's jobs. `submitted` has the number of each graph and when it was due, by its id."""

    side: Side
    asked: JobGraphs
    phase: str
    url: str
    session: aiohttp.ClientSession
    submitted: dict[str, tuple[int, float]] = field(default_factory=dict)
    unanswered: int = 0

    async def load(self, duration_s: float) -> None:
        """Submit on time."""
        await ask_on_time(self._submit, self.asked.jobs_per_s, duration_s, self.side.clock)

    async def _submit(self, number: int, due_s: float) -> None:
        headers = {"idempotency-key": f"{self.phase}-{number}"}
        body = {"number": number, "steps": self.asked.steps}
        try:
            async with self.session.post(f"{self.url}/graphs", json=body, headers=headers) as answer:
                status, document = answer.status, orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError):
            status, document = 0, {}
        if status == _ACCEPTED:
            self.submitted[document["id"]] = (number, due_s)
        else:
            self.unanswered += 1

    async def told(self, entries: Sequence[Entry]) -> Told:
        """Every acknowledged job is there, has ended with its result, and each of its steps has one effect."""
        del entries
        databases, ids = self.side.databases, list(self.submitted)

        async def ended() -> bool:
            [[count]] = await databases.rows(DATABASE, _OPEN, ids)
            return int(count) == 0

        await until(ended, self.side.workload.settle_timeout_s, _POLL_S)
        jobs = await databases.rows(DATABASE, _JOBS, ids)
        steps = await databases.rows(DATABASE, _STEPS, ids, SUBSCRIBER)
        return self._told(jobs, steps)

    def _told(self, jobs: Sequence[Any], steps: Sequence[Any]) -> Told:
        latencies, wrong, ended = Latencies(), list[str](), 0
        found = {job_id: (state, ended_s, result) for job_id, state, ended_s, result in jobs}
        effects: dict[str, list[int]] = {}
        for job_id, _, count in steps:
            effects.setdefault(job_id, []).append(count)
        for job_id, (number, due_s) in self.submitted.items():
            state, ended_s, result = found.get(job_id, ("lost", 0.0, None))
            wrong += wrong_job(number, self.asked.steps, state, result, effects.get(job_id, []))
            if state == "succeeded":
                ended += 1
                latencies.record(ended_s - due_s)
            else:
                latencies.record_endless(self.side.workload.settle_timeout_s)
        for _ in range(self.unanswered):
            latencies.record_endless(self.side.workload.steady.request_timeout_s)
        return Told(latencies, {"ended": ended, "steps": len(steps), "unanswered": self.unanswered}, wrong)


@asynccontextmanager
async def submitted_jobs(side: Side, asked: JobGraphs, phase: str) -> AsyncIterator[SubmittedJobs]:
    """Jobs of a process that runs as long as this context, in the place of the jobs service."""
    timeout = aiohttp.ClientTimeout(total=side.workload.steady.request_timeout_s)
    async with (
        process(side, "api,relay,consumer", "jobs") as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session,
    ):
        yield SubmittedJobs(side, asked, phase, url, session)
