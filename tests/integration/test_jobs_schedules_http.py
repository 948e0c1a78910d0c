"""The HTTP of schedules, in the jobs service: they are shown, paused, run, and filled in for the past."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from deploy.native import Runtime
from services.jobs.app import SERVICE
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.settings import Settings
from tests.integration.databases import migrated_database
from tests.integration.world import eventually

PATH = "/schedules/health-check"


THEIRS = {
    "name": "daily-sales-report",
    "state": "active",
    "cron": "0 9 * * *",
    "every_s": None,
    "time_zone": "Asia/Seoul",
    "next_due": "2026-11-29T00:00:00Z",
    "last_due": None,
    "last_job": None,
    "waiting": 0,
    "overlap": "queue",
    "grace_s": 60,
    "made_up": 1,
    "paused_at": None,
}


@asynccontextmanager
async def service_that_says(body: bytes) -> AsyncIterator[str]:
    """The URL of a service whose every answer is this."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture(scope="module")
async def http(servers: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    """The jobs service in one process, with a health check every second; another answers, two do not."""
    async with (
        service_that_says(orjson.dumps({"items": [THEIRS]})) as report,
        service_that_says(b'{"items": [{"name": "?"}]}') as odd,
    ):
        async for client in client_of(servers, {"report": report, "odd": odd, "away": "http://127.0.0.1:1"}):
            yield client


async def client_of(servers: Runtime, elsewhere: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        broker="rabbit",
        http_port=1,
        health_check_job_s=1,
        schedules_elsewhere=elsewhere,
        postgres_dsn=await migrated_database(servers, "jobs"),
        redis_url=servers.server_urls()["redis"],
        rabbit_url=servers.server_urls()["rabbit"],
    )
    process = Process(SERVICE, build_parts("jobs", settings))
    app = application_of(process)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(process.lifespan(app))
        transport = httpx.ASGITransport(app)
        yield await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60)
        )


async def shown(http: httpx.AsyncClient) -> dict[str, Any]:
    items = (await http.get("/schedules")).json()["items"]
    [schedule] = [one for one in items if one["service"] == "jobs"]
    assert isinstance(schedule, dict)
    return schedule


async def test_the_schedules_of_all_services_stand_in_one_table(http: httpx.AsyncClient) -> None:
    async def declared() -> Any:
        told = (await http.get("/schedules")).json()
        return told if len(told["items"]) == 2 else None

    table = await eventually(declared, "the jobs service has declared its own")
    assert [(one["service"], one["name"]) for one in table["items"]] == [
        ("jobs", "health-check"),
        ("report", "daily-sales-report"),
    ]
    assert table["items"][1] == {"service": "report", **THEIRS}
    assert table["unanswered"] == ["away", "odd"]


async def test_a_schedule_fires_by_itself_and_is_shown_with_its_last_job(http: httpx.AsyncClient) -> None:
    async def fired() -> Any:
        items = (await http.get("/schedules")).json()["items"]
        return items and items[0]["last_job"]

    job_id = await eventually(fired, "the health check fires")

    async def succeeded() -> bool:
        return bool((await http.get(f"/jobs/{job_id}")).json()["state"] == "succeeded")

    await eventually(succeeded, "its job has succeeded")
    schedule = await shown(http)
    assert (schedule["name"], schedule["state"], schedule["every_s"]) == ("health-check", "active", 1)


async def test_a_paused_schedule_fires_when_it_is_told_to_and_by_itself_once_it_is_resumed(
    http: httpx.AsyncClient,
) -> None:
    paused = (await http.post(f"{PATH}/pause")).json()
    assert (paused["state"], paused["next_due"]) == ("paused", None)
    answer = await http.post(f"{PATH}/run", headers={"Idempotency-Key": "once"})
    assert answer.status_code == 202
    assert (await http.get(answer.headers["location"])).json()["kind"] == "health-check"
    again = await http.post(f"{PATH}/run", headers={"Idempotency-Key": "once"})
    assert again.json() == answer.json()
    assert (await shown(http))["last_due"] == paused["last_due"]
    assert (await http.post(f"{PATH}/resume")).json()["state"] == "active"

    async def fires() -> bool:
        return bool((await shown(http))["last_due"] > paused["last_due"])

    await eventually(fires, "it fires again")


async def test_the_past_is_filled_in_once(http: httpx.AsyncClient) -> None:
    span = {"first": "2026-03-01T00:00:00Z", "last": "2026-03-01T00:00:09Z"}
    filled = await http.post(f"{PATH}/backfill", json=span)
    assert (filled.status_code, len(filled.json()["jobs"])) == (202, 10)
    assert (await http.post(f"{PATH}/backfill", json=span)).json() == filled.json()
    assert (await http.get(f"/jobs/{filled.json()['jobs'][0]}")).status_code == 200


@pytest.mark.parametrize("order", ["pause", "resume", "run", "backfill"])
async def test_what_there_is_not_is_a_404(http: httpx.AsyncClient, order: str) -> None:
    span = {"first": "2026-03-01T00:00:00Z", "last": "2026-03-02T00:00:00Z"}
    body = span if order == "backfill" else None
    assert (await http.post(f"/schedules/%00/{order}", json=body)).status_code == 404
    answer = await http.post(f"/schedules/daily/{order}", json=body)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "there is no schedule 'daily'"


@pytest.mark.parametrize(
    ("first", "last"),
    [("2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z"), ("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z")],
)
async def test_a_range_that_is_none_or_holds_too_much_is_a_422(
    http: httpx.AsyncClient, first: str, last: str
) -> None:
    answer = await http.post(f"{PATH}/backfill", json={"first": first, "last": last})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
