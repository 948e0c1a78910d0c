"""The jobs service's HTTP with its own steps at work: what is asked for runs, and every id has its one answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from deploy.native import Runtime
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
async def service(servers: Runtime) -> AsyncIterator[JobsService]:
    settings = Settings(
        broker="rabbit",
        http_port=1,
        postgres_dsn=await migrated_database(servers, "jobs"),
        redis_url=servers.server_urls()["redis"],
        rabbit_url=servers.server_urls()["rabbit"],
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


async def test_an_id_of_nothing_is_not_found_and_a_job_that_is_not_allowed_says_so(service: JobsService) -> None:
    nothing = uuid4()
    for path in (f"/jobs/{nothing}", f"/jobs/{nothing}/result", f"/groups/{nothing}/result", f"/result/{nothing}"):
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
