"""A service's process: builds what the service needs, runs its roles, answers probes, and stops in good order.

Roles: `api` serves the service's own HTTP, `relay` empties its outbox, `consumer` runs its subscriptions. One
process may have all three or one each; every process serves `/health/live`, `/health/ready` and `/metrics`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pkgutil import resolve_name
from types import FrameType
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from shared.broker.base import Operation, Subscription
from shared.broker.connect import create_broker
from shared.consuming import inbox
from shared.consuming.claims import Claims
from shared.consuming.pipeline import Pipeline
from shared.consuming.subscriber import Subscriber
from shared.database import Database
from shared.errors import ConfigurationError, TransientError, UnavailableError
from shared.event import EventData
from shared.http import idempotency
from shared.http.backpressure import OutboxGate
from shared.outside.circuit_breaker import CircuitBreaker
from shared.publishing.outbox import outbox_of
from shared.publishing.relay import Relay
from shared.publishing.uow import UnitsOfWork
from shared.settings import Settings
from shared.telemetry import logs
from shared.telemetry.gauges import Ask, Gauges, queues_of
from shared.telemetry.telemetry import Telemetry, prometheus_page

_log = structlog.get_logger(__name__)

VERSION = "0.1.0"
_PRUNE_INTERVAL_S = 3_600.0
_PRUNE_ROWS_MAX = 5_000
_IDEMPOTENCY_RETENTION_S = 86_400.0
_PROBE_TIMEOUT_S = 3.0
_GOODBYES_S = 5.0  # to disconnect, after the grace period of what is in flight
_NOT_NEEDED = frozenset({"redis"})
_GC_ALLOCATIONS = 50_000


Job = Callable[["Process"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Service:
    """What a service is to the rest of the system: its name and its events."""

    name: str
    publishes: tuple[type[EventData], ...] = ()
    subscribers: tuple[Subscriber, ...] = ()
    jobs: tuple[Job, ...] = ()
    """What a process with the role `consumer` does besides, from when the broker is connected until it stops."""
    more_subscribers: Callable[[Process], tuple[Subscriber, ...]] = lambda _process: ()
    """Those that depend on the settings, or need something that is built from them."""
    application: str | None = None
    """Where its HTTP is built, as `package.module:function`, a function from the process to an ASGI application.
    Only a process with the role `api` imports it; without one, that role serves the probes alone."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that it publishes on."""
        return tuple(sorted({event.channel for event in self.publishes}))

    def operations(self, subscribers: Sequence[Subscriber]) -> list[Operation]:
        """Its lines of the AsyncAPI document, with these subscribers."""
        published = [Operation(event.channel, event.event_type, event) for event in self.publishes]
        consumed = [
            Operation(subscriber.channel, handler.model.event_type, handler.model, subscriber.name)
            for subscriber in subscribers
            for handler in subscriber.handlers
        ]
        return published + consumed


