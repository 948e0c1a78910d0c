"""Results over 64 KiB: in the object storage, read back over HTTP and by the steps behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from deploy.native import Runtime
from deploy.native.servers.objects import ObjectStorage
from services.jobs.app import SERVICE
from shared.jobs import results
from shared.jobs.arguments import RESULT_BYTES_MAX
from shared.jobs.signatures import Signature, chain, group
from shared.outside import objects
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.settings import Settings
from tests.integration.archived import DEADLINE_S, file_of
from tests.integration.databases import migrated_database
from tests.integration.large_steps import (
    JOBS,
    length_in_a_process,
    length_inline,
    lengths,
    text_of,
    text_of_a_process,
)
from tests.integration.world import eventually

WITH_LARGE_STEPS = replace(
    SERVICE,
    subscribers=(JOBS.subscriber("jobs"),),
    background_tasks=(JOBS.keep_due,),
    workers=(JOBS.work,),
    jobs=JOBS,
)
LARGE = 100_000


class Service:
    """The jobs service in one process, with these steps, and a client of it."""

    def __init__(self, process: Process, http: httpx.AsyncClient, storage: Runtime) -> None:
        self.parts = process.parts
        self.http = http
        self.storage = storage

    async def answer(self, graph: Signature) -> httpx.Response:
        """How the job's result is answered once it has ended."""
        async with self.parts.units.begin() as uow:
            job_id = (await uow.submit(graph)).job_id

        async def ended() -> httpx.Response | None:
            answer = await self.http.get(f"/jobs/{job_id}/result")
            return None if answer.status_code == 202 else answer

        answer: httpx.Response = await eventually(ended, f"{job_id} ends", DEADLINE_S)
        return answer

    async def steps(self, job_id: str) -> list[Any]:
        """What the rows have of the results, in the order of the steps."""
        async with self.parts.database.transaction() as connection:
            query = text("select id, result, result_object from job_step where job_id = :id order by number")
            return list(await connection.execute(query, {"id": UUID(job_id)}))


@pytest.fixture(scope="module")
async def service(servers: Runtime, object_storage: Runtime) -> AsyncIterator[Service]:
    told = ObjectStorage().settings(object_storage.site)
    settings = Settings.from_environment(
        broker="rabbit",
        http_port=1,
        postgres_dsn=await migrated_database(servers, "jobs"),
        redis_url=servers.server_urls()["redis"],
        rabbit_url=servers.server_urls()["rabbit"],
        **{name.removeprefix("TANDEM_").lower(): value for name, value in told.items()},
    )
    process = Process(WITH_LARGE_STEPS, build_parts("jobs", settings))
    app = application_of(process)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(process.lifespan(app))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=60)
        yield Service(process, await stack.enter_async_context(http), object_storage)


async def test_a_large_result_is_an_object_that_the_row_names_and_is_answered_as_it_was(service: Service) -> None:
    answer = await service.answer(text_of.s(LARGE))
    assert (answer.status_code, answer.json()["result"]) == (200, "é" * (LARGE // 2))
    [step] = await service.steps(answer.json()["id"])
    content = file_of(service.storage, step.result_object["key"]).read_bytes()
    assert step.result is None
    assert step.result_object["bytes"] == len(content) == LARGE + 2
    assert step.result_object["sha256"] == sha256(content).hexdigest()
    of_the_step = await service.http.get(f"/jobs/{step.id}/result")
    assert of_the_step.json()["result"] == answer.json()["result"]


async def test_a_result_that_a_row_can_hold_is_in_its_row(service: Service) -> None:
    answer = await service.answer(group(text_of.s(RESULT_BYTES_MAX - 2), text_of.s(RESULT_BYTES_MAX - 1)))
    small, large = await service.steps(answer.json()["id"])
    assert (len(small.result.encode()), small.result_object) == (RESULT_BYTES_MAX - 2, None)
    assert (large.result, large.result_object["bytes"]) == (None, RESULT_BYTES_MAX + 1)
    assert [len(one.encode()) for one in answer.json()["result"]] == [RESULT_BYTES_MAX - 2, RESULT_BYTES_MAX - 1]
    assert [one["result"] for one in answer.json()["members"]] == answer.json()["result"]


async def test_leased_steps_get_large_results_in_their_places_from_children_and_in_children(
    service: Service,
) -> None:
    members = group(text_of.s(4), text_of_a_process.s(LARGE), text_of.s(6), text_of.s(LARGE))
    assert (await service.answer(chain(members, then=lengths.s()))).json()["result"] == [2, LARGE, 3, LARGE // 2]
    answer = await service.answer(chain(text_of_a_process.s(LARGE), then=length_in_a_process.s()))
    assert answer.json()["result"] == LARGE


async def test_an_inline_step_that_would_be_given_a_large_result_fails_and_says_what_to_do(
    service: Service,
) -> None:
    answer = await service.answer(chain(text_of.s(LARGE), then=length_inline.s()))
    assert answer.status_code == 500
    assert "its input is in the object storage: lease it" in answer.json()["detail"]


async def test_what_is_too_large_for_an_object_or_for_one_answer_says_so(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "STORED_BYTES_MAX", LARGE)
    assert "ResultTooLargeError" in (await service.answer(text_of.s(LARGE))).json()["detail"]
    monkeypatch.setattr(results, "OBJECT_BYTES_MAX", LARGE)
    answer = await service.answer(group(text_of.s(LARGE - 2), text_of_a_process.s(LARGE - 2)))
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (409, "results-too-large")


async def test_a_result_whose_object_is_gone_is_gone_and_one_that_is_damaged_is_not_answered(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await service.answer(text_of.s(LARGE))
    [step] = await service.steps(answer.json()["id"])
    place = file_of(service.storage, step.result_object["key"])
    content = place.read_bytes()
    place.write_bytes(content[:-2] + b'z"')
    assert (await service.http.get(f"/jobs/{step.id}/result")).status_code == 503
    place.unlink()
    assert (await service.http.get(f"/jobs/{step.id}/result")).status_code == 410

    async def unavailable(*_: Any) -> None:
        raise objects.ObjectRefusedError("not allowed")

    monkeypatch.setattr(objects.ObjectStore, "put", unavailable)
    assert "ObjectRefusedError" in (await service.answer(text_of.s(LARGE))).json()["detail"]
