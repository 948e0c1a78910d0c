"""HTTP of jobs as they are shown, for any service that has some: its http.py calls `add_board`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import itemgetter
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import Field, StringConstraints
from starlette.responses import Response

from shared.http import pages
from shared.http.event_stream import CROWDED, EventStream, EventStreams, LastEventId
from shared.http.openapi import problem_responses
from shared.http.pages import PAGE_SIZE, Cursor, PageSize, page_of
from shared.http.problems import UNAVAILABLE, ProblemKind
from shared.http.timestamps import Timestamp
from shared.jobs import reading
from shared.jobs.board.views import JOB_ID, JobPage, JobState, JobTree, JobView
from shared.jobs.board.watching import JobWatch
from shared.jobs.control import JobNotFoundError
from shared.jobs.schedules.routes import Application
from shared.process import Parts

STEPS_SHOWN_MAX: Final = 500

NOT_FOUND: Final = ProblemKind(404, "job-not-found", "No such job", example=f"job {JOB_ID} does not exist")
PROBLEMS: Final[Mapping[type[Exception], ProblemKind]] = {JobNotFoundError: NOT_FOUND}

Named = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
After = Annotated[int, Field(ge=-1, le=2**31 - 1)]
Queue = Annotated[Named | None, Field(description="With a step that workers take from this queue.")]
Since = Annotated[
    Timestamp | None,
    Field(description="Submitted at or after this moment; those of schedules, that were due then."),
]


def add_board(app: Application, parts: Parts) -> None:
    """Add what shows this service's jobs: the list, one with its steps, and what becomes of it as events."""
    streams = EventStreams(parts.stopping)

    async def list_jobs(
        *,
        state: JobState | None = None,
        kind: Named | None = None,
        queue: Queue = None,
        since: Since = None,
        cursor: Cursor = "",
        limit: PageSize = PAGE_SIZE,
    ) -> JobPage:
        """Jobs, newest first."""
        before = pages.decode_id(cursor) if cursor else None
        wanted = reading.Wanted(state=state, kind=kind, queue=queue, since=since, before=before)
        async with parts.units.begin() as uow:
            rows, next_cursor = await page_of(
                partial(reading.list_jobs, uow.connection, wanted), limit, itemgetter("id")
            )
        return JobPage(items=[JobView.model_validate(row) for row in rows], next_cursor=next_cursor)

    async def get_job(job_id: UUID, after: After = -1) -> JobTree:
        """A job and its steps, up to 500 at once; `after` continues them."""
        async with parts.units.begin() as uow:
            row = await reading.find_job(uow.connection, job_id)
            steps = await reading.list_steps(uow.connection, job_id, after, STEPS_SHOWN_MAX)
            attempts = await reading.list_attempts(uow.connection, [step["id"] for step in steps])
        shown = [{**step, "failed_attempts": attempts[step["id"]]} for step in steps]
        more = steps[-1]["number"] if len(steps) == STEPS_SHOWN_MAX else None
        return JobTree.model_validate({**row, "steps": shown, "more_after": more})

    async def get_job_events(job_id: UUID, last_event_id: LastEventId = None) -> Response:
        """A job as it changes, until it has ended: an event `job` with what the list shows of it, an event `step`
        for each of its first 200 steps. It begins with how everything stands, so who connects again has missed
        nothing; who comes back from its end is told by 204 that nothing follows."""
        watch = JobWatch(parts.units, job_id)
        first = await watch.look()
        if watch.end_id is not None and last_event_id == watch.end_id:
            return Response(status_code=204)
        return streams.response(first, watch)

    add = app.add_api_route
    add("/jobs", list_jobs, response_model=JobPage)
    add("/jobs/{job_id:uuid}", get_job, response_model=JobTree, responses=problem_responses(NOT_FOUND))
    events: dict[int | str, dict[str, Any]] = {
        204: {"description": "The job has ended, and the client has been told"},
        **problem_responses(NOT_FOUND, CROWDED, UNAVAILABLE),
    }
    add(
        "/jobs/{job_id:uuid}/events",
        get_job_events,
        response_model=None,
        response_class=EventStream,
        responses=events,
    )
