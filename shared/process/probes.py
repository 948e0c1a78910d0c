"""What every process answers over HTTP: whether it lives and is ready, its metrics, and its AsyncAPI document."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from shared import __version__
from shared.consuming import Subscriber
from shared.errors import UnavailableError
from shared.process.parts import Parts
from shared.process.readiness import Question
from shared.process.service import Service
from shared.telemetry import prometheus_page


class Probes:
    """A process's `/health/live`, `/health/ready`, `/metrics` and `/asyncapi.json`.

    `connected` is set while the broker is connected and every role has begun.
    """

    def __init__(
        self, service: Service, parts: Parts, subscribers: Sequence[Subscriber], connected: asyncio.Event
    ) -> None:
        self._service = service
        self._parts = parts
        self._subscribers = subscribers
        self._connected = connected
        self._questions = {
            "postgres": Question(parts.database.ping),
            "redis": Question(parts.claims.ping),
            parts.settings.broker: Question(self._broker_ready),
        }
        roles = parts.settings.roles
        # Where requests are served, the outbox takes their events until the broker is back; an inbox holds without
        # Redis. A stream stands still without its broker, and so does a relay that does nothing else.
        self._serves = "api" in roles
        outbox_takes_events = self._serves and "consumer" not in roles
        self._not_needed = {"redis", parts.settings.broker} if outbox_takes_events else {"redis"}

    def routes(self) -> list[BaseRoute]:
        """The four routes; GET and HEAD only."""
        return [
            Route("/health/live", _live),
            Route("/health/ready", self._ready),
            Route("/asyncapi.json", self._asyncapi),
            Route("/metrics", _metrics),
        ]

    async def _ready(self, _request: Request) -> Response:
        """200 when the process can do the work of its roles, else 503; the body says for each dependency whether
        and why not.

        `degraded` names what is away and not needed, with the reason: without Redis the inbox alone keeps every
        effect single, slower; without its broker a process that serves requests keeps their events in the outbox.
        What stops a stream (a queue that is missing, an event that is not settled) is among the broker's problems;
        what is not as it was declared, and works, is degraded. An outbox that stands still is the broker's problem
        too, or degraded where requests are served.
        """
        parts = self._parts
        results = await asyncio.gather(*(question.problem() for question in self._questions.values()))
        problems = {name: found for name, found in zip(self._questions, results, strict=True) if found is not None}
        dependencies = {
            name: {"ready": name not in problems} | ({"problem": problems[name]} if name in problems else {})
            for name in self._questions
        }
        degraded = {name: problem for name, problem in problems.items() if name in self._not_needed}
        ready = problems.keys() <= degraded.keys()
        degraded |= parts.circuit_breakers.problems()
        degraded |= {name: trouble.reason for name, trouble in parts.broker.troubles.items() if not trouble.stops}
        outbox = parts.outbox_gate.problem or (self._relay_trouble() if self._serves else None)
        if outbox is not None:
            degraded["outbox"] = outbox
        document = {"ready": ready, "degraded": degraded, "dependencies": dependencies}
        return JSONResponse(document, status_code=200 if ready else 503)

    async def _broker_ready(self) -> None:
        if not self._connected.is_set():
            raise UnavailableError(f"{self._parts.settings.broker}: not connected yet")
        await self._parts.broker.ping()
        stopped = {name: trouble for name, trouble in self._parts.broker.troubles.items() if trouble.stops}
        if stopped:
            raise UnavailableError("; ".join(f"{name} {trouble.reason}" for name, trouble in stopped.items()))
        if not self._serves and (outbox := self._relay_trouble()) is not None:
            raise UnavailableError(f"the outbox {outbox}")

    def _relay_trouble(self) -> str | None:
        return next((relay.trouble for relay in self._parts.relays if relay.trouble is not None), None)

    async def _asyncapi(self, _request: Request) -> Response:
        operations = self._service.operations(self._subscribers)
        return JSONResponse(self._parts.broker.asyncapi(f"Tandem {self._service.name}", __version__, operations))


async def _live(_request: Request) -> Response:
    return JSONResponse({"live": True})


async def _metrics(_request: Request) -> Response:
    body, content_type = prometheus_page()
    return Response(body, media_type=content_type)
