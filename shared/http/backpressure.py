"""Backpressure over HTTP: while too many events wait in the outbox, requests that change state are turned away.

A counted look at the outbox once a second, no query per request. Reads go on; what is turned away may be sent
again after `Retry-After`, with its Idempotency-Key.
"""

from __future__ import annotations

import asyncio

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.database import Database
from shared.errors import TransientError
from shared.http.problems import OUTBOX_FULL, respond
from shared.publishing import outbox_state

_log = structlog.get_logger(__name__)

_LOOK_INTERVAL_S = 1.0
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class OutboxGate:
    """Whether the outbox holds `rows_max` events or more, as of a second ago."""

    def __init__(self, database: Database, rows_max: int) -> None:
        self.closed = False
        self._database = database
        self._rows_max = rows_max

    @property
    def problem(self) -> str | None:
        """Why requests are turned away, for a person; None while they are not."""
        if not self.closed:
            return None
        return f"{self._rows_max} events wait to be published: requests that change state get 503"

    async def run(self) -> None:
        """Look again and again; never returns by itself. While PostgreSQL is away the last answer stands."""
        while True:
            try:
                await self.look()
            except TransientError as error:
                _log.warning("backpressure.unknown", error=str(error))
            except Exception:  # noqa: BLE001 - the gate must not stand still for good, whatever happened once
                _log.exception("backpressure.failed")
            await asyncio.sleep(_LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Look once. Raises `TransientError` when the database cannot tell."""
        async with self._database.statement() as connection:
            state = await outbox_state(connection, self._rows_max)
        full = state.messages >= self._rows_max
        if full != self.closed:
            _log.warning("backpressure.begins" if full else "backpressure.ends", outbox_rows_max=self._rows_max)
        self.closed = full


class Backpressure:
    """ASGI middleware: 503 with `Retry-After` for whatever may change state while the gate is closed."""

    def __init__(self, app: ASGIApp, gate: OutboxGate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._gate.closed and scope["method"] not in _READS:
            await respond(scope, OUTBOX_FULL, OUTBOX_FULL.example)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
