"""The notification service and its archive, for tests: on a database of its own, over a real object storage."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text

from deploy.native import Runtime
from deploy.native.servers.objects import ObjectStorage
from services.notification import background, handlers
from services.notification.app import SERVICE
from shared.jobs.archive import __main__ as looking
from shared.outside.circuit_breaker import CircuitBreaker
from shared.outside.objects import Bucket, ObjectStore
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.settings import Settings
from tests.integration.databases import migrated_database
from tests.integration.letters import webhook
from tests.integration.world import eventually

DEADLINE_S = 120.0
ENDED = {"succeeded", "failed"}
WITHOUT_EVENTS = replace(
    SERVICE, subscribers=(), more_subscribers=lambda _parts: (), background_tasks=(background.keep_jobs,)
)
"""Neither what other tests publish nor the day of the week says what happens here."""
OLD, NEW = "now() - interval '100 days'", "now() - interval '10 days'"
INSERT = """
    insert into notification
      (id, event_source, event_id, event_type, user_id, version, title, body, recorded_at)
    select gen_random_uuid(), '/tests', cast(:name as text) || n, 'order.placed', gen_random_uuid(), 1, '제목',
           'two' || chr(10) || 'lines' || chr(8232) || repeat('x', n % 50), {at} + n * interval '1 ms'
      from generate_series(1, cast(:count as int)) n
"""


def bucket_of(storage: Runtime, **changes: Any) -> Bucket:
    told = ObjectStorage().settings(storage.site)
    values = {
        "url": told["TANDEM_OBJECT_STORE_URL"],
        "name": told["TANDEM_OBJECT_STORE_BUCKET"],
        "access_key": told["TANDEM_OBJECT_STORE_ACCESS_KEY"],
        "secret_key": told["TANDEM_OBJECT_STORE_SECRET_KEY"],
    }
    return Bucket(**{**values, **changes})


def opened(storage: Runtime, **changes: Any) -> ObjectStore:
    return ObjectStore(bucket_of(storage, **changes), CircuitBreaker("test"))


def file_of(storage: Runtime, key: str) -> Path:
    """Where the server keeps an object."""
    return storage.site.data("objects") / "buckets" / "tandem" / key


class Notifications:
    """The service on a database of its own, in one process that runs its jobs, and a client."""

    def __init__(self, settings: Settings, storage: Runtime, alerts: list[Any]) -> None:
        self.settings = settings
        self.storage = storage
        self.alerts = alerts
        self.parts = build_parts("notification", settings)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        process = Process(WITHOUT_EVENTS, self.parts)
        app = application_of(process)
        async with (
            process.lifespan(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=60) as self.http,
        ):
            yield

    def environment(self, **more: Any) -> dict[str, str]:
        """For a process that runs the archive's steps."""
        values = {**self.settings.model_dump(exclude_unset=True), "roles": "worker", **more}
        plain = {name: getattr(value, "get_secret_value", lambda v=value: v)() for name, value in values.items()}
        return {"PATH": os.environ["PATH"], **{f"TANDEM_{name.upper()}": str(plain[name]) for name in plain}}

    async def rows(self, query: str, **values: Any) -> list[Any]:
        async with self.parts.database.transaction() as connection:
            found = await connection.execute(text(query), values)
            return list(found.all()) if found.returns_rows else []

    async def notify(self, name: str, count: int, at: str = OLD) -> None:
        await self.rows(INSERT.format(at=at), name=name, count=count)

    async def left(self, name: str) -> int:
        [[count]] = await self.rows(
            "select count(*) from notification where event_id like cast(:name as text) || '%'", name=name
        )
        return int(count)

    async def submit(self) -> UUID:
        before = datetime.now(UTC) - timedelta(seconds=self.settings.archive_after_s)
        self.parts.units.submitter = handlers.JOBS
        async with self.parts.units.begin() as uow:
            return (await uow.submit(handlers.ARCHIVE.graph(before))).job_id

    async def ended(self, job_id: UUID) -> Any:
        """The job as it is shown once it has ended."""

        async def end() -> Any:
            told = (await self.http.get(f"/jobs/{job_id}")).json()
            return told if told["state"] in ENDED else None

        return await eventually(end, f"{job_id} ends", DEADLINE_S)

    async def archive(self) -> Any:
        return await self.ended(await self.submit())

    async def archived(self, name: str = "") -> list[Any]:
        """The rows of the objects, in the order of what they have."""
        return await self.rows(
            "select * from archive_object where source like cast(:name as text) || '%' order by first_at",
            name=name,
        )

    async def lines(self, key: str) -> list[str]:
        async with self.parts.database.transaction() as connection:
            return await looking.lines_of(connection, opened(self.storage), key)

    async def restore(self, key: str) -> int:
        lines = await self.lines(key)
        async with self.parts.database.transaction() as connection:
            return await looking.restore(connection, lines)


@asynccontextmanager
async def service(servers: Runtime, storage: Runtime, *, is_running: bool = True) -> AsyncIterator[Notifications]:
    told = ObjectStorage().settings(storage.site)
    async with webhook() as (alert_url, alerts):
        settings = Settings.from_environment(
            broker="rabbit",
            roles=frozenset({"api", "consumer", "worker"}),
            http_port=1,
            postgres_dsn=await migrated_database(servers, "notification"),
            redis_url=servers.server_urls()["redis"],
            rabbit_url=servers.server_urls()["rabbit"],
            alert_webhook_url=alert_url,
            **{name.removeprefix("TANDEM_").lower(): value for name, value in told.items()},
        )
        made = Notifications(settings, storage, alerts)
        async with AsyncExitStack() as stack:
            if is_running:
                await stack.enter_async_context(made.running())
                await handlers.schedules(settings).declare(made.parts.units)
            else:
                stack.push_async_callback(made.parts.close)
            yield made