class Process:
    """One running process of a service. Built by `run`; handed to what builds the service's HTTP."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self.settings = settings
        self.name = settings.process or "-".join([service.name, *sorted(settings.roles)])
        self.telemetry = Telemetry(settings, service.name, self.name)
        self.database = Database(settings, self.name)
        self.units = UnitsOfWork(self.database, service.name, self.telemetry)
        self.claims = Claims(settings)
        self.broker = create_broker(settings, self.name)
        self.telemetry.settlement_failures_from(lambda: self.broker.settlement_failures)
        self.outbox_gate = OutboxGate(self.database, settings.outbox_rows_max)
        self.failed = False
        self.stop: Callable[[], None] = lambda: None
        self._connected = False
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._breakers: list[CircuitBreaker] = []
        self.subscribers = (*service.subscribers, *service.more_subscribers(self))

    def circuit_breaker(self, name: str) -> CircuitBreaker:
        """A breaker round something outside, shown in the metrics and, while it is not closed, in readiness."""
        breaker = CircuitBreaker(name, self.telemetry.breaker, open_s=self.settings.breaker_open_s)
        self._breakers.append(breaker)
        return breaker

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """Connect and start the roles; on leaving, stop them in the reverse order, within the grace period."""
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.callback(self.telemetry.shutdown)
            stack.push_async_callback(self.database.close)
            stack.push_async_callback(self.claims.close)
            if "api" in self.settings.roles and self.service.publishes:
                gate = asyncio.create_task(self.outbox_gate.run(), name="outbox-gate")  # the broker may be away
                stack.callback(gate.cancel)
            await stack.enter_async_context(self._background())
            yield

    @asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        """HTTP is served from the start; the broker is connected beside it, as soon as it answers."""
        task = asyncio.create_task(self._run_roles(), name="roles")
        task.add_done_callback(self._roles_ended)
        stopping = asyncio.create_task(self._stopping.wait(), name="stopping")
        stopping.add_done_callback(lambda _: task.cancel())  # once: a second time would cut the good-byes short
        try:
            yield
        finally:
            self._stopping.set()
            await asyncio.wait([stopping, task], timeout=self.settings.shutdown_grace_s + _GOODBYES_S)
            task.cancel()

    def begin_stop(self) -> None:
        """Stop pulling and publishing, while HTTP still answers what it has begun. May be called by a signal."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    def _roles_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.failed = True
            error = task.exception()
            if isinstance(error, ConfigurationError):
                _log.critical("process.refused", error=str(error))
            else:
                _log.critical("process.failed", exc_info=error)
            self.stop()

    async def _run_roles(self) -> None:
        subscriptions: list[Subscription] = []
        pipelines: list[Pipeline] = []
        for subscriber in self.subscribers:
            pipeline = Pipeline(
                self.settings,
                subscriber=subscriber,
                broker=self.broker,
                claims=self.claims,
                units=self.units,
                telemetry=self.telemetry,
            )
            pipelines.append(pipeline)
            subscriptions.append(pipeline.subscription)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.claims.heartbeat())
            await self.until_available(lambda: stack.enter_async_context(self.broker))
            await self.until_available(lambda: self.broker.declare(self.service.channels, subscriptions))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            if "consumer" in self.settings.roles:
                for pipeline in pipelines:
                    await self.until_available(lambda p=pipeline: self.broker.subscribe(p.subscription, p))  # type: ignore[misc]
                for job in self.service.jobs:
                    tasks.create_task(_run_job(job, self))
            if "relay" in self.settings.roles and self.service.publishes:
                for shard in range(self.settings.relay_shards):
                    tasks.create_task(Relay(self.settings, self.broker, self.telemetry, shard).run())
            tasks.create_task(self._prune())
            tasks.create_task(self._gauges(subscriptions).run())
            self._connected = True
            _log.info("process.started", process=self.name, roles=sorted(self.settings.roles))

    def _gauges(self, subscriptions: list[Subscription]) -> Gauges:
        asks: dict[str, Ask] = {}
        if "relay" in self.settings.roles and self.service.publishes:
            asks |= outbox_of(self.database)
        if "consumer" in self.settings.roles and subscriptions:
            asks |= queues_of(self.broker, self.telemetry, subscriptions)
        return Gauges(self.settings, self.telemetry, asks)

    async def until_available(self, action: Callable[[], Awaitable[Any]]) -> None:
        """Wait for a broker that is not up yet; readiness says so meanwhile."""
        while True:
            try:
                await action()
            except UnavailableError as error:
                _log.warning("process.waiting", error=str(error))
                await asyncio.sleep(1.0)
            else:
                return

    async def _prune(self) -> None:
        """Keep the inbox and the stored answers bounded: once an hour, in portions."""
        while True:
            for prune, retention_s in self._prunings():
                with contextlib.suppress(TransientError):
                    count = _PRUNE_ROWS_MAX
                    while count >= _PRUNE_ROWS_MAX:
                        async with self.database.transaction() as connection:
                            count = await prune(connection, retention_s, _PRUNE_ROWS_MAX)
            await asyncio.sleep(_PRUNE_INTERVAL_S)

    def _prunings(self) -> list[tuple[Callable[..., Awaitable[int]], float]]:
        prunings: list[tuple[Callable[..., Awaitable[int]], float]] = []
        if "consumer" in self.settings.roles and self.subscribers:
            prunings.append((inbox.prune, self.settings.inbox_retention_s))
        if "api" in self.settings.roles:
            prunings.append((idempotency.prune, _IDEMPOTENCY_RETENTION_S))
        return prunings

    # -- probes and documents

    def routes(self) -> list[BaseRoute]:
        """Probes, metrics and the AsyncAPI document; the service appends them to its own routes."""
        return [
            Route("/health/live", _live),
            Route("/health/ready", self._ready),
            Route("/asyncapi.json", self._asyncapi),
            Route("/metrics", _metrics),
        ]

    async def _ready(self, _request: Request) -> Response:
        """200 when the process can do its work, else 503; the body says for each dependency whether and why not.

        `degraded` names what is away and not needed, with the reason: without Redis the inbox alone keeps every
        effect single, slower.
        """
        names = ("postgres", "redis", self.settings.broker)
        checks = (self.database.ping(), self.claims.ping(), self._broker_ready())
        results = await asyncio.gather(*(_within(check) for check in checks))
        problems = {name: problem for name, problem in zip(names, results, strict=True) if problem is not None}
        dependencies = {
            name: {"ready": name not in problems} | ({"problem": problems[name]} if name in problems else {})
            for name in names
        }
        degraded = {name: problem for name, problem in problems.items() if name in _NOT_NEEDED}
        ready = problems.keys() <= degraded.keys()
        degraded |= {breaker.name: breaker.problem for breaker in self._breakers if breaker.problem}
        document = {"ready": ready, "degraded": degraded, "dependencies": dependencies}
        return JSONResponse(document, status_code=200 if ready else 503)

    async def _broker_ready(self) -> None:
        if not self._connected:
            raise UnavailableError(f"{self.settings.broker}: not connected yet")
        await self.broker.ping()

    async def _asyncapi(self, _request: Request) -> Response:
        operations = self.service.operations(self.subscribers)
        return JSONResponse(self.broker.asyncapi(f"Tandem {self.service.name}", VERSION, operations))


