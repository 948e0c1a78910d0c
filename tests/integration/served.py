"""A service's HTTP without a server, on a database of its own."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import httpx
from sqlalchemy import text

from deploy.native import Runtime
from shared.envelope import Envelope
from shared.process import Service
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.settings import Settings


class Running:
    """One service's application on a database of its own; neither relay nor consumer runs."""

    def __init__(self, process: Process, app: Any) -> None:
        self.process = process
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=30)

    async def rows(self, query: str, **parameters: Any) -> list[Any]:
        async with self.process.parts.database.transaction() as connection:
            return list(await connection.execute(text(query), parameters))

    async def published(self) -> list[Envelope]:
        """What waits in the outbox, in order."""
        return [Envelope.decode(row.body) for row in await self.rows("select body from outbox order by position")]

    async def receive(self, event_type: str, data: dict[str, Any]) -> None:
        """Have the service handle one event, as the pipeline would."""
        envelope = Envelope(
            source="/services/user", type=event_type, data=data, traceparent=data.get("traceparent")
        )
        await self.take(envelope)

    async def take(self, envelope: Envelope) -> None:
        """As `receive`, of an event as it came."""
        [handler] = [
            handler
            for subscriber in self.process.service.subscribers
            for handler in subscriber.handlers
            if handler.model.event_type == envelope.type
        ]
        async with self.process.parts.units.begin() as uow:
            uow.begin_event(envelope)
            await handler.handle(handler.read(envelope), uow)


def served(stack: AsyncExitStack, servers: Runtime, service: Service, dsn: str, **overrides: Any) -> Running:
    """The service on this database, until the stack is left."""
    settings = Settings(
        broker="rabbit",
        http_port=1,
        postgres_dsn=dsn,
        redis_url=servers.server_urls()["redis"],
        rabbit_url=servers.server_urls()["rabbit"],
        **overrides,
    )
    process = Process(service, build_parts(service.name, settings))
    stack.push_async_callback(process.parts.database.close)
    running = Running(process, application_of(process))
    stack.push_async_callback(running.http.aclose)
    return running
