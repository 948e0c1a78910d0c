"""The jobs service's HTTP with its own steps at work: what is asked for runs, and every id has its one answer."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from deploy.errors import DeployError
from deploy.native import Runtime
from deploy.show.traces import find_in_files
from services.jobs.app import SERVICE
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.settings import Settings
from tests.integration.databases import migrated_database
from tests.integration.world import eventually


class JobsService:
    """The whole service in one process: API, relay and consumer."""

    def __init__(self, process: Process, http: httpx.AsyncClient) -> None:
        self.process = process
        self.http = http

    async def post(self, path: str, status: int, json: Any = None, **headers: str) -> Any:
        answer = await self.http.post(path, json=json, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def result(self, path: str) -> Any:
        """What a result is once it is there."""

        async def done() -> Any:
            answer = await self.http.get(path)
            if answer.status_code == 202:
                assert answer.headers["retry-after"] == "1"
                return None
            assert answer.status_code == 200, answer.text
            return answer.json()

        return await eventually(done, f"{path} is there")

    async def execute(self, statement: str, **parameters: Any) -> None:
        async with self.process.parts.database.transaction() as connection:
            await connection.execute(text(statement), parameters)


@pytest.fixture(scope="module")
async def service(servers: Runtime, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[JobsService]:
    settings = Settings(
        broker="rabbit",
        http_port=1,
        postgres_dsn=await migrated_database(servers, "jobs"),
        redis_url=servers.server_urls()["redis"],
        rabbit_url=servers.server_urls()["rabbit"],
        otlp_dir=tmp_path_factory.mktemp("telemetry"),
        metrics_interval_s=0.5,
    )
    process = Process(SERVICE, build_parts("jobs", settings))
    app = application_of(process)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(process.lifespan(app))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=60)
        yield JobsService(process, await stack.enter_async_context(http))


async def test_a_job_is_accepted_runs_and_has_its_result(service: JobsService) -> None:
    accepted = await service.post("/jobs/add", 202, {"a": 45, "b": 23, "seconds": 0})
    result = await service.result(accepted["result_url"])
    assert (result["id"], result["state"], result["result"]) == (accepted["id"], "done", 68)
    tree = await service.get(f"/jobs/{accepted['id']}")
    assert (tree["kind"], tree["state"], tree["open_steps"]) == ("add", "succeeded", 0)
    assert [(step["handler"], step["state"], step["attempt"]) for step in tree["steps"]] == [
        ("add", "succeeded", 1)
    ]


async def test_who_prefers_to_wait_gets_the_result_if_it_is_there_in_time(service: JobsService) -> None:
    body = {"a": 3, "b": 4, "seconds": 0}
    headers = {"Prefer": "respond-async, wait=20", "Idempotency-Key": "k1"}
    first = await service.http.post("/jobs/multiply", json=body, headers=headers)
    assert (first.status_code, first.json()["result"]) == (200, 12)
    assert first.headers["preference-applied"] == "wait=20"
    again = await service.http.post("/jobs/multiply", json=body, headers=headers)
    assert (again.status_code, again.json()) == (200, first.json())
    slow = {"a": 1, "b": 2, "seconds": 60}
    late = await service.http.post("/jobs/multiply", json=slow, headers={"Prefer": "wait=1"})
    assert (late.status_code, late.headers["location"]) == (202, f"/jobs/{late.json()['id']}")
    await service.post(f"{late.headers['location']}/cancel", 200)


async def test_the_short_forms_give_what_their_users_know(service: JobsService) -> None:
    chain = await service.get("/solo/chain?a=2&b=3&seconds=0")
    assert chain["status_code"] == 200
    assert (await service.result(f"/result/{chain['task_id']}"))["result"] == [10, 15]
    group = await service.get("/solo/group?a=20&b=76&seconds=0")
    assert (await service.result(group["check_result_url"]))["result"] == [96, 1520]
    members = [(await service.get(f"/result/{one}"))["result"] for one in group["individual_tasks"]]
    assert members == [96, 1520]
    long = await service.get("/solo/add")
    assert (await service.get(f"/result/{long['task_id']}", 202))["state"] == "pending"
    [step] = (await service.get(f"/jobs/{long['task_id']}"))["steps"]
    assert (step["handler"], step["state"] in {"ready", "running"}) == ("add", True), "at work, not put off"
    await service.post(f"/jobs/{long['task_id']}/cancel", 200)


async def test_a_sum_is_at_work_and_stops_when_it_is_cancelled(service: JobsService) -> None:
    job_id = (await service.post("/jobs/add", 202, {"a": 1, "b": 2, "seconds": 3_600}))["id"]

    async def step() -> Any:
        [found] = (await service.get(f"/jobs/{job_id}"))["steps"]
        return found

    async def runs() -> bool:
        return bool((await step())["state"] == "running")

    async def stopped() -> bool:
        return bool((await step())["state"] == "cancelled")

    await eventually(runs, "a worker has it")
    await service.post(f"/jobs/{job_id}/cancel", 200)
    await eventually(stopped, "it stops")
    assert (await service.get(f"/jobs/{job_id}/result", 409))["type"] == "urn:tandem:problem:job-cancelled"


async def test_a_worker_is_shown_with_what_it_runs_and_takes_no_more_once_it_is_drained(
    service: JobsService,
) -> None:
    job_id = (await service.post("/jobs/add", 202, {"a": 1, "b": 2, "seconds": 3_600}))["id"]

    async def at_work() -> Any:
        [found] = (await service.get("/workers"))["items"]
        return found if found["steps"] and found["steps"][0]["progress"] else None

    worker = await eventually(at_work, "the worker says how far its step is")
    [step] = worker["steps"]
    assert (worker["state"], worker["slots"], worker["pid"]) == ("alive", 50, os.getpid())
    assert (step["job_id"], step["handler"], step["queue"], step["attempt"]) == (job_id, "add", "io", 1)
    assert (step["progress"]["total"], worker["rss_mib"] > 0) == (3_600, True)
    assert (await service.post(f"/workers/{uuid4()}/drain", 404))["type"] == "urn:tandem:problem:worker-not-found"
    for _ in range(2):  # of two signs of life, the first has been understood
        await drained(service, worker["id"])
    late = (await service.post("/jobs/add", 202, {"a": 1, "b": 2, "seconds": 0}))["id"]
    await drained(service, worker["id"])  # by then it has heard of the step, too
    assert (await service.get(f"/jobs/{late}"))["steps"][0]["state"] == "ready"
    await service.post(f"/jobs/{job_id}/cancel", 200)
    await service.execute("update job_worker set draining = false")
    assert (await service.result(f"/jobs/{late}/result"))["result"] == 3


async def drained(service: JobsService, worker_id: str) -> None:
    """Order it, and wait for the next sign of life, which is given because of that."""
    ordered = await service.post(f"/workers/{worker_id}/drain", 200)
    assert ordered["state"] == "draining"

    async def beats() -> bool:
        [shown] = (await service.get("/workers"))["items"]
        return bool(shown["heartbeat_at"] > ordered["heartbeat_at"])

    await eventually(beats, "the worker has heard of it")


async def test_a_job_is_watched_from_its_beginning_to_its_end(service: JobsService) -> None:
    job_id = (await service.post("/jobs/sum-and-multiply", 202, {"a": 2, "b": 3, "seconds": 2}))["id"]
    told = await service.http.get(f"/jobs/{job_id}/events")
    assert (told.status_code, told.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    events = [parsed(block) for block in told.text.split("\n\n") if block]
    sums = [data for event, data, _ in events if event == "step" and data["number"] == 0]
    assert sums[-1]["state"] == "succeeded"
    assert any(one["progress"] for one in sums if one["state"] == "running"), "how far it is"
    states = [(data["state"], data["open_steps"]) for event, data, _ in events if event == "job"]
    assert (states[0][1], states[-1]) == (2, ("succeeded", 0))
    assert len(set(states)) == len(states), "each change once"
    _, last, end = events[-1]
    assert (last["id"], end is not None and end.startswith("end-")) == (job_id, True)
    again = await service.http.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": str(end)})
    assert (again.status_code, again.content) == (204, b"")
    whole = await service.http.get(f"/jobs/{job_id}/events")
    assert [parsed(block)[0] for block in whole.text.split("\n\n") if block] == ["step", "step", "job"]


async def test_one_trace_leads_through_inline_and_leased_steps_and_jobs_are_measured(service: JobsService) -> None:
    trace = secrets.token_hex(16)
    body = {"a": 2, "b": 3, "seconds": 0}
    headers = {"traceparent": f"00-{trace}-00000000000000a1-01"}
    accepted = await service.post("/jobs/sum-and-multiply", 202, body, **headers)
    await service.result(accepted["result_url"])
    telemetry = service.process.parts.settings.otlp_dir
    assert telemetry is not None
    wanted = {"POST /jobs/sum-and-multiply", "run add", "create job.events", "process job.events"}

    async def traced() -> bool:
        with contextlib.suppress(DeployError):
            spans = find_in_files(telemetry, accepted["id"]).traces.get(trace, [])
            return wanted <= {span.name for span in spans}
        return False

    await eventually(traced, f"the trace has {wanted}")

    async def measured() -> bool:
        page = (await service.http.get("/metrics")).text
        lines = [line.partition("{")[0] for line in page.splitlines() if line.endswith((" 1.0", " 1"))]
        ended = 'tandem_job_kind="sum-and-multiply",tandem_job_outcome="succeeded"'
        return "tandem_job_workers" in lines and ended in page

    await eventually(measured, "a worker lives, and the job is counted")


def parsed(block: str) -> tuple[str, Any, str | None]:
    """Event, data and id of an event as it is sent."""
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    return fields["event"], json.loads(fields["data"]), fields.get("id")


async def test_an_id_of_nothing_is_not_found_and_a_job_that_is_not_allowed_says_so(service: JobsService) -> None:
    nothing = uuid4()
    for path in (
        f"/jobs/{nothing}",
        f"/jobs/{nothing}/result",
        f"/groups/{nothing}/result",
        f"/result/{nothing}",
        f"/jobs/{nothing}/events",
    ):
        assert (await service.get(path, 404))["type"] == "urn:tandem:problem:job-not-found"
    await service.post(f"/jobs/{nothing}/cancel", 404)
    await service.post("/jobs/divide", 404, {})
    await service.post("/jobs/add", 422, {"a": 1})


async def test_a_cancelled_job_says_so_and_can_be_retried(service: JobsService) -> None:
    job_id = (await service.post("/jobs/multiply", 202, {"a": 1, "b": 2, "seconds": 60}))["id"]
    assert (await service.post(f"/jobs/{job_id}/cancel", 200))["state"] == "cancelled"
    assert (await service.get(f"/jobs/{job_id}/result", 409))["type"] == "urn:tandem:problem:job-cancelled"
    assert (await service.get("/jobs?state=cancelled&kind=multiply&limit=1"))["items"][0]["id"] == job_id
    await service.post(f"/jobs/{job_id}/retry", 200)
    assert (await service.result(f"/jobs/{job_id}/result"))["result"] == 2
    await service.post(f"/jobs/{job_id}/cancel", 409)
    await service.post(f"/jobs/{job_id}/retry", 409)


async def test_a_failed_job_is_a_problem_and_an_old_result_is_gone(service: JobsService) -> None:
    job_id = (await service.post("/jobs/multiply", 202, {"a": 1, "b": 2, "seconds": 60}))["id"]
    error = '{"type": "ValueError", "message": "no luck", "stack": ""}'
    await service.execute(
        "update job set state = 'failed', error = cast(:error as json) where id = cast(:id as uuid)",
        id=job_id,
        error=error,
    )
    problem = await service.get(f"/jobs/{job_id}/result", 500)
    assert (problem["type"], problem["detail"]) == ("urn:tandem:problem:job-failed", "ValueError: no luck")
    await service.execute(
        "update job set expires_at = now() - interval '1 s' where id = cast(:id as uuid)", id=job_id
    )
    assert (await service.get(f"/jobs/{job_id}/result", 410))["type"] == "urn:tandem:problem:result-expired"


async def test_lists_are_paged(service: JobsService) -> None:
    ids = [(await service.post("/jobs/multiply", 202, {"a": 1, "b": n, "seconds": 60}))["id"] for n in range(3)]
    first = await service.get("/jobs?kind=multiply&state=scheduled&limit=2")
    rest = await service.get(f"/jobs?kind=multiply&state=scheduled&limit=2&cursor={first['next_cursor']}")
    assert [item["id"] for item in (*first["items"], *rest["items"])] == ids[::-1]


async def test_lists_are_of_a_queue_and_of_a_time(service: JobsService) -> None:
    before = (await service.post("/jobs/multiply", 202, {"a": 1, "b": 1, "seconds": 0}))["id"]
    job_id = (await service.post("/jobs/sum-and-multiply", 202, {"a": 1, "b": 1, "seconds": 0}))["id"]
    submitted_at = (await service.get(f"/jobs/{job_id}"))["submitted_at"]
    here = await service.get("/jobs?" + urlencode({"queue": "io", "since": submitted_at, "limit": 1}))
    assert [item["id"] for item in here["items"]] == [job_id], "with a leased step of the queue"
    for none in ({"queue": "elsewhere"}, {"since": "2100-01-01T00:00:00+09:00"}):
        assert (await service.get("/jobs?" + urlencode(none)))["items"] == []
    all_of_today = await service.get("/jobs?" + urlencode({"since": "1970-01-01T00:00:00+14:00", "limit": 2}))
    assert [item["id"] for item in all_of_today["items"]] == [job_id, before]


HOSTILE = (
    "queue=%00",
    "queue=",
    "kind=%00",
    "kind=" + "x" * 101,
    "since=now",
    "since=1",
    "since=1066-10-14T09:00:00Z",
)


@pytest.mark.parametrize("query", [*HOSTILE, "since=2026-11-28T00:00:00", "state=lost", "cursor=%80", "limit=0"])
async def test_what_no_list_can_be_asked_for_is_refused(service: JobsService, query: str) -> None:
    assert (await service.get(f"/jobs?{query}", 422))["type"] == "urn:tandem:problem:invalid-request"
