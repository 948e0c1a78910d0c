"""The parts that every process of a service is built from: settings, telemetry, database, claims, broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from shared.broker import Broker, create_broker
from shared.consuming import Claims
from shared.database import Database
from shared.errors import UnavailableError
from shared.failpoints import FailPoints
from shared.http.backpressure import OutboxGate
from shared.outside.circuit_breaker import CircuitBreakers
from shared.publishing import Leading, Relay, UnitsOfWork
from shared.reply import Requests, Responder
from shared.settings import Settings
from shared.telemetry import Telemetry

_log = structlog.get_logger(__name__)

_BROKER_LOOK_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One process's parts, all built, none connected yet: what a service builds its own things from.

    HTTP, subscribers and background tasks are given these, and no process.
    """

    process_name: str
    """What the process is called in telemetry and to the servers."""
    settings: Settings
    telemetry: Telemetry
    database: Database
    http_database: Database
    """For what HTTP does; where the process does anything else, with connections of its own. Whoever answers a
    request must not wait for a connection behind all those who are waiting for the answer."""
    units: UnitsOfWork
    claims: Claims
    broker: Broker
    requests: Requests
    responder: Responder
    circuit_breakers: CircuitBreakers
    outbox_gate: OutboxGate
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is told to stop: what would go on for as long as its client likes ends then."""
    leading: Leading
    """Which of the outbox's relays lead in this process."""
    relays: list[Relay] = field(default_factory=list)
    """Those that run in this process; none before the role has begun."""

    def for_http(self) -> Parts:
        """The parts that HTTP is built from."""
        return replace(self, database=self.http_database, units=self.units.on(self.http_database))

    async def close(self) -> None:
        """Let go of Redis and PostgreSQL, and write what telemetry still holds."""
        async with AsyncExitStack() as stack:
            stack.callback(self.telemetry.shutdown)
            stack.push_async_callback(self.database.close)
            stack.push_async_callback(self.http_database.close)
            stack.push_async_callback(self.claims.close)


def build_parts(service_name: str, settings: Settings) -> Parts:
    """Build the parts of a process of `service_name`; nothing is connected."""
    process_name = settings.process or "-".join([service_name, *sorted(settings.roles)])
    telemetry = Telemetry(settings, service_name, process_name)
    database = Database(settings, process_name)
    beside = "api" in settings.roles and not settings.roles.isdisjoint({"consumer", "worker"})
    broker = create_broker(settings, process_name)
    telemetry.metrics.settlement_failures_from(lambda: broker.settlement_failures)
    telemetry.metrics.troubles_from(lambda: broker.troubles)
    leading = Leading(settings.relay_shards)
    return Parts(
        process_name=process_name,
        settings=settings,
        telemetry=telemetry,
        database=database,
        http_database=Database(settings, process_name) if beside else database,
        units=UnitsOfWork(database, service_name, telemetry.spans, leading),
        leading=leading,
        claims=Claims(settings),
        broker=broker,
        requests=Requests(broker, service_name, telemetry.spans, FailPoints.told(settings.failpoints)),
        responder=Responder(broker, service_name, telemetry.spans, FailPoints.told(settings.failpoints)),
        circuit_breakers=CircuitBreakers(telemetry.metrics.breaker, settings.breaker_open_s),
        outbox_gate=OutboxGate(database, settings.outbox_rows_max),
    )


async def until_available(action: Callable[[], Awaitable[Any]]) -> None:
    """Do something with a broker that may not be up yet, again and again; readiness says so meanwhile."""
    while True:
        try:
            await action()
        except UnavailableError as error:
            _log.warning("process.waiting", error=str(error))
            await asyncio.sleep(_BROKER_LOOK_INTERVAL_S)
        else:
            return