async def _run_job(job: Job, process: Process) -> None:
    await job(process)


async def _live(_request: Request) -> Response:
    return JSONResponse({"live": True})


async def _metrics(_request: Request) -> Response:
    body, content_type = prometheus_page()
    return Response(body, media_type=content_type)


async def _within(check: Awaitable[None]) -> str | None:
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            await check
    except (UnavailableError, TimeoutError) as error:
        return str(error) or "no answer in time"
    return None


def application_of(process: Process) -> ASGIApp:
    """The service's own HTTP in a process with the role `api`, else the probes alone."""
    where = process.service.application
    if where is None or "api" not in process.settings.roles:
        return Starlette(routes=process.routes(), lifespan=process.lifespan)
    application: ASGIApp = resolve_name(where)(process)
    return application


def run(service: Service) -> int:
    """Run one process of `service` until it is told to stop; the exit code. Bad settings: one sentence, 78."""
    try:
        settings = Settings.from_environment()
    except ConfigurationError as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        return 78  # EX_CONFIG of sysexits.h
    logs.configure(settings.log_level, service.name)
    process = Process(service, settings)
    server = _Server(
        uvicorn.Config(
            application_of(process),
            host=settings.http_host,
            port=settings.http_port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=int(settings.shutdown_grace_s),
            timeout_keep_alive=30,
            lifespan="on",
        )
    )
    process.stop = lambda: setattr(server, "should_exit", True)
    server.begin_stop = process.begin_stop
    rest_garbage_collector()
    server.run()
    return 1 if process.failed or not server.started else 0


class _Server(uvicorn.Server):
    """Stops the roles at the signal: waiting for the last request first would take the grace period twice."""

    begin_stop: Callable[[], None] = staticmethod(lambda: None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.begin_stop()


def rest_garbage_collector() -> None:
    """Leave the modules out of every collection, and collect once in many thousand allocations, not in 700.

    A batch makes tens of thousands of objects, nearly all freed by reference counting: looking for cycles among
    them, and among all that was imported, took a fifth of a consumer's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS)
